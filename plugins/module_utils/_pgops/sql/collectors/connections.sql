-- collector: connections
-- scope: instance
-- interval: 60
-- metric: connections unit=count kind=gauge category=capacity
--   Client sessions by database and state, without the collector's own. State 'other': sessions that run a fastpath
--   function, or whose activity is not tracked.
-- metric: database_connections_used_percent unit=% category=capacity direction=above warning=80 critical=90
--   Sessions of a database as a share of its CONNECTION LIMIT, if it has one. At 100 only superusers can connect. The
--   twenty databases nearest to their limit.
-- metric: role_connections_used_percent unit=% category=capacity direction=above warning=80 critical=90
--   Sessions of a role as a share of its CONNECTION LIMIT, if it has one. At 100 it cannot connect. The twenty roles
--   nearest to their limit; superusers have none.
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
),

-- The sessions that the server counts against these limits.
limited AS (
    SELECT
        a.datid,
        a.usesysid
    FROM pg_stat_activity AS a
    WHERE a.backend_type IN ('client backend', 'walsender')
),

full_databases AS (
    SELECT
        d.datname,
        100.0 * count(l.datid) / d.datconnlimit AS percent
    FROM pg_database AS d
    LEFT JOIN limited AS l ON d.oid = l.datid
    WHERE d.datconnlimit > 0 AND d.datallowconn
    GROUP BY d.datname, d.datconnlimit
    ORDER BY percent DESC, d.datname ASC
    LIMIT 20
),

full_roles AS (
    SELECT
        r.rolname,
        100.0 * count(l.usesysid) / r.rolconnlimit AS percent
    FROM pg_roles AS r
    LEFT JOIN limited AS l ON r.oid = l.usesysid
    WHERE r.rolconnlimit > 0 AND r.rolcanlogin AND NOT r.rolsuper
    GROUP BY r.rolname, r.rolconnlimit
    ORDER BY percent DESC, r.rolname ASC
    LIMIT 20
)

SELECT
    d.datname AS database,
    k.state,
    NULL::name AS role,
    count(s.datid) AS connections,
    NULL::numeric AS database_connections_used_percent,
    NULL::numeric AS role_connections_used_percent
FROM pg_database AS d
CROSS JOIN unnest(ARRAY['active', 'idle', 'idle in transaction', 'other']) AS k (state)
LEFT JOIN sessions AS s ON d.oid = s.datid AND k.state = s.state AND NOT s.own
WHERE d.datallowconn OR NOT d.datistemplate
GROUP BY d.datname, k.state
UNION ALL
SELECT
    f.datname AS database,
    NULL AS state,
    NULL AS role,
    NULL AS connections,
    f.percent AS database_connections_used_percent,
    NULL AS role_connections_used_percent
FROM full_databases AS f
UNION ALL
SELECT
    NULL AS database,
    NULL AS state,
    f.rolname AS role,
    NULL AS connections,
    NULL AS database_connections_used_percent,
    f.percent AS role_connections_used_percent
FROM full_roles AS f
