-- collector: replication
-- scope: instance
-- interval: 60
-- metric: replication_send_lag_bytes unit=bytes category=availability
--   WAL not sent yet: the network, or this server, is too slow.
-- metric: replication_write_lag_bytes unit=bytes category=availability
--   WAL that the standby has not written yet.
-- metric: replication_flush_lag_bytes unit=bytes category=availability
--   WAL that the standby has not on its disk yet: what would be lost with this server.
-- metric: replication_lag_bytes unit=bytes direction=above warning=104857600 critical=10737418240
--   WAL that the standby has not replayed yet, the stages before among it: how far its readers are behind. Of those
--   with one application_name, subscribers among them, this is the worst. One that is cut off has no value.
-- metric: replication_lag_seconds unit=s category=availability direction=above warning=30 critical=300
--   How long WAL lately took until it was replayed, 0 while none is pending. It stands still where the standby says
--   nothing, as replication_lag_bytes does not.
-- metric: standbys_connected unit=count category=availability
--   Standbys that stream from this server, subscribers and pg_receivewal left out: compare it with those there are.
WITH senders AS (
    SELECT
        r.application_name AS standby,
        -- That of a subscriber is connected to a database.
        a.datid IS NULL AND r.application_name <> 'pg_receivewal' AS physical,
        w.lsn - r.sent_lsn AS unsent,
        w.lsn - r.write_lsn AS unwritten,
        w.lsn - r.flush_lsn AS unflushed,
        w.lsn - r.replay_lsn AS unreplayed,
        CASE WHEN w.lsn <= r.replay_lsn THEN 0 ELSE extract(EPOCH FROM r.replay_lag) END AS seconds
    FROM pg_stat_replication AS r
    INNER JOIN pg_stat_activity AS a ON r.pid = a.pid
    CROSS JOIN (
        SELECT
            CASE
                WHEN pg_is_in_recovery()
                    THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                ELSE pg_current_wal_lsn()
            END AS lsn
    ) AS w
    WHERE r.state IN ('catchup', 'streaming') AND r.application_name <> 'pg_basebackup'
)

SELECT
    s.standby,
    -- A sender may be ahead of what was read a moment before.
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
