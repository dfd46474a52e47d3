-- object: function pgops.store_slow_statements(integer, timestamp with time zone, timestamp with time zone, jsonb)
CREATE OR REPLACE FUNCTION pgops.store_slow_statements(
    p_node_id integer, p_from timestamptz, p_to timestamptz, p_executions jsonb
)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Stores the executions that pg_stat_statements shows for a node's interval; returns how many. What was stored for an
-- interval within this one was delivered twice, and is deleted. A statement's only execution is the one that was seen
-- in a session, if there was one and the times agree: then both are one row.
DECLARE
    kept integer;
BEGIN
    IF p_from >= p_to OR p_to > now() + interval '1 day' THEN
        RAISE EXCEPTION 'the interval from % to % ends before it starts, or is in the future', p_from, p_to
            USING ERRCODE = 'data_exception', HINT = 'Correct the clock of the host that sent it.';
    END IF;
    DELETE FROM pgops.slow_query AS q
    WHERE q.node_id = p_node_id AND q.source = 'statistics' AND q.first_seen_at >= p_from AND q.last_seen_at <= p_to;

    WITH found AS MATERIALIZED (
        SELECT
            row_number() OVER () AS number,
            count(*) OVER (PARTITION BY s.queryid, s.database_name) AS alike,
            s.*
        FROM jsonb_to_recordset(p_executions) AS s (
            queryid bigint, database_name text, user_name text, toplevel boolean, calls bigint, took_ms double precision,
            exact boolean, plan_ms double precision, row_count bigint, shared_blks_hit bigint,
            shared_blks_read bigint, shared_blks_written bigint, temp_blks_read bigint, temp_blks_written bigint
        )
    ),

    pair AS MATERIALIZED (
        SELECT
            f.number,
            q.log_id,
            count(*) OVER (PARTITION BY f.number) AS candidates
        FROM found AS f
        INNER JOIN pgops.slow_query AS q
            ON q.node_id = p_node_id AND q.queryid = f.queryid AND q.database_name = f.database_name
        CROSS JOIN LATERAL (SELECT f.took_ms + coalesce(f.plan_ms, 0) AS took_ms) AS w
        WHERE
            f.calls = 1 AND f.toplevel AND f.alike = 1
            AND q.source <> 'statistics' AND q.state = 'ended' AND q.last_seen_at >= p_from
            AND CASE
                WHEN q.time_is_exact
                    THEN abs(q.execution_time_ms - w.took_ms) <= greatest(500, q.execution_time_ms / 10)
                ELSE
                    w.took_ms >= q.execution_time_ms - 500
                    AND q.executed_at + make_interval(secs => f.took_ms / 1000) <= p_to
            END
    ),

    joined AS (
        UPDATE pgops.slow_query AS q
        SET source = 'both',
            execution_time_ms = f.took_ms,
            time_is_exact = true,
            planning_time_ms = f.plan_ms,
            rows_returned = f.row_count,
            shared_blks_hit = f.shared_blks_hit,
            shared_blks_read = f.shared_blks_read,
            shared_blks_written = f.shared_blks_written,
            temp_blks_read = f.temp_blks_read,
            temp_blks_written = f.temp_blks_written
        FROM pair AS p
        INNER JOIN found AS f ON f.number = p.number
        WHERE q.log_id = p.log_id AND p.candidates = 1
        RETURNING p.number
    ),

    alone AS (
        INSERT INTO pgops.slow_query (
            node_id, source, state, executed_at, first_seen_at, last_seen_at, queryid, toplevel, execution_time_ms,
            time_is_exact, executions, planning_time_ms, rows_returned, shared_blks_hit, shared_blks_read,
            shared_blks_written, temp_blks_read, temp_blks_written, database_name, user_name
        )
        SELECT
            p_node_id, 'statistics', 'ended', p_to, p_from, p_to, f.queryid, f.toplevel, f.took_ms, f.exact,
            CASE WHEN f.exact THEN 1 ELSE f.calls END, f.plan_ms, f.row_count, f.shared_blks_hit, f.shared_blks_read,
            f.shared_blks_written, f.temp_blks_read, f.temp_blks_written, left(f.database_name, 256),
            left(f.user_name, 256)
        FROM found AS f
        WHERE f.number NOT IN (SELECT j.number FROM joined AS j)
        RETURNING log_id
    )

    SELECT (SELECT count(*) FROM joined) + (SELECT count(*) FROM alone) INTO kept;
    RETURN kept;
END
$$;

REVOKE ALL ON FUNCTION pgops.store_slow_statements(
    integer, timestamp with time zone, timestamp with time zone, jsonb
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.store_slow_statements(
    integer, timestamp with time zone, timestamp with time zone, jsonb
) TO pgops;
