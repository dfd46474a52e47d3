-- object: view pgops.notification_channels
CREATE OR REPLACE VIEW pgops.notification_channels AS
SELECT
    h.channel,
    h.kind,
    h.is_enabled,
    h.is_default,
    h.severities,
    h.labels,
    h.send_resolved,
    h.group_interval,
    h.repeat_interval,
    h.fallback_channel,
    h.fallback_after,
    h.attempts,
    h.source,
    h.created_at,
    (
        SELECT pg_catalog.count(*) FROM pgops.notification AS n
        WHERE n.channel = h.channel AND n.status = 'waiting'
    ) AS waiting,
    (
        SELECT pg_catalog.min(n.queued_at) FROM pgops.notification AS n
        WHERE n.channel = h.channel AND n.status = 'waiting'
    ) AS waiting_since,
    (
        SELECT pg_catalog.count(*) FROM pgops.notification AS n
        WHERE n.channel = h.channel AND n.status = 'dead'
    ) AS dead,
    coalesce(
        s.failures,
        (
            SELECT pg_catalog.max(n.attempts) FROM pgops.notification AS n
            WHERE n.channel = h.channel AND n.status = 'waiting'
        )
    ) AS failures,
    s.told_at,
    s.error,
    -- An Alertmanager is told all each minute, what fires already as well.
    coalesce(
        (
            SELECT pg_catalog.min(n.queued_at) FROM pgops.notification AS n
            WHERE n.channel = h.channel AND n.status = 'waiting'
        ),
        (
            SELECT greatest(s.told_at, f.seen_at)
            FROM (
                SELECT pg_catalog.min(t.seen_at) AS seen_at FROM pgops.alert_notice AS t
                WHERE t.channel = h.channel AND h.kind = 'alertmanager' AND NOT t.closed AND t.muted_by IS NULL
            ) AS f
            WHERE f.seen_at IS NOT NULL
        )
    ) AS undelivered_since,
    (
        SELECT pg_catalog.count(*) FROM pgops.notification AS n
        WHERE
            n.channel = h.channel AND n.status = 'dead'
            AND n.ended_at > pg_catalog.now() - interval '1 day'
    ) AS dead_lately,
    (
        SELECT pg_catalog.count(*)
        FROM pgops.notification_attempt AS a
        INNER JOIN pgops.notification AS n ON a.notification_id = n.notification_id
        WHERE
            n.channel = h.channel AND a.outcome <> 'sent'
            AND a.ended_at > pg_catalog.now() - interval '1 hour'
    ) AS failed_lately
FROM pgops.notification_channel AS h
LEFT JOIN pgops.alertmanager_state AS s ON h.channel = s.channel;

REVOKE ALL ON pgops.notification_channels FROM PUBLIC;
GRANT SELECT ON pgops.notification_channels TO pgops, pgops_reader, pgops_operator;
