-- object: function pgops.analyze_slow_queries(integer, text, text)
-- requires: query_totals
CREATE OR REPLACE FUNCTION pgops.analyze_slow_queries(
    p_hours_back integer, p_node text, p_database text DEFAULT NULL
)
RETURNS TABLE (
    query_pattern text, total_executions bigint, avg_execution_time_ms double precision,
    max_execution_time_ms double precision, total_time_spent_ms double precision,
    percentage_of_total_time double precision, optimization_priority integer
)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- Statements by the time that they took in the last hours, on all nodes and in all databases together or in one of them.
-- The percentage is of the time of all statements that clients sent there, stored one by one or not; statements that
-- ran within others count twice. Those not stored one by one have no database, and count in no database's time.
    WITH totals AS (
        SELECT q.* FROM pgops.query_totals(now() - make_interval(hours => p_hours_back), now(), p_node, p_database) AS q
    ),

    shares AS (
        SELECT
            q.*,
            100 * q.exec_ms / nullif((SELECT sum(w.toplevel_ms) FROM totals AS w), 0) AS share
        FROM totals AS q
        WHERE q.queryid <> 0 AND q.calls > 0
    )

    SELECT
        coalesce(q.query, 'queryid ' || q.queryid),
        q.calls,
        q.exec_ms / q.calls,
        q.max_exec_ms,
        q.exec_ms,
        q.share,
        CASE WHEN q.share > 10 THEN 1 WHEN q.share > 5 THEN 2 ELSE 3 END
    FROM shares AS q
    ORDER BY q.exec_ms DESC, q.queryid;
$$;

REVOKE ALL ON FUNCTION pgops.analyze_slow_queries(integer, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.analyze_slow_queries(integer, text, text) TO pgops, pgops_reader;
