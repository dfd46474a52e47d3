-- collector: activity
-- scope: instance
-- interval: 10
-- metric: active_connections unit=count kind=gauge category=availability direction=above warning=80 critical=95
--   Client sessions that run a query now, by database, without the collector's own. No value if there are none, but
--   sessions that do not tell (track_activities).
-- metric: connections_used_percent unit=% kind=gauge category=capacity direction=above warning=80 critical=90
--   Client sessions as a share of max_connections without those reserved for superusers (and, since PostgreSQL 16, by
--   reserved_connections). At 100 no other client can connect: find idle sessions, or use a pooler. While the server
--   refuses the agent for that reason (login_refused), it is stored as 100, the least that it can be.
WITH sessions AS MATERIALIZED (
    SELECT
        a.datid,
        a.pid = pg_backend_pid() AS own,
        a.state
    FROM pg_stat_activity AS a
    WHERE a.backend_type = 'client backend'
)

SELECT
    d.datname AS database,
    nullif(
        count(*) FILTER (WHERE s.state = 'active'),
        CASE WHEN bool_or(s.state = 'disabled') THEN 0 END
    ) AS active_connections,
    NULL::numeric AS connections_used_percent
FROM pg_database AS d
LEFT JOIN sessions AS s ON d.oid = s.datid AND NOT s.own
WHERE d.datallowconn OR NOT d.datistemplate
GROUP BY d.datname
UNION ALL
SELECT
    NULL AS database,
    NULL AS active_connections,
    100.0 * count(*) / nullif(
        current_setting('max_connections')::integer
        - current_setting('superuser_reserved_connections')::integer
        - coalesce(current_setting('reserved_connections', TRUE)::integer, 0),
        0
    ) AS connections_used_percent
FROM sessions
