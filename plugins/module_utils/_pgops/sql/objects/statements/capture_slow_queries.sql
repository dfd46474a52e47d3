-- object: function pgops.capture_slow_queries(numeric)
-- requires: slow_sessions, store_slow_sessions, forget_slow_queries, primary_node_id
CREATE OR REPLACE FUNCTION pgops.capture_slow_queries(p_threshold_ms numeric DEFAULT 1000.0)
RETURNS integer
LANGUAGE plpgsql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- Records this server's executions that take p_threshold_ms or more, or were a session's last one and took it, in
-- slow_query_log; returns how many are new there or know more than before. Runs as the caller, who must see all
-- sessions.
DECLARE
    captured integer;
    dropped integer;
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'this server is a standby and cannot store anything'
            USING ERRCODE = 'read_only_sql_transaction',
            HINT = 'Run "pgops queries" on its host, which stores it on the primary.';
    END IF;
    captured := pgops.store_slow_sessions(pgops.primary_node_id(), pgops.slow_sessions(p_threshold_ms, true));
    dropped := pgops.forget_slow_queries();
    IF dropped > 0 THEN
        RAISE WARNING 'slow_query_log is full: its % oldest executions were deleted', dropped
            USING HINT = 'Raise the threshold.';
    END IF;
    RETURN captured;
END
$$;

REVOKE ALL ON FUNCTION pgops.capture_slow_queries(numeric) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.capture_slow_queries(numeric) TO pgops;
