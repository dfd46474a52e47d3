-- object: view pgops.metrics
CREATE OR REPLACE VIEW pgops.metrics AS
SELECT
    m.metric_name,
    m.category,
    m.unit,
    m.kind,
    m.direction,
    coalesce(t.warning, m.warning) AS warning,
    coalesce(t.critical, m.critical) AS critical,
    m.help
FROM pgops.metric AS m
LEFT JOIN pgops.threshold AS t ON m.metric_name = t.metric_name;

REVOKE ALL ON pgops.metrics FROM PUBLIC;
GRANT SELECT ON pgops.metrics TO pgops, pgops_reader;
