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
    s.error
FROM pgops.notification_channel AS h
LEFT JOIN pgops.alertmanager_state AS s ON h.channel = s.channel;

REVOKE ALL ON pgops.notification_channels FROM PUBLIC;
GRANT SELECT ON pgops.notification_channels TO pgops, pgops_reader, pgops_operator;
