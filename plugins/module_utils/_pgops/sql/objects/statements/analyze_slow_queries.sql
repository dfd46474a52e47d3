-- object: function pgops.analyze_slow_queries(integer)
-- requires: analyze_slow_queries_in
CREATE OR REPLACE FUNCTION pgops.analyze_slow_queries(p_hours_back integer DEFAULT 24)
RETURNS TABLE (
    query_pattern text, total_executions bigint, avg_execution_time_ms double precision,
    max_execution_time_ms double precision, total_time_spent_ms double precision,
    percentage_of_total_time double precision, optimization_priority integer
)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- For all nodes and databases together; the function of the same name that it calls can choose them.
    SELECT a.* FROM pgops.analyze_slow_queries(p_hours_back, NULL, NULL) AS a;
$$;

REVOKE ALL ON FUNCTION pgops.analyze_slow_queries(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.analyze_slow_queries(integer) TO pgops, pgops_reader;
