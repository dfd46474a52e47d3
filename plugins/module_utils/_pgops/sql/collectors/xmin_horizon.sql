-- collector: xmin_horizon
-- scope: instance
-- interval: 60
-- metric: xmin_age unit=count kind=gauge category=availability
--   Transactions since the oldest snapshot, by holder; 0 if none. Rows that died since then cannot be vacuumed: end
--   the session, finish the prepared transaction, drop the slot, or check the standby's sessions.
-- metric: xmin_horizon_percent unit=% kind=gauge category=availability direction=above warning=25 critical=50
--   xmin_age as a share of autovacuum_freeze_max_age.
WITH held (holder, xids) AS (
    SELECT
        CASE a.backend_type WHEN 'walsender' THEN 'standby' ELSE 'session' END,
        greatest(age(a.backend_xid), age(a.backend_xmin))
    FROM pg_stat_activity AS a
    -- VACUUM and its workers hold back nothing.
    WHERE
        a.pid <> pg_backend_pid()
        AND coalesce(a.leader_pid, a.pid) NOT IN (SELECT v.pid FROM pg_stat_progress_vacuum AS v)
    UNION ALL
    SELECT
        'prepared',
        age(p.transaction)
    FROM pg_prepared_xacts AS p
    UNION ALL
    SELECT
        'slot',
        age(s.xmin)
    FROM pg_replication_slots AS s
    -- A lost slot holds back nothing, though it still shows its xmin. Others may have no status at all.
    WHERE s.wal_status IS DISTINCT FROM 'lost'
    UNION ALL
    SELECT
        'slot_catalog',
        age(s.catalog_xmin)
    FROM pg_replication_slots AS s
    WHERE s.wal_status IS DISTINCT FROM 'lost'
)

SELECT
    k.holder,
    coalesce(max(h.xids), 0) AS xmin_age,
    100.0 * coalesce(max(h.xids), 0)
    / current_setting('autovacuum_freeze_max_age')::bigint AS xmin_horizon_percent
FROM unnest(ARRAY['session', 'prepared', 'slot', 'slot_catalog', 'standby']) AS k (holder)
LEFT JOIN held AS h ON k.holder = h.holder
GROUP BY k.holder
