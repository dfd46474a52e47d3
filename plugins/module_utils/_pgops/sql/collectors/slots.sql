-- collector: slots
-- scope: instance
-- interval: 60
-- metric: slot_retained_bytes unit=bytes category=capacity direction=above warning=1073741824 critical=10737418240
--   WAL that a replication slot retains on disk, whether it is in use or not; no value once it is lost. Temporary
--   slots are left out. The slots of initial table copies (pg_*_sync_*) are one series, the worst.
-- metric: slot_active unit=count kind=gauge category=availability
--   1 while the slot is in use.
-- metric: slot_inactive_seconds unit=s kind=gauge category=availability direction=above warning=600 critical=1800
--   Time for which the slot has been unused, 0 while active. Before PostgreSQL 17 the server does not know it: use
--   slot_active over time.
-- metric: slot_wal_status unit=count kind=gauge category=availability direction=above warning=1 critical=2
--   0 reserved, 1 extended (beyond max_wal_size), 2 unreserved (the WAL may be removed at any time), 3 lost (recreate
--   the slot).
-- metric: slot_safe_wal_bytes unit=bytes kind=gauge category=capacity
--   WAL that can still be written before the slot may be lost; only if max_slot_wal_keep_size is set.
-- metric: slot_invalidated unit=count kind=gauge category=availability direction=above warning=0 critical=0
--   1 if the slot is unusable: lost, or (16 and later) in conflict with recovery or otherwise invalidated.
SELECT
    s.database,
    k.slot,
    s.slot_type,
    max(
        -- A lost slot retains nothing, though most still have a restart_lsn.
        CASE
            WHEN s.wal_status = 'lost' THEN NULL
            WHEN pg_is_in_recovery()
                THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
            ELSE pg_current_wal_lsn()
        END - s.restart_lsn
    ) AS slot_retained_bytes,
    min(s.active::integer) AS slot_active,
    max(
        CASE
            WHEN s.active THEN 0
            ELSE extract(EPOCH FROM clock_timestamp() - (to_jsonb(s) ->> 'inactive_since')::timestamptz)
        END
    ) AS slot_inactive_seconds,
    max(array_position(ARRAY['reserved', 'extended', 'unreserved', 'lost'], s.wal_status)) - 1 AS slot_wal_status,
    min(s.safe_wal_size) AS slot_safe_wal_bytes,
    max(
        (
            coalesce(s.wal_status = 'lost', FALSE)
            OR coalesce((to_jsonb(s) ->> 'conflicting')::boolean, FALSE)
            OR coalesce(to_jsonb(s) ->> 'invalidation_reason', '') <> ''
        )::integer
    ) AS slot_invalidated
FROM pg_replication_slots AS s
-- Each initial table copy of a subscription uses its own slot, with numbers in its name.
CROSS JOIN LATERAL regexp_replace(s.slot_name, '^pg_[0-9]+_sync_[0-9]+_[0-9]+$', 'pg_*_sync_*') AS k (slot)
WHERE NOT s.temporary
GROUP BY s.database, k.slot, s.slot_type
