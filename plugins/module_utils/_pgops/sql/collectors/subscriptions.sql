-- collector: subscriptions
-- scope: instance
-- interval: 60
-- role: primary
-- metric: subscription_enabled unit=count category=availability
--   0 if the subscription is disabled, by hand or by disable_on_error (see the log).
-- metric: subscription_applying unit=count category=availability direction=below warning=1 critical=1
--   1 while a worker applies changes of an enabled subscription, 0 if none runs: the publisher is down, or a change
--   cannot be applied and is retried. Its slot retains WAL on the publisher meanwhile. See the log.
-- metric: subscription_message_age_seconds unit=s category=availability direction=above warning=120 critical=600
--   Time since the publisher's last message. By default it sends one every 30 seconds, even if idle.
-- metric: subscription_tables_syncing unit=count category=performance
--   Tables in their initial copy.
-- metric: subscription_apply_errors unit=count kind=counter category=availability
--   Errors while changes were applied; a persistent one is counted at each attempt.
-- metric: subscription_sync_errors unit=count kind=counter category=availability
--   Errors during initial copies, and since PostgreSQL 19 while the values of sequences were copied.
SELECT
    d.datname AS database,
    s.subname AS subscription,
    s.oid AS identity,
    s.subenabled::integer AS subscription_enabled,
    CASE WHEN s.subenabled THEN (w.applies IS NOT NULL)::integer END AS subscription_applying,
    extract(EPOCH FROM clock_timestamp() - w.heard_at) AS subscription_message_age_seconds,
    w.copies AS subscription_tables_syncing,
    e.apply_error_count AS subscription_apply_errors,
    coalesce(
        (to_jsonb(e) ->> 'sync_error_count')::bigint,
        -- Since PostgreSQL 19.
        (to_jsonb(e) ->> 'sync_table_error_count')::bigint + (to_jsonb(e) ->> 'sync_seq_error_count')::bigint
    ) AS subscription_sync_errors,
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
        -- PostgreSQL 19 copies the values of sequences, by a worker that applies nothing and is of no relation.
        WHERE p.subid = s.oid AND coalesce(to_jsonb(p) ->> 'worker_type', '') <> 'sequence synchronization'
    ) AS w
LEFT JOIN pg_stat_subscription_stats AS e ON s.oid = e.subid
