-- collector: blocking
-- scope: instance
-- interval: 10
-- metric: blocked_sessions unit=count category=availability direction=above critical=5
--   Sessions that wait for a lock that another session holds, by database; a parallel query counts once.
--   pg_blocking_pids() shows who holds it.
-- metric: blocking_sessions unit=count category=availability
--   Sessions that hold such locks, in the database of the waiting session; all prepared transactions count as one.
--   Only for the hundred sessions that wait longest.
-- metric: longest_lock_wait_seconds unit=s category=availability direction=above warning=60 critical=300
--   Longest of these waits, 0 if there is none. Other sessions queue behind it: end the holder, or the waiting
--   session.
SELECT
    d.datname AS database,
    count(DISTINCT w.leader) AS blocked_sessions,
    count(DISTINCT b.pid) AS blocking_sessions,
    coalesce(extract(EPOCH FROM max(w.waited)), 0) AS longest_lock_wait_seconds
FROM pg_database AS d
LEFT JOIN (
    -- A lock on a transaction has no database; its session does.
    SELECT
        a.datid,
        l.pid,
        coalesce(a.leader_pid, a.pid) AS leader,
        clock_timestamp() - l.waitstart AS waited,
        row_number() OVER (ORDER BY l.waitstart ASC NULLS LAST) AS place
    FROM pg_locks AS l
    INNER JOIN pg_stat_activity AS a ON l.pid = a.pid
    WHERE NOT l.granted
) AS w ON d.oid = w.datid
-- Each call stops the server's lock manager for a moment. 0 stands for prepared transactions.
LEFT JOIN LATERAL unnest(CASE WHEN w.place <= 100 THEN pg_blocking_pids(w.pid) END) AS b (pid) ON TRUE
WHERE d.datallowconn OR NOT d.datistemplate
GROUP BY d.datname
