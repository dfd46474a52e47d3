-- object: function pgops.statements_to_explain(integer)
CREATE OR REPLACE FUNCTION pgops.statements_to_explain(p_node_id integer)
RETURNS TABLE (database_name text, queryid bigint, user_name text, query text)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Statements that were slow on a node within a day and were not tried within a day, at most 20: those never tried come
-- before all others, users and databases take turns, and of each the slowest come first. Only texts whose constants the
-- server has replaced: a plan shows constants.
SELECT
    s.database_name,
    s.queryid,
    s.user_name,
    s.query
FROM (
    SELECT
        o.*,
        row_number() OVER (
            PARTITION BY o.tried_at IS NULL, o.database_name, o.user_name ORDER BY o.execution_time_ms DESC
        ) AS turn
    FROM (
        SELECT DISTINCT ON (q.database_name, q.queryid)
            q.database_name,
            q.queryid,
            q.user_name,
            q.execution_time_ms,
            t.query,
            p.tried_at
        FROM pgops.slow_query AS q
        INNER JOIN pgops.node AS n ON q.node_id = n.node_id
        INNER JOIN pgops.query_text AS t ON n.cluster = t.cluster AND q.queryid = t.queryid
        LEFT JOIN pgops.query_plan AS p
            ON n.cluster = p.cluster AND q.database_name = p.database_name AND q.queryid = p.queryid
        WHERE
            q.node_id = p_node_id AND q.last_seen_at > now() - interval '1 day' AND t.normalised
            AND q.user_name NOT IN ('pgops', 'pgops_explain')
            AND (p.tried_at IS NULL OR p.tried_at < now() - interval '1 day')
        ORDER BY q.database_name ASC, q.queryid ASC, q.execution_time_ms DESC
    ) AS o
) AS s
ORDER BY s.tried_at IS NULL DESC, s.turn ASC, s.execution_time_ms DESC
LIMIT 20
$$;

REVOKE ALL ON FUNCTION pgops.statements_to_explain(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.statements_to_explain(integer) TO pgops;
