-- object: function pgops.scene_statements(text, boolean)
-- requires: top_queries, nodes, cut_text
CREATE OR REPLACE FUNCTION pgops.scene_statements(p_node text, p_texts boolean)
RETURNS jsonb
LANGUAGE sql
STABLE
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- The ten statements that took the most time on a node in the last quarter of an hour, as far as they are stored. Their
-- texts have been redacted before they were.
    SELECT
        jsonb_build_object(
            'rows', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'queryid', q.queryid, 'calls', q.calls, 'total_ms', round(q.exec_ms::numeric, 1),
                'mean_ms', round((q.exec_ms / nullif(q.calls, 0))::numeric, 2), 'rows', q.row_count,
                'io_blocks', q.io_blks, 'temp_blocks', q.temp_blks, 'wal_bytes', q.wal_bytes,
                'databases', to_jsonb(q.databases[1:5]), 'users', to_jsonb(q.users[1:5]),
                'query', CASE WHEN p_texts THEN pgops.cut_text(q.query, 1000) END
            )) ORDER BY q.exec_ms DESC), '[]'),
            'left_out', 0
        )
    FROM pgops.nodes AS n
    CROSS JOIN LATERAL pgops.top_queries('time', now() - interval '15 minutes', now(), 10, n.node) AS q
    WHERE n.node = p_node;
$$;

REVOKE ALL ON FUNCTION pgops.scene_statements(text, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.scene_statements(text, boolean) TO pgops;
