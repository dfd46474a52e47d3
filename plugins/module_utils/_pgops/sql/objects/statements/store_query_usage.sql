-- object: function pgops.store_query_usage(integer, timestamp with time zone, timestamp with time zone, real, jsonb, bigint)
-- requires: create_partition
-- sqlfluff:max_line_length:130
CREATE OR REPLACE FUNCTION pgops.store_query_usage(
    p_node_id integer, p_from timestamptz, p_to timestamptz, p_coverage real, p_usage jsonb,
    p_evictions bigint DEFAULT NULL
)
RETURNS bigint[]
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Stores the usage of a node's statements in an interval, an array of objects; returns the identifiers of those whose
-- text is missing. An interval replaces those that it contains: a node whose run was killed after delivery, but before
-- it recorded that, delivers the same and more.
DECLARE
    this_cluster text := (SELECT n.cluster FROM pgops.node AS n WHERE n.node_id = p_node_id);
    new_interval_id bigint;
BEGIN
    IF p_from >= p_to OR p_to > now() + interval '1 day' THEN
        RAISE EXCEPTION 'the interval from % to % ends before it starts, or is in the future', p_from, p_to
            USING ERRCODE = 'data_exception', HINT = 'Correct the clock of the host that sent it.';
    END IF;
    DELETE FROM pgops.query_usage AS u
    USING pgops.query_interval AS i
    WHERE
        i.node_id = p_node_id AND i.started_at >= p_from AND i.ended_at <= p_to
        AND u.interval_id = i.interval_id AND u.ended_at = i.ended_at;
    DELETE FROM pgops.query_interval AS i
    WHERE i.node_id = p_node_id AND i.started_at >= p_from AND i.ended_at <= p_to;
    INSERT INTO pgops.query_interval (node_id, started_at, ended_at, coverage, statements, evictions)
    VALUES (p_node_id, p_from, p_to, p_coverage, jsonb_array_length(p_usage), p_evictions)
    RETURNING interval_id INTO new_interval_id;

    INSERT INTO pgops.statement AS k (cluster, queryid, database_name, user_name, toplevel, last_used_on)
    SELECT DISTINCT this_cluster, s.queryid, s.database_name, s.user_name, s.toplevel, current_date
    FROM jsonb_to_recordset(p_usage) AS s (queryid bigint, database_name text, user_name text, toplevel boolean)
    ON CONFLICT (cluster, queryid, database_name, user_name, toplevel) DO UPDATE
    SET last_used_on = excluded.last_used_on
    WHERE k.last_used_on < excluded.last_used_on;

    PERFORM pgops.create_partition('query_usage', p_to::date);
    INSERT INTO pgops.query_usage
    SELECT
        p_to, new_interval_id, k.statement_id, s.calls, s.exec_ms, s.plan_ms, s.max_exec_ms, s.row_count,
        s.shared_blks_hit, s.shared_blks_read, s.shared_blks_dirtied, s.shared_blks_written,
        s.local_blks_read, s.local_blks_written, s.temp_blks_read, s.temp_blks_written,
        s.read_ms, s.write_ms, s.wal_bytes, s.wal_records, s.wal_fpi
    FROM jsonb_to_recordset(p_usage) AS s (
        queryid bigint, database_name text, user_name text, toplevel boolean,
        calls bigint, exec_ms double precision, plan_ms double precision, max_exec_ms double precision,
        row_count bigint, shared_blks_hit bigint, shared_blks_read bigint, shared_blks_dirtied bigint,
        shared_blks_written bigint, local_blks_read bigint, local_blks_written bigint,
        temp_blks_read bigint, temp_blks_written bigint, read_ms double precision,
        write_ms double precision, wal_bytes bigint, wal_records bigint, wal_fpi bigint
    )
    INNER JOIN pgops.statement AS k
        ON
            k.cluster = this_cluster AND k.queryid = s.queryid AND k.database_name = s.database_name
            AND k.user_name = s.user_name AND k.toplevel = s.toplevel;

    UPDATE pgops.query_text AS t SET last_used_on = current_date
    FROM jsonb_to_recordset(p_usage) AS s (queryid bigint)
    WHERE t.cluster = this_cluster AND t.queryid = s.queryid AND t.last_used_on < current_date;
    RETURN ARRAY(
        SELECT DISTINCT s.queryid
        FROM jsonb_to_recordset(p_usage) AS s (queryid bigint)
        WHERE s.queryid <> 0 AND NOT EXISTS (
            SELECT FROM pgops.query_text AS t
            WHERE t.cluster = this_cluster AND t.queryid = s.queryid AND t.normalised
        )
    );
END
$$;

REVOKE ALL ON FUNCTION pgops.store_query_usage(
    integer, timestamp with time zone, timestamp with time zone, real, jsonb, bigint
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.store_query_usage(
    integer, timestamp with time zone, timestamp with time zone, real, jsonb, bigint
) TO pgops;
