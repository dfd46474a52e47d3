-- object: view pgops.recent_rates
-- requires: metric_rates
CREATE OR REPLACE VIEW pgops.recent_rates AS
SELECT
    m.metric_name,
    m.unit,
    r.cluster,
    r.node,
    r.database_name,
    r.schema_name,
    r.table_name,
    r.index_name,
    r.additional_info,
    r.started_at,
    r.ended_at,
    r.increase,
    r.rate
FROM pgops.metric AS m
CROSS JOIN
    LATERAL pgops.metric_rates(m.metric_name, pg_catalog.now() - '15 minutes'::interval, pg_catalog.now()) AS r
WHERE m.kind = 'counter';

REVOKE ALL ON pgops.recent_rates FROM PUBLIC;
GRANT SELECT ON pgops.recent_rates TO pgops, pgops_reader;
