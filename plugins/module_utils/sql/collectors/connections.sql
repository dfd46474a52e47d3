-- collector: connections
-- scope: instance
-- interval: 60
-- metric: connections unit=count kind=gauge category=capacity
--   Client sessions by database and state; the collector's own is left out. State 'other' is that of sessions that
--   run a fastpath function, or whose activity is not tracked.
-- metric: connections_used_percent unit=% kind=gauge category=capacity direction=above warning=80 critical=90
--   All client sessions as a share of max_connections less those reserved for superusers (and, since PostgreSQL 16,
--   by reserved_connections): at 100 nobody else gets in. Find who keeps idle ones, or put a pooler in front.
WITH sessions AS (
    SELECT
        a.datid,
        a.pid = pg_backend_pid() AS own,
        CASE
            WHEN a.state LIKE 'idle in transaction%' THEN 'idle in transaction'
            WHEN a.state IN ('active', 'idle') THEN a.state
            ELSE 'other'
        END AS state
    FROM pg_stat_activity AS a
    WHERE a.backend_type = 'client backend'
)

SELECT
    d.datname AS database,
    k.state,
    count(s.datid) AS connections,
    NULL::numeric AS connections_used_percent
FROM pg_database AS d
CROSS JOIN unnest(ARRAY['active', 'idle', 'idle in transaction', 'other']) AS k (state)
LEFT JOIN sessions AS s ON d.oid = s.datid AND k.state = s.state AND NOT s.own
WHERE d.datallowconn
GROUP BY d.datname, k.state
UNION ALL
SELECT
    NULL AS database,
    NULL AS state,
    NULL AS connections,
    100.0 * count(*) / nullif(
        current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', TRUE)::integer, 0),
        0
    ) AS connections_used_percent
FROM sessions
