-- collector: transactions
-- scope: instance
-- interval: 60
-- metric: longest_transaction_seconds unit=s category=performance direction=above warning=1800 critical=3600
--   Age of the oldest client transaction, by database, 0 if there is none. It prevents cleanup by VACUUM and holds
--   its locks. Dumps (by their application_name), VACUUM, ANALYZE, CREATE INDEX and CLUSTER are left out.
-- metric: longest_idle_in_transaction_seconds unit=s category=performance direction=above warning=300 critical=900
--   Longest time that a client has been idle in a transaction: it did not commit, or waits for a user. See
--   idle_in_transaction_session_timeout.
-- metric: longest_statement_seconds unit=s category=performance
--   Duration of the longest running statement, including dumps and maintenance.
WITH clients AS (
    SELECT
        a.datid,
        CASE
            WHEN p.pid IS NULL AND coalesce(a.application_name NOT IN ('pg_dump', 'pg_dumpall', 'pg_restore'), TRUE)
                THEN clock_timestamp() - a.xact_start
        END AS in_transaction,
        CASE WHEN a.state LIKE 'idle in transaction%' THEN clock_timestamp() - a.state_change END AS idle,
        CASE WHEN a.state = 'active' THEN clock_timestamp() - a.query_start END AS running
    FROM pg_stat_activity AS a
    LEFT JOIN (
        SELECT v.pid FROM pg_stat_progress_vacuum AS v
        UNION
        SELECT n.pid FROM pg_stat_progress_analyze AS n
        UNION
        SELECT i.pid FROM pg_stat_progress_create_index AS i
        UNION
        SELECT c.pid FROM pg_stat_progress_cluster AS c
    ) AS p ON a.pid = p.pid
    WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
),

-- If activity is not tracked, there may be sessions of which nothing is known.
nothing AS (
    SELECT CASE WHEN current_setting('track_activities')::boolean THEN 0 END AS seconds
)

SELECT
    d.datname AS database,
    coalesce(extract(EPOCH FROM max(c.in_transaction)), min(n.seconds)) AS longest_transaction_seconds,
    coalesce(extract(EPOCH FROM max(c.idle)), min(n.seconds)) AS longest_idle_in_transaction_seconds,
    coalesce(extract(EPOCH FROM max(c.running)), min(n.seconds)) AS longest_statement_seconds
FROM pg_database AS d
CROSS JOIN nothing AS n
LEFT JOIN clients AS c ON d.oid = c.datid
WHERE d.datallowconn OR NOT d.datistemplate
GROUP BY d.datname
