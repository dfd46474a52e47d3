-- object: function pgops.slow_sessions(numeric, boolean)
-- requires: redacted, readable, valid_text, cut_text
CREATE OR REPLACE FUNCTION pgops.slow_sessions(p_threshold_ms numeric, p_texts boolean)
RETURNS jsonb
LANGUAGE plpgsql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- Executions that have run for at least p_threshold_ms, or were a session's last one and took that long, in the form
-- that store_slow_sessions needs; if more than 100, users and databases come in turn, each with those that run the
-- longest, or ended last. p_texts: with their texts, redacted. The time of those that have ended is exact: the server records their end. Sessions of the agent and
-- its jobs are left out.
DECLARE
    seen_at CONSTANT timestamptz := clock_timestamp();
BEGIN
    -- NaN is more than any number.
    IF coalesce(p_threshold_ms, -1) NOT BETWEEN 0 AND 1e12 THEN
        RAISE EXCEPTION 'the threshold must be 0 or more milliseconds, not %', coalesce(p_threshold_ms::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use 0 for all statements.';
    END IF;
    IF NOT pg_has_role('pg_read_all_stats', 'USAGE') THEN
        RAISE EXCEPTION 'role % sees only its own sessions', current_user
            USING ERRCODE = 'insufficient_privilege', HINT = 'Call this as the role pgops, or as a superuser.';
    END IF;
    -- A transaction sees sessions as they were when it first read them.
    PERFORM pg_stat_clear_snapshot();
    RETURN (
        WITH session AS MATERIALIZED (
            SELECT
                a.*,
                a.state = 'active' AS is_running,
                CASE WHEN a.state = 'active' THEN seen_at ELSE a.state_change END AS known_at
            FROM pg_stat_activity AS a
            LEFT JOIN pg_roles AS r ON r.oid = a.usesysid
            WHERE
                a.backend_type = 'client backend' AND a.pid <> pg_backend_pid() AND a.query_start IS NOT NULL
                AND (a.state = 'active' OR (a.state LIKE 'idle%' AND a.state_change > seen_at - interval '1 hour'))
                AND coalesce(a.usename, '') NOT IN ('pgops', 'pgops_explain')
                AND NOT coalesce(r.rolsuper AND starts_with(a.application_name, 'pgops '), false)
        ),

        timed AS (
            SELECT
                s.*,
                greatest(1000 * extract(EPOCH FROM s.known_at - s.query_start), 0) AS took_ms
            FROM session AS s
        ),

        slow AS (
            SELECT
                t.*,
                row_number() OVER (
                    PARTITION BY t.datid, t.usesysid
                    ORDER BY t.is_running DESC, t.known_at DESC, t.took_ms DESC, t.pid ASC
                ) AS turn
            FROM timed AS t
            WHERE t.took_ms >= p_threshold_ms
            ORDER BY turn ASC, t.is_running DESC, t.known_at DESC, t.took_ms DESC, t.pid ASC
            LIMIT 100
        )

        SELECT
            jsonb_build_object(
                'seen_at', seen_at,
                'running', (
                    SELECT
                        coalesce(jsonb_agg(jsonb_build_object(
                            'pid', r.pid, 'backend_start', r.backend_start, 'query_start', r.query_start
                        )), '[]')
                    FROM session AS r
                    WHERE r.is_running
                ),
                'sessions', coalesce(jsonb_agg(jsonb_build_object(
                    'pid', s.pid,
                    'backend_start', s.backend_start,
                    'query_start', s.query_start,
                    'known_at', s.known_at,
                    'running', s.is_running,
                    'took_ms', s.took_ms,
                    'queryid', nullif(s.query_id, 0),
                    'query', CASE WHEN p_texts THEN pgops.redacted(pgops.cut_text(pgops.valid_text(s.query), 10240)) END,
                    'database_name', coalesce(pgops.readable(s.datname), s.datid::text),
                    'user_name', coalesce(pgops.readable(s.usename), s.usesysid::text),
                    'application_name', pgops.valid_text(nullif(s.application_name, '')),
                    'client_addr', s.client_addr
                )), '[]')
            )
        FROM slow AS s
    );
END
$$;

REVOKE ALL ON FUNCTION pgops.slow_sessions(numeric, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.slow_sessions(numeric, boolean) TO pgops;
