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
-- The usage of each statement in the intervals that ended within a time: on all nodes together, on each one
-- (p_by_node), or on one. queryid 0 is all those that were not stored one by one; their databases are not known.
-- NULL: not measured. max_exec_ms only covers executions that were the longest until then.
#variable_conflict use_column
DECLARE
    this_node_id integer := (SELECT n.node_id FROM pgops.node AS n WHERE n.node = p_node);
BEGIN
    IF p_node IS NOT NULL AND this_node_id IS NULL THEN
        RAISE EXCEPTION 'node % does not exist', p_node
            USING ERRCODE = 'invalid_parameter_value', HINT = 'SELECT node FROM pgops.nodes lists them.';
    END IF;
    RETURN QUERY
    -- Names are looked up once for each statement, not for each interval.
    WITH done AS MATERIALIZED (
        SELECT
            u.statement_id, i.node_id,
            sum(u.calls) AS calls, sum(u.exec_ms) AS exec_ms, sum(u.plan_ms) AS plan_ms,
            max(u.max_exec_ms) AS max_exec_ms, sum(u.row_count) AS row_count,
            sum(u.shared_blks_hit) AS shared_blks_hit,
            sum(u.shared_blks_read + u.shared_blks_written + u.local_blks_read + u.local_blks_written) AS io_blks,
            sum(u.temp_blks_read + u.temp_blks_written) AS temp_blks,
            sum(u.read_ms + u.write_ms) AS io_ms, sum(u.wal_bytes) AS wal_bytes
        FROM pgops.query_usage AS u
        INNER JOIN pgops.query_interval AS i ON i.ended_at = u.ended_at AND i.interval_id = u.interval_id
        WHERE
            u.ended_at > p_from AND u.ended_at <= p_to AND i.ended_at > p_from AND i.ended_at <= p_to
            AND (p_node IS NULL OR i.node_id = this_node_id)
        GROUP BY u.statement_id, i.node_id
    )

    SELECT
        k.cluster, k.queryid, max(t.query),
        array_agg(DISTINCT k.database_name ORDER BY k.database_name),
        array_agg(DISTINCT k.user_name ORDER BY k.user_name),
        sum(d.calls)::bigint, sum(d.exec_ms), coalesce(sum(d.exec_ms) FILTER (WHERE k.toplevel), 0), sum(d.plan_ms),
        max(d.max_exec_ms), sum(d.row_count)::bigint, sum(d.shared_blks_hit)::bigint, sum(d.io_blks)::bigint,
        sum(d.temp_blks)::bigint, sum(d.io_ms), sum(d.wal_bytes)::bigint,
        array_agg(DISTINCT n.node ORDER BY n.node)
    FROM done AS d
    INNER JOIN pgops.node AS n ON n.node_id = d.node_id
    INNER JOIN pgops.statement AS k ON k.statement_id = d.statement_id
    LEFT JOIN pgops.query_text AS t ON t.cluster = k.cluster AND t.queryid = k.queryid
    WHERE p_database IS NULL OR k.database_name = p_database
    GROUP BY k.cluster, k.queryid, CASE WHEN p_by_node THEN n.node_id END;
END
$$;

REVOKE ALL ON FUNCTION pgops.query_totals(
    timestamp with time zone, timestamp with time zone, text, text, boolean
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.query_totals(
    timestamp with time zone, timestamp with time zone, text, text, boolean
) TO pgops, pgops_reader;
