-- object: function pgops.query_totals(timestamp with time zone, timestamp with time zone)
CREATE OR REPLACE FUNCTION pgops.query_totals(p_from timestamptz, p_to timestamptz)
RETURNS TABLE (
    cluster text, queryid bigint, query text, databases text[], users text[],
    calls bigint, exec_ms double precision, toplevel_ms double precision, plan_ms double precision,
    max_exec_ms double precision, row_count bigint, shared_blks_hit bigint, io_blks bigint, temp_blks bigint,
    io_ms double precision, wal_bytes bigint
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
AS $$
-- What each statement did in the intervals that ended within a time, of all nodes. queryid 0 is all those that were
-- not stored one by one. NULL: not measured. max_exec_ms is of executions that were the longest until then.
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT
        k.cluster, k.queryid, max(t.query),
        array_agg(DISTINCT k.database_name ORDER BY k.database_name),
        array_agg(DISTINCT k.user_name ORDER BY k.user_name),
        sum(u.calls)::bigint, sum(u.exec_ms), coalesce(sum(u.exec_ms) FILTER (WHERE k.toplevel), 0), sum(u.plan_ms),
        max(u.max_exec_ms), sum(u.row_count)::bigint, sum(u.shared_blks_hit)::bigint,
        sum(u.shared_blks_read + u.shared_blks_written + u.local_blks_read + u.local_blks_written)::bigint,
        sum(u.temp_blks_read + u.temp_blks_written)::bigint,
        sum(u.read_ms + u.write_ms), sum(u.wal_bytes)::bigint
    FROM pgops.query_usage AS u
    INNER JOIN pgops.statement AS k ON k.statement_id = u.statement_id
    LEFT JOIN pgops.query_text AS t ON t.cluster = k.cluster AND t.queryid = k.queryid
    WHERE u.ended_at > p_from AND u.ended_at <= p_to
    GROUP BY k.cluster, k.queryid;
END
$$;

REVOKE ALL ON FUNCTION pgops.query_totals(timestamp with time zone, timestamp with time zone) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.query_totals(
    timestamp with time zone, timestamp with time zone
) TO pgops, pgops_reader;
