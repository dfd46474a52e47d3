-- collector: standby
-- scope: instance
-- interval: 60
-- role: standby
-- metric: receiver_streaming unit=count category=availability
--   1 while WAL streams in, 0 while disconnected, or if WAL comes only from an archive.
-- metric: replay_lag_bytes unit=bytes category=availability direction=above warning=104857600 critical=10737418240
--   WAL received but not replayed yet; WAL that was not sent is unknown here. A standby with recovery_min_apply_delay
--   has much of it: set its own thresholds.
-- metric: replay_delay_seconds unit=s category=availability direction=above warning=30 critical=300
--   Age of the newest replayed transaction, minus recovery_min_apply_delay. 0 only while WAL streams in and all of it
--   is replayed or waits for that delay. It grows while disconnected, or while replay stands still. A standby fed
--   from an archive cannot distinguish an idle primary from a lag.
-- metric: replay_paused unit=count category=availability direction=above warning=0
--   1 while replay is paused, or about to pause; pg_wal_replay_resume() resumes it.
WITH state AS (
    SELECT
        pg_last_wal_replay_lsn() AS replayed,
        greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) AS received,
        -- The checkpoint of its last start, if it has replayed no transaction since.
        greatest(pg_last_xact_replay_timestamp(), c.checkpoint_time)
        + current_setting('recovery_min_apply_delay')::interval AS due,
        -- It has received the next transaction, which is not due yet.
        exists(
            SELECT FROM pg_stat_activity AS a
            WHERE a.backend_type = 'startup' AND a.wait_event = 'RecoveryApplyDelay'
        ) AS early
    FROM pg_control_checkpoint() AS c
)

SELECT
    (r.status IS NOT NULL)::integer AS receiver_streaming,
    s.received - s.replayed AS replay_lag_bytes,
    CASE
        WHEN r.status IS NULL OR (s.replayed < greatest(s.received, r.latest_end_lsn) AND NOT s.early)
            THEN greatest(extract(EPOCH FROM clock_timestamp() - s.due), 0.001)
        -- By default the sender sends every 30 seconds, even if idle: silence means that the connection is lost.
        WHEN clock_timestamp() - r.last_msg_receipt_time > '1 minute'
            THEN extract(EPOCH FROM clock_timestamp() - r.last_msg_receipt_time)
        ELSE 0
    END AS replay_delay_seconds,
    (pg_get_wal_replay_pause_state() <> 'not paused')::integer AS replay_paused
FROM state AS s
LEFT JOIN pg_stat_wal_receiver AS r ON r.status = 'streaming'
