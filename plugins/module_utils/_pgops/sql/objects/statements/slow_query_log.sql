-- object: view pgops.slow_query_log
CREATE OR REPLACE VIEW pgops.slow_query_log AS
SELECT
    q.log_id,
    coalesce(q.query, t.query) AS query_text,
    q.queryid AS query_hash,
    q.execution_time_ms,
    q.planning_time_ms,
    NULL::bigint AS rows_examined,
    q.rows_returned,
    q.shared_blks_hit,
    q.shared_blks_read,
    q.shared_blks_written,
    q.temp_blks_read,
    q.temp_blks_written,
    q.database_name,
    q.user_name,
    q.application_name,
    q.client_addr,
    p.plan AS execution_plan,
    q.executed_at,
    n.node,
    q.state,
    q.source,
    q.time_is_exact,
    q.executions,
    q.toplevel,
    q.first_seen_at,
    q.last_seen_at,
    p.explained_at AS plan_explained_at,
    p.error AS plan_error
FROM pgops.slow_query AS q
INNER JOIN pgops.node AS n ON q.node_id = n.node_id
LEFT JOIN pgops.query_text AS t ON n.cluster = t.cluster AND q.queryid = t.queryid
LEFT JOIN pgops.query_plan AS p
    ON n.cluster = p.cluster AND q.database_name = p.database_name AND q.queryid = p.queryid;

COMMENT ON VIEW pgops.slow_query_log IS
'Slow executions. NULL means unknown; nothing is estimated.';
COMMENT ON COLUMN pgops.slow_query_log.query_text IS
'Redacted. With its constants as the session sent it; with $1 instead if source is statistics.';
COMMENT ON COLUMN pgops.slow_query_log.query_hash IS
'The queryid of pg_stat_statements and top_queries; NULL if the server computes none.';
COMMENT ON COLUMN pgops.slow_query_log.execution_time_ms IS
'A lower bound unless time_is_exact. For source sessions from the statement''s arrival, otherwise without planning.';
COMMENT ON COLUMN pgops.slow_query_log.planning_time_ms IS
'NULL without pg_stat_statements.track_planning, or if other executions were counted with this one.';
COMMENT ON COLUMN pgops.slow_query_log.rows_examined IS
'Always NULL: the server counts them only for executions that it analyses.';
COMMENT ON COLUMN pgops.slow_query_log.rows_returned IS
'NULL, as are blocks, unless this was the only execution of its statement between two readings.';
COMMENT ON COLUMN pgops.slow_query_log.user_name IS
'The role that logged in; for source statistics, the role whose rights it had.';
COMMENT ON COLUMN pgops.slow_query_log.client_addr IS
'NULL for local sockets, and if no session was seen.';
COMMENT ON COLUMN pgops.slow_query_log.execution_plan IS
'Output of EXPLAIN (FORMAT JSON), made afterwards and for any values; NULL without pgops_explain.';
COMMENT ON COLUMN pgops.slow_query_log.executed_at IS
'Start; for source statistics, the latest possible end, not before first_seen_at.';
COMMENT ON COLUMN pgops.slow_query_log.state IS
'running: it was running at last_seen_at.';
COMMENT ON COLUMN pgops.slow_query_log.source IS
'sessions: seen in a session; statistics: counted by pg_stat_statements; both: the same execution in both.';
COMMENT ON COLUMN pgops.slow_query_log.executions IS
'If more than 1, execution_time_ms is their average, which at least one of them reached.';
COMMENT ON COLUMN pgops.slow_query_log.toplevel IS
'Whether a client sent it; otherwise it ran within another statement.';

COMMENT ON COLUMN pgops.slow_query_log.plan_explained_at IS
'Time of the plan.';
COMMENT ON COLUMN pgops.slow_query_log.plan_error IS
'Error of the last attempt to plan it; NULL if it succeeded.';

REVOKE ALL ON pgops.slow_query_log FROM PUBLIC;
GRANT SELECT ON pgops.slow_query_log TO pgops_reader;
