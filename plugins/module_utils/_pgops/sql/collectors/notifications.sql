-- collector: notifications
-- scope: instance
-- interval: 60
-- role: primary
-- metric: notifications_waiting unit=count category=availability
--   Messages that wait to be sent to a channel; for an Alertmanager 1 while it does not take what it is told, else 0.
-- metric: notification_oldest_seconds unit=s category=availability direction=above warning=900 critical=3600
--   How long the oldest of them has waited, or since when the Alertmanager has taken nothing; 0 if none waits.
-- metric: notifications_dead unit=count category=availability direction=above warning=0
--   Messages to a channel that were given up within the last day.
-- metric: notification_attempts_failed unit=count category=availability
--   Attempts of the last hour to send a message to a channel that failed, or of which that is not known; for an
--   Alertmanager those since it last took what it was told.
SELECT
    c.channel,
    CASE
        WHEN c.kind = 'alertmanager' THEN (coalesce(c.failures, 0) > 0)::integer ELSE c.waiting
    END AS notifications_waiting,
    coalesce(extract(EPOCH FROM clock_timestamp() - c.undelivered_since), 0) AS notification_oldest_seconds,
    c.dead_lately AS notifications_dead,
    CASE
        WHEN c.kind = 'alertmanager' THEN coalesce(c.failures, 0) ELSE c.failed_lately
    END AS notification_attempts_failed
FROM pgops.notification_channels AS c
WHERE c.is_enabled
