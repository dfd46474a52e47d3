-- object: function pgops.query_regressions(integer, integer, double precision, integer)
-- requires: query_totals
CREATE OR REPLACE FUNCTION pgops.query_regressions(
    p_hours integer DEFAULT 24, p_days_before integer DEFAULT 7, p_factor double precision DEFAULT 1.5,
    p_min_calls integer DEFAULT 10
)
RETURNS TABLE (
    cluster text, queryid bigint, query text, calls_before bigint, calls_now bigint,
    avg_ms_before double precision, avg_ms_now double precision, factor double precision,
    more_ms double precision
)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- Statements whose executions take p_factor times as long in the last hours as in the days before, those that cost the
-- most by it first (more_ms); both with at least p_min_calls.
    SELECT
        n.cluster,
        n.queryid,
        n.query,
        b.calls,
        n.calls,
        b.exec_ms / b.calls,
        n.exec_ms / n.calls,
        (n.exec_ms / n.calls) / nullif(b.exec_ms / b.calls, 0),
        n.exec_ms - n.calls * b.exec_ms / b.calls
    FROM pgops.query_totals(now() - make_interval(hours => p_hours), now()) AS n
    INNER JOIN pgops.query_totals(
        now() - make_interval(days => p_days_before, hours => p_hours), now() - make_interval(hours => p_hours)
    ) AS b ON n.cluster = b.cluster AND n.queryid = b.queryid
    WHERE
        n.queryid <> 0 AND n.calls >= greatest(p_min_calls, 1) AND b.calls >= greatest(p_min_calls, 1)
        AND n.exec_ms / n.calls > p_factor * b.exec_ms / b.calls
    ORDER BY n.exec_ms - n.calls * b.exec_ms / b.calls DESC;
$$;

REVOKE ALL ON FUNCTION pgops.query_regressions(integer, integer, double precision, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.query_regressions(
    integer, integer, double precision, integer
) TO pgops, pgops_reader;
