-- collector: subscriptions
-- scope: instance
-- interval: 60
-- versions: 15-
-- role: primary
-- metric: subscription_enabled unit=count category=availability
--   0 for a subscription that is disabled: by hand, or by an error where disable_on_error is set (see the log).
-- metric: subscription_applying unit=count category=availability direction=below warning=1 critical=1
--   1 while a worker applies what an enabled subscription gets, 0 where none runs: the publisher is away, or what it
--   sends cannot be applied, and is tried over and over. Its slot keeps WAL on the publisher meanwhile. See the log.
-- metric: subscription_message_age_seconds unit=s category=availability direction=above warning=120 critical=600
--   How long the worker has heard nothing of the publisher, which speaks every half a minute by default, be it idle.
-- metric: subscription_tables_syncing unit=count category=performance
--   Tables whose first copy is made now.
-- metric: subscription_apply_errors unit=count kind=counter category=availability
--   Errors while changes were applied: one that stays is counted at every try.
-- metric: subscription_sync_errors unit=count kind=counter category=availability
--   Errors while tables were copied first.
SELECT
    d.datname AS database,
    s.subname AS subscription,
    s.subenabled::integer AS subscription_enabled,
    CASE WHEN s.subenabled THEN (w.applies IS NOT NULL)::integer END AS subscription_applying,
    extract(EPOCH FROM clock_timestamp() - w.heard_at) AS subscription_message_age_seconds,
    w.copies AS subscription_tables_syncing,
    e.apply_error_count AS subscription_apply_errors,
    e.sync_error_count AS subscription_sync_errors,
    e.stats_reset AS counted_since
FROM pg_subscription AS s
INNER JOIN pg_database AS d ON s.subdbid = d.oid
CROSS JOIN
    LATERAL (
        SELECT
            max(p.pid) FILTER (WHERE p.relid IS NULL AND to_jsonb(p) ->> 'leader_pid' IS NULL) AS applies,
            max(p.last_msg_receipt_time) FILTER (WHERE p.relid IS NULL) AS heard_at,
            count(p.relid) AS copies
        FROM pg_stat_subscription AS p
        WHERE p.subid = s.oid
    ) AS w
LEFT JOIN pg_stat_subscription_stats AS e ON s.oid = e.subid
