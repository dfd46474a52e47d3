-- object: view pgops.notifications
CREATE OR REPLACE VIEW pgops.notifications AS
SELECT
    n.notification_id,
    n.channel,
    n.cluster,
    n.status,
    n.queued_at,
    n.ended_at,
    n.attempts AS failed_attempts,
    CASE n.status WHEN 'waiting' THEN n.next_attempt_at END AS next_attempt_at,
    n.handed_over,
    s.alerts,
    s.rule_name,
    s.severity_level,
    t.attempts
FROM pgops.notification AS n
CROSS JOIN
    LATERAL (
        SELECT
            pg_catalog.max(a.rule_name) AS rule_name,
            pg_catalog.max(a.severity_level) AS severity_level,
            pg_catalog.jsonb_object_agg(m.alert_id, m.event) AS alerts
        FROM pgops.notification_alert AS m
        INNER JOIN pgops.alert AS a ON m.alert_id = a.alert_id
        WHERE m.notification_id = n.notification_id
    ) AS s
CROSS JOIN LATERAL (
    SELECT
        pg_catalog.jsonb_agg(
            pg_catalog.jsonb_build_object(
                'target', a.target, 'began_at', a.began_at, 'ended_at', a.ended_at, 'outcome', a.outcome,
                'marked', a.marked, 'error', a.error
            )
            ORDER BY a.began_at, a.target
        ) AS attempts
    FROM pgops.notification_attempt AS a
    WHERE a.notification_id = n.notification_id
) AS t;

REVOKE ALL ON pgops.notifications FROM PUBLIC;
GRANT SELECT ON pgops.notifications TO pgops, pgops_reader, pgops_operator;
