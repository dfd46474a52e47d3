-- object: function pgops.scene_regressions(text, boolean)
-- requires: query_regressions, nodes, cut_text
CREATE OR REPLACE FUNCTION pgops.scene_regressions(p_node text, p_texts boolean)
RETURNS jsonb
LANGUAGE sql
STABLE
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- The ten statements that cost the most additional time on a node in the last hour, compared with the week before.
    SELECT
        jsonb_build_object(
            'rows', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'queryid', q.queryid, 'calls', q.calls_now, 'mean_ms', round(q.avg_ms_now::numeric, 2),
                'mean_ms_before', round(q.avg_ms_before::numeric, 2), 'factor', round(q.factor::numeric, 1),
                'more_ms', round(q.more_ms::numeric, 1),
                'query', CASE WHEN p_texts THEN pgops.cut_text(q.query, 1000) END
            )) ORDER BY q.more_ms DESC), '[]'),
            'left_out', 0
        )
    FROM pgops.nodes AS n
    CROSS JOIN LATERAL (
        SELECT r.* FROM pgops.query_regressions(1, 7, 1.5, 10, n.node) AS r ORDER BY r.more_ms DESC LIMIT 10
    ) AS q
    WHERE n.node = p_node;
$$;

REVOKE ALL ON FUNCTION pgops.scene_regressions(text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.scene_regressions(text, boolean) TO pgops;
