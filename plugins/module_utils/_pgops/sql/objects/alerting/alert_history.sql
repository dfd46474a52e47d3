-- object: view pgops.alert_history
CREATE OR REPLACE VIEW pgops.alert_history AS
SELECT
    a.alert_id,
    a.rule_id,
    a.status AS alert_status,
    a.metric_value,
    a.threshold_value,
    a.severity_level,
    a.labels ->> 'database' AS database_name,
    a.labels ->> 'table' AS table_name,
    a.labels AS additional_context,
    a.started_at,
    a.fired_at,
    CASE WHEN a.status = 'resolved' THEN a.ended_at END AS resolved_at,
    a.ended_at,
    a.reason,
    a.rule_name,
    a.metric_name,
    a.condition_operator,
    a.cluster,
    a.node,
    a.flapping,
    a.acknowledged_at,
    a.acknowledged_by,
    a.acknowledgement,
    n.channels IS NOT NULL AS notification_sent,
    coalesce(n.channels, '[]') AS notification_channels_used
FROM pgops.alert AS a
CROSS JOIN LATERAL (
    SELECT pg_catalog.jsonb_agg(t.channel ORDER BY t.channel) AS channels
    FROM pgops.alert_notice AS t
    WHERE t.alert_id = a.alert_id AND t.delivered_at IS NOT NULL
) AS n;

REVOKE ALL ON pgops.alert_history FROM PUBLIC;
GRANT SELECT ON pgops.alert_history TO pgops, pgops_reader;
