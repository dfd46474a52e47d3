-- collector: replication
-- scope: instance
-- interval: 60
-- metric: replication_send_lag_bytes unit=bytes category=availability
--   WAL not sent yet: the network, or this server, is too slow.
-- metric: replication_write_lag_bytes unit=bytes category=availability
--   WAL that the standby has not written yet.
-- metric: replication_flush_lag_bytes unit=bytes category=availability
--   WAL that the standby has not flushed to disk yet, and that would be lost with this server.
-- metric: replication_lag_bytes unit=bytes direction=above warning=104857600 critical=10737418240
--   WAL that the standby has not replayed yet, including the stages before. Shows how far its readers are behind. If
--   several clients, subscribers included, share an application_name, the worst. No value while disconnected.
-- metric: replication_lag_seconds unit=s category=availability direction=above warning=30 critical=300
--   Time until recent WAL was replayed, or the age of WAL that is not replayed yet (as exact as its segment allows);
--   0 while none is pending. No value if this server cannot tell whether replay stands still: see
--   replication_lag_bytes, and replay_delay_seconds of the standby.
-- metric: standbys_connected unit=count category=availability
--   Standbys that stream from this server, that is clients that report replay (pg_receivewal does not). Subscribers
--   are left out. Compare with the expected number.
WITH senders AS (
    SELECT
        -- Each initial table copy of a subscription uses its own name, with numbers in it.
        regexp_replace(r.application_name, '^pg_[0-9]+_sync_[0-9]+_[0-9]+$', 'pg_*_sync_*') AS standby,
        -- A subscriber's sender is connected to a database. A client that has not replied yet counts as a standby.
        a.datid IS NULL
        AND (
            r.replay_lsn IS NOT NULL
            OR (r.reply_time IS NULL AND r.application_name NOT IN ('pg_receivewal', 'barman_receive_wal'))
        ) AS physical,
        w.lsn - r.sent_lsn AS unsent,
        w.lsn - r.write_lsn AS unwritten,
        w.lsn - r.flush_lsn AS unflushed,
        w.lsn - r.replay_lsn AS unreplayed,
        CASE
            WHEN w.lsn <= r.replay_lsn THEN 0
            WHEN f.seconds >= 30 OR f.at_most <= 30 THEN f.seconds
        END AS seconds
    FROM pg_stat_replication AS r
    INNER JOIN pg_stat_activity AS a ON r.pid = a.pid
    CROSS JOIN (
        SELECT
            CASE
                WHEN pg_is_in_recovery()
                    THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                ELSE pg_current_wal_lsn()
            END AS lsn,
            pg_size_bytes(current_setting('wal_segment_size')) AS segment
    ) AS w
    -- replay_lag is the last measured value, and stays the same while replay stands still. But the oldest WAL that is
    -- not replayed was written before the last of its segment, and after the last of the previous segment.
    CROSS JOIN
        LATERAL (
            SELECT
                greatest(
                    extract(EPOCH FROM r.replay_lag),
                    -- File times are whole seconds here.
                    extract(EPOCH FROM clock_timestamp() - max(l.modification) FILTER (WHERE l.nth = 0)) - 1,
                    0.001
                ) AS seconds,
                extract(EPOCH FROM clock_timestamp() - min(l.modification) FILTER (WHERE l.nth = 1)) AS at_most
            FROM (
                SELECT
                    d.modification,
                    div(r.replay_lsn - '0/0', w.segment)
                    - ('x' || substring(d.name, 9, 8))::bit(32)::bigint * div(4294967296, w.segment)
                    - ('x' || substring(d.name, 17, 8))::bit(32)::bigint AS nth
                FROM pg_ls_waldir() AS d
                WHERE w.lsn > r.replay_lsn AND d.name ~ '^[0-9A-F]{24}$'
            ) AS l
        ) AS f
    WHERE r.state IN ('catchup', 'streaming') AND r.application_name <> 'pg_basebackup'
)

SELECT
    s.standby,
    -- A sender may be ahead of the position that was read a moment before.
    greatest(max(s.unsent), CASE WHEN count(s.unsent) > 0 THEN 0 END) AS replication_send_lag_bytes,
    greatest(max(s.unwritten), CASE WHEN count(s.unwritten) > 0 THEN 0 END) AS replication_write_lag_bytes,
    greatest(max(s.unflushed), CASE WHEN count(s.unflushed) > 0 THEN 0 END) AS replication_flush_lag_bytes,
    greatest(max(s.unreplayed), CASE WHEN count(s.unreplayed) > 0 THEN 0 END) AS replication_lag_bytes,
    max(s.seconds) AS replication_lag_seconds,
    NULL::bigint AS standbys_connected
FROM senders AS s
GROUP BY s.standby
UNION ALL
SELECT
    NULL AS standby,
    NULL AS replication_send_lag_bytes,
    NULL AS replication_write_lag_bytes,
    NULL AS replication_flush_lag_bytes,
    NULL AS replication_lag_bytes,
    NULL AS replication_lag_seconds,
    count(*) FILTER (WHERE s.physical) AS standbys_connected
FROM senders AS s
