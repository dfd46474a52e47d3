-- object: function pgops.statement_statistics()
-- requires: statements_extension
CREATE OR REPLACE FUNCTION pgops.statement_statistics()
RETURNS TABLE (
    taken_at timestamptz, reset_at timestamptz, evicted bigint, capacity integer, track text,
    processes_since timestamptz, statistics_since timestamptz, active_ms double precision
)
LANGUAGE plpgsql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- Shows whether two readings of pg_stat_statements belong together. evicted counts how often entries were discarded
-- to make space, NULL if the extension's version does not have it; active_ms is the time that sessions spent in
-- statements. After a crash both processes_since and statistics_since are new.
DECLARE
    source record;
BEGIN
    SELECT e.* INTO source FROM pgops.statements_extension() AS e;
    taken_at := clock_timestamp();
    IF source.has_info THEN
        EXECUTE format('SELECT i.dealloc, i.stats_reset FROM %I.pg_stat_statements_info AS i', source.schema_name)
        INTO evicted, reset_at;
    END IF;
    capacity := current_setting('pg_stat_statements.max', true)::integer;
    track := current_setting('pg_stat_statements.track', true);
    processes_since := (SELECT min(a.backend_start) FROM pg_stat_activity AS a WHERE a.backend_type = 'checkpointer');
    statistics_since := (SELECT b.stats_reset FROM pg_stat_bgwriter AS b);
    active_ms := (SELECT sum(d.active_time) FROM pg_stat_database AS d);
    RETURN NEXT;
END
$$;

REVOKE ALL ON FUNCTION pgops.statement_statistics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.statement_statistics() TO pgops;
