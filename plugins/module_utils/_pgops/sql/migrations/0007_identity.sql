-- What a counter counts: the OIDs of its database and of the object in it, empty where none is known. Names of the same
-- object change, and another object can get its name. Of a gauge, and of other counters, the labels are the identity.
ALTER TABLE pgops.series ADD COLUMN identity text NOT NULL DEFAULT '';

ALTER TABLE pgops.series DROP CONSTRAINT series_metric_id_node_id_database_name_schema_name_table_na_key;

ALTER TABLE pgops.series ADD UNIQUE (
    metric_id, node_id, database_name, schema_name, table_name, index_name, other, identity
);
