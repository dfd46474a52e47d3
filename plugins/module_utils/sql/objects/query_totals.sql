-- object: function pgops.query_totals(timestamp with time zone, timestamp with time zone, text, text, boolean)
CREATE OR REPLACE FUNCTION pgops.query_totals(
    p_from timestamptz, p_to timestamptz, p_node text DEFAULT NULL, p_database text DEFAULT NULL,
    p_by_node boolean DEFAULT FALSE
)
RETURNS TABLE (
    cluster text, queryid bigint, query text, databases text[], users text[],
    calls bigint, exec_ms double precision, toplevel_ms double precision, plan_ms double precision,
    max_exec_ms double precision, row_count bigint, shared_blks_hit bigint, io_blks bigint, temp_blks bigint,
    io_ms double precision, wal_bytes bigint, nodes text[]
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
AS $$
-- What each statement did in the intervals that ended within a time: on all nodes together, on each one (p_by_node), or
-- on one. queryid 0 is all those that were not stored one by one, whose databases are not known. NULL: not measured.
-- max_exec_ms is of executions that were the longest until then.
#variable_conflict use_column
BEGIN
    IF p_node IS NOT NULL AND NOT EXISTS (SELECT FROM pgops.node AS n WHERE n.node = p_node) THEN
        RAISE EXCEPTION 'there is no node %', p_node
            USING ERRCODE = 'invalid_parameter_value', HINT = 'SELECT node FROM pgops.nodes lists them.';
    END IF;
    RETURN QUERY
    SELECT
        k.cluster, k.queryid, max(t.query),
        array_agg(DISTINCT k.database_name ORDER BY k.database_name),
        array_agg(DISTINCT k.user_name ORDER BY k.user_name),
        sum(u.calls)::bigint, sum(u.exec_ms), coalesce(sum(u.exec_ms) FILTER (WHERE k.toplevel), 0), sum(u.plan_ms),
        max(u.max_exec_ms), sum(u.row_count)::bigint, sum(u.shared_blks_hit)::bigint,
        sum(u.shared_blks_read + u.shared_blks_written + u.local_blks_read + u.local_blks_written)::bigint,
        sum(u.temp_blks_read + u.temp_blks_written)::bigint,
        sum(u.read_ms + u.write_ms), sum(u.wal_bytes)::bigint, array_agg(DISTINCT n.node ORDER BY n.node)
    FROM pgops.query_usage AS u
    INNER JOIN pgops.query_interval AS i ON i.ended_at = u.ended_at AND i.interval_id = u.interval_id
    INNER JOIN pgops.node AS n ON n.node_id = i.node_id
    INNER JOIN pgops.statement AS k ON k.statement_id = u.statement_id
    LEFT JOIN pgops.query_text AS t ON t.cluster = k.cluster AND t.queryid = k.queryid
    WHERE
        u.ended_at > p_from AND u.ended_at <= p_to AND i.ended_at > p_from AND i.ended_at <= p_to
        AND (p_node IS NULL OR n.node = p_node) AND (p_database IS NULL OR k.database_name = p_database)
    GROUP BY k.cluster, k.queryid, CASE WHEN p_by_node THEN n.node_id END;
END
$$;

REVOKE ALL ON FUNCTION pgops.query_totals(
    timestamp with time zone, timestamp with time zone, text, text, boolean
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.query_totals(
    timestamp with time zone, timestamp with time zone, text, text, boolean
) TO pgops, pgops_reader;
