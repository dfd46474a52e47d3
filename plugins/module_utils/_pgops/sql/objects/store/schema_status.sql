-- object: view pgops.schema_status
CREATE OR REPLACE VIEW pgops.schema_status AS
SELECT
    m.number AS migration,
    m.collection_version,
    m.applied_at AS migrated_at,
    (
        SELECT s.value::integer FROM pgops.setting AS s
        WHERE s.name = 'retention_days'
    ) AS retention_days,
    (
        SELECT s.value::integer FROM pgops.setting AS s
        WHERE s.name = 'max_size_mb'
    ) AS max_size_mb
FROM pgops.migration AS m
ORDER BY m.number DESC
LIMIT 1;

REVOKE ALL ON pgops.schema_status FROM PUBLIC;
GRANT SELECT ON pgops.schema_status TO pgops, pgops_reader;
