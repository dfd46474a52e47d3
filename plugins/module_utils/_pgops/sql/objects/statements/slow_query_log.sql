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
'Executions that took long: NULL is what is not known, and nothing is estimated.';
COMMENT ON COLUMN pgops.slow_query_log.query_text IS
'Redacted. As the session sent it, with its constants; with $1 for them where source is statistics.';
COMMENT ON COLUMN pgops.slow_query_log.query_hash IS
'The queryid of pg_stat_statements and top_queries; NULL where the server computes none.';
COMMENT ON COLUMN pgops.slow_query_log.execution_time_ms IS
'At least; exactly where time_is_exact. Of source sessions from the statement''s arrival, else without planning.';
COMMENT ON COLUMN pgops.slow_query_log.planning_time_ms IS
'NULL without pg_stat_statements.track_planning, and where other executions were counted with this one.';
COMMENT ON COLUMN pgops.slow_query_log.rows_examined IS
'NULL: the server counts them for no execution that it does not analyse.';
COMMENT ON COLUMN pgops.slow_query_log.rows_returned IS
'Like blocks, NULL unless this was the only execution of its statement between two readings.';
COMMENT ON COLUMN pgops.slow_query_log.user_name IS
'Who logged in; for source statistics, whose rights it had.';
COMMENT ON COLUMN pgops.slow_query_log.client_addr IS
'NULL for local sockets, and where no session was seen.';
COMMENT ON COLUMN pgops.slow_query_log.execution_plan IS
'As EXPLAIN (FORMAT JSON) gives it, made afterwards and for any values; NULL where pgops_explain is off.';
COMMENT ON COLUMN pgops.slow_query_log.executed_at IS
'When it began; for source statistics, when it had ended at the latest, and not before first_seen_at.';
COMMENT ON COLUMN pgops.slow_query_log.state IS
'running: it ran at last_seen_at.';
COMMENT ON COLUMN pgops.slow_query_log.source IS
'sessions: a session had it; statistics: pg_stat_statements counted it; both: known by both to be the same.';
COMMENT ON COLUMN pgops.slow_query_log.executions IS
'More than 1: execution_time_ms is their average, which at least one of them took.';
COMMENT ON COLUMN pgops.slow_query_log.toplevel IS
'Whether a client sent it; else it ran within another.';

COMMENT ON COLUMN pgops.slow_query_log.plan_explained_at IS
'When the plan was made.';
COMMENT ON COLUMN pgops.slow_query_log.plan_error IS
'Why the last attempt to make a plan failed; NULL where it did not.';

REVOKE ALL ON pgops.slow_query_log FROM PUBLIC;
GRANT SELECT ON pgops.slow_query_log TO pgops_reader;
