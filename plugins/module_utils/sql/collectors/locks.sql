-- collector: locks
-- scope: instance
-- interval: 60
-- metric: waiting_locks unit=count kind=gauge category=performance direction=above warning=5 critical=20
--   Locks that were asked for and are not granted yet, by the database of the session that waits.
SELECT
    d.datname AS database,
    count(w.pid) AS waiting_locks
FROM pg_database AS d
LEFT JOIN (
    -- A lock on a transaction names no database; its session does.
    SELECT
        l.pid,
        a.datid
    FROM pg_locks AS l
    INNER JOIN pg_stat_activity AS a ON l.pid = a.pid
    WHERE NOT l.granted
) AS w ON d.oid = w.datid
WHERE d.datallowconn
GROUP BY d.datname
