-- object: view pgops.replication_senders
-- The clients that stream from this server now. For replication_topology.
CREATE OR REPLACE VIEW pgops.replication_senders AS
WITH here AS (
    SELECT
        CASE
            WHEN pg_catalog.pg_is_in_recovery()
                THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
            ELSE pg_catalog.pg_current_wal_lsn()
        END AS lsn,
        pg_catalog.clock_timestamp() AS at
),

sender AS (
    SELECT
        r.pid,
        r.application_name,
        r.usename::text AS usename,
        r.client_addr,
        r.state,
        r.sync_state,
        r.reply_time,
        r.replay_lag,
        a.datid IS NULL AS physical,
        -- It does not answer: by default it answers every ten seconds, and if asked twice in wal_sender_timeout.
        r.state IN ('catchup', 'streaming') AND h.at - r.reply_time > '1 minute'::interval AS silent,
        h.lsn - r.sent_lsn AS unsent,
        h.lsn - r.flush_lsn AS unflushed,
        h.lsn - r.replay_lsn AS unreplayed
    FROM pg_catalog.pg_stat_replication AS r
    INNER JOIN pg_catalog.pg_stat_activity AS a ON r.pid = a.pid
    CROSS JOIN here AS h
)

SELECT
    s.pid,
    s.application_name,
    s.usename,
    s.client_addr,
    s.physical,
    CASE WHEN s.silent THEN 'silent' ELSE s.state END AS state,
    s.sync_state,
    s.reply_time,
    -- A sender may be ahead of the position that was read a moment before.
    CASE WHEN s.unsent < 0 THEN 0 ELSE s.unsent END AS sent_lag_bytes,
    CASE WHEN s.unflushed < 0 THEN 0 ELSE s.unflushed END AS flush_lag_bytes,
    CASE WHEN s.unreplayed < 0 THEN 0 ELSE s.unreplayed END AS lag_bytes,
    CASE
        WHEN s.silent THEN NULL
        WHEN s.unreplayed <= 0 THEN 0
        ELSE pg_catalog.date_part('epoch', s.replay_lag)
    END AS lag_seconds,
    l.slot_name::text AS slot_name
FROM sender AS s
LEFT JOIN pg_catalog.pg_replication_slots AS l ON s.pid = l.active_pid;

REVOKE ALL ON pgops.replication_senders FROM PUBLIC;
