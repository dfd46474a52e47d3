-- collector: locks
-- scope: instance
-- interval: 60
-- metric: waiting_locks unit=count kind=gauge category=performance direction=above warning=5 critical=20
--   Locks requested but not granted yet, by the database of the waiting session.
-- metric: granted_locks unit=count kind=gauge category=performance
--   Locks held on relations, rows and other objects, including advisory locks, by mode, in all databases, without the
--   collector's own.
WITH kind (mode) AS (
    VALUES
    ('AccessShareLock'),
    ('RowShareLock'),
    ('RowExclusiveLock'),
    ('ShareUpdateExclusiveLock'),
    ('ShareLock'),
    ('ShareRowExclusiveLock'),
    ('ExclusiveLock'),
    ('AccessExclusiveLock'),
    ('SIReadLock')
),

lock AS (
    SELECT
        l.pid,
        l.mode,
        l.granted,
        l.database
    FROM pg_locks AS l
    WHERE l.pid IS DISTINCT FROM pg_backend_pid()
)

SELECT
    d.datname AS database,
    NULL AS mode,
    count(w.pid) AS waiting_locks,
    NULL::bigint AS granted_locks
FROM pg_database AS d
LEFT JOIN (
    -- A lock on a transaction has no database; its session does.
    SELECT
        l.pid,
        a.datid
    FROM lock AS l
    INNER JOIN pg_stat_activity AS a ON l.pid = a.pid
    WHERE NOT l.granted
) AS w ON d.oid = w.datid
WHERE d.datallowconn OR NOT d.datistemplate
GROUP BY d.datname
UNION ALL
SELECT
    NULL AS database,
    k.mode,
    NULL AS waiting_locks,
    count(l.mode) AS granted_locks
FROM kind AS k
-- Locks of transactions on themselves have no database.
LEFT JOIN lock AS l ON k.mode = l.mode AND l.granted AND l.database IS NOT NULL
GROUP BY k.mode
