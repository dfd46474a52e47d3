-- collector: activity
-- scope: instance
-- interval: 10
-- metric: active_connections unit=count kind=gauge category=availability direction=above warning=80 critical=95
--   Client sessions that run a query now, by database, without the collector's own.
SELECT
    d.datname AS database,
    count(a.pid) AS active_connections
FROM pg_database AS d
LEFT JOIN pg_stat_activity AS a
    ON
        d.oid = a.datid
        AND a.state = 'active'
        AND a.backend_type = 'client backend'
        AND a.pid <> pg_backend_pid()
WHERE d.datallowconn OR NOT d.datistemplate
GROUP BY d.datname
