-- object: view pgops.system_metrics
-- requires: record_sample
CREATE OR REPLACE VIEW pgops.system_metrics AS
SELECT
    pg_catalog.md5(pg_catalog.concat_ws(
        '/', r.shape_id, p.place, pg_catalog.date_part('epoch', r.collected_at)
    ))::uuid AS metric_id,
    m.metric_name,
    m.category AS metric_category,
    r.sample_values[p.place] AS metric_value,
    m.unit AS metric_unit,
    coalesce(t.warning, m.warning) AS warning_threshold,
    coalesce(t.critical, m.critical) AS critical_threshold,
    m.direction AS threshold_direction,
    nullif(s.database_name, '') AS database_name,
    nullif(s.schema_name, '') AS schema_name,
    nullif(s.table_name, '') AS table_name,
    nullif(s.index_name, '') AS index_name,
    r.collected_at,
    s.other AS additional_info,
    n.cluster,
    n.node,
    m.kind AS metric_kind
FROM pgops.round AS r
INNER JOIN pgops.shape_series AS p ON r.shape_id = p.shape_id
INNER JOIN pgops.series AS s ON p.series_id = s.series_id
INNER JOIN pgops.metric AS m ON s.metric_id = m.metric_id
INNER JOIN pgops.node AS n ON s.node_id = n.node_id
LEFT JOIN pgops.threshold AS t ON m.metric_name = t.metric_name
WHERE r.sample_values[p.place] IS NOT NULL;

REVOKE ALL ON pgops.system_metrics FROM PUBLIC;
GRANT SELECT ON pgops.system_metrics TO pgops, pgops_reader;

DROP TRIGGER IF EXISTS record_sample ON pgops.system_metrics;
CREATE TRIGGER record_sample INSTEAD OF INSERT ON pgops.system_metrics
FOR EACH ROW EXECUTE FUNCTION pgops.record_sample();
