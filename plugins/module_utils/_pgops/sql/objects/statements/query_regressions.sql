-- object: function pgops.query_regressions(integer, integer, double precision, integer, text, text)
-- requires: query_totals
CREATE OR REPLACE FUNCTION pgops.query_regressions(
    p_hours integer DEFAULT 24, p_days_before integer DEFAULT 7, p_factor double precision DEFAULT 1.5,
    p_min_calls integer DEFAULT 10, p_node text DEFAULT NULL, p_database text DEFAULT NULL
)
RETURNS TABLE (
    cluster text, queryid bigint, query text, calls_before bigint, calls_now bigint,
    avg_ms_before double precision, avg_ms_now double precision, factor double precision,
    more_ms double precision, node text
)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- Statements whose executions take p_factor times as long in the last hours as in the days before on the same node,
-- those that cost the most additional time first (more_ms); both with at least p_min_calls. Nodes are not compared with
-- each other: a read on a slower node has not become slower.
    SELECT
        n.cluster,
        n.queryid,
        n.query,
        b.calls,
        n.calls,
        b.exec_ms / b.calls,
        n.exec_ms / n.calls,
        (n.exec_ms / n.calls) / nullif(b.exec_ms / b.calls, 0),
        n.exec_ms - n.calls * b.exec_ms / b.calls,
        n.nodes[1]
    FROM pgops.query_totals(now() - make_interval(hours => p_hours), now(), p_node, p_database, true) AS n
    INNER JOIN pgops.query_totals(
        now() - make_interval(days => p_days_before, hours => p_hours), now() - make_interval(hours => p_hours),
        p_node, p_database, true
    ) AS b ON n.cluster = b.cluster AND n.queryid = b.queryid AND n.nodes = b.nodes
    WHERE
        n.queryid <> 0 AND n.calls >= greatest(p_min_calls, 1) AND b.calls >= greatest(p_min_calls, 1)
        AND n.exec_ms / n.calls > p_factor * b.exec_ms / b.calls
    ORDER BY n.exec_ms - n.calls * b.exec_ms / b.calls DESC;
$$;

REVOKE ALL ON FUNCTION pgops.query_regressions(
    integer, integer, double precision, integer, text, text
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.query_regressions(
    integer, integer, double precision, integer, text, text
) TO pgops, pgops_reader;
