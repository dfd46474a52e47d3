-- object: function pgops.top_queries(text, timestamp with time zone, timestamp with time zone, integer, text, text)
-- requires: query_totals
CREATE OR REPLACE FUNCTION pgops.top_queries(
    p_by text DEFAULT 'time', p_from timestamptz DEFAULT pg_catalog.now() - interval '1 day',
    p_to timestamptz DEFAULT pg_catalog.now(), p_limit integer DEFAULT 20,
    p_node text DEFAULT NULL, p_database text DEFAULT NULL
)
RETURNS TABLE (
    cluster text, queryid bigint, query text, databases text[], users text[],
    calls bigint, exec_ms double precision, toplevel_ms double precision, plan_ms double precision,
    max_exec_ms double precision, row_count bigint, shared_blks_hit bigint, io_blks bigint, temp_blks bigint,
    io_ms double precision, wal_bytes bigint, nodes text[]
)
LANGUAGE plpgsql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- The top statements of an interval: by time, calls, rows, io, temp (blocks of 8 kB both), wal or planning.
-- On all nodes and in all databases together, or in one of them.
#variable_conflict use_column
BEGIN
    IF p_by IS NULL OR p_by NOT IN ('time', 'calls', 'rows', 'io', 'temp', 'wal', 'planning') THEN
        RAISE EXCEPTION 'statements cannot be ordered by %', p_by
            USING ERRCODE = 'invalid_parameter_value',
            HINT = 'Use time, calls, rows, io, temp, wal or planning.';
    END IF;
    RETURN QUERY
    SELECT q.* FROM pgops.query_totals(p_from, p_to, p_node, p_database) AS q
    WHERE q.queryid <> 0
    ORDER BY
        CASE p_by
            WHEN 'time' THEN q.exec_ms
            WHEN 'calls' THEN q.calls
            WHEN 'rows' THEN q.row_count
            WHEN 'io' THEN q.io_blks
            WHEN 'temp' THEN q.temp_blks
            WHEN 'wal' THEN q.wal_bytes
            WHEN 'planning' THEN q.plan_ms
        END DESC NULLS LAST,
        q.exec_ms DESC
    LIMIT p_limit;
END
$$;

REVOKE ALL ON FUNCTION pgops.top_queries(
    text, timestamp with time zone, timestamp with time zone, integer, text, text
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.top_queries(
    text, timestamp with time zone, timestamp with time zone, integer, text, text
) TO pgops, pgops_reader;
