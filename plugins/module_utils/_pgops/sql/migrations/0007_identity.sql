-- What a counter counts: the OIDs of its database and of the object in it; empty where none is known, and for gauges.
-- The name of an object can change, and another object can get it.
ALTER TABLE pgops.series ADD COLUMN identity text NOT NULL DEFAULT '';

ALTER TABLE pgops.series DROP CONSTRAINT series_metric_id_node_id_database_name_schema_name_table_na_key;

ALTER TABLE pgops.series ADD UNIQUE (
    metric_id, node_id, database_name, schema_name, table_name, index_name, other, identity
);
