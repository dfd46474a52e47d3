-- object: function pgops.store_slow_sessions(integer, jsonb)
-- requires: cut_text
CREATE OR REPLACE FUNCTION pgops.store_slow_sessions(p_node_id integer, p_found jsonb)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Stores what slow_sessions found on a node, one row for each execution; returns how many rows are new or know more
-- than before. Executions that no longer run have ended, after an unknown time if their session does not show it.
DECLARE
    with_texts boolean := coalesce(
        (SELECT s.value::boolean FROM pgops.setting AS s WHERE s.name = 'query_texts'), true
    );
    captured integer;
BEGIN
    IF (p_found ->> 'seen_at')::timestamptz > now() + interval '1 day' THEN
        RAISE EXCEPTION 'the time of the sessions, %, is in the future', p_found ->> 'seen_at'
            USING ERRCODE = 'data_exception', HINT = 'Correct the clock of the host that sent it.';
    END IF;
    INSERT INTO pgops.slow_query AS q (
        node_id, source, state, executed_at, first_seen_at, last_seen_at, pid, backend_start, queryid, query,
        toplevel, execution_time_ms, time_is_exact, executions, database_name, user_name, application_name, client_addr
    )
    SELECT
        p_node_id, 'sessions', CASE WHEN s.running THEN 'running' ELSE 'ended' END, s.query_start,
        s.known_at, s.known_at, s.pid, s.backend_start, s.queryid,
        CASE WHEN with_texts THEN pgops.cut_text(s.query, 10240) END,
        true, s.took_ms, NOT s.running, 1, left(s.database_name, 256), left(s.user_name, 256),
        left(s.application_name, 256), s.client_addr
    FROM jsonb_to_recordset(p_found -> 'sessions') AS s (
        pid integer, backend_start timestamptz, query_start timestamptz, known_at timestamptz, running boolean,
        took_ms double precision, queryid bigint, query text, database_name text, user_name text,
        application_name text, client_addr inet
    )
    -- In one order, so that two captures at the same time do not block each other.
    ORDER BY s.pid, s.query_start
    ON CONFLICT (node_id, pid, backend_start, executed_at) DO UPDATE
    SET state = excluded.state,
        last_seen_at = excluded.last_seen_at,
        execution_time_ms = excluded.execution_time_ms,
        time_is_exact = excluded.time_is_exact,
        queryid = coalesce(excluded.queryid, q.queryid)
    WHERE NOT q.time_is_exact AND excluded.execution_time_ms >= q.execution_time_ms;
    GET DIAGNOSTICS captured = ROW_COUNT;

    UPDATE pgops.slow_query AS q SET state = 'ended'
    WHERE
        q.node_id = p_node_id AND q.state = 'running' AND q.last_seen_at <= (p_found ->> 'seen_at')::timestamptz
        AND NOT EXISTS (
            SELECT
            FROM jsonb_to_recordset(p_found -> 'running') AS r (
                pid integer, backend_start timestamptz, query_start timestamptz
            )
            WHERE r.pid = q.pid AND r.backend_start = q.backend_start AND r.query_start = q.executed_at
        );
    RETURN captured;
END
$$;

REVOKE ALL ON FUNCTION pgops.store_slow_sessions(integer, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.store_slow_sessions(integer, jsonb) TO pgops;
