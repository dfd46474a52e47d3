-- object: function pgops.forget_slow_queries()
CREATE OR REPLACE FUNCTION pgops.forget_slow_queries()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Deletes executions older than the retention, and if there are more than 20,000 the oldest; returns how many of the
-- latter, which were deleted early. Those of the same time are deleted, or stay, together.
DECLARE
    keep_from timestamptz := now() - make_interval(
        days => (SELECT s.value::integer FROM pgops.setting AS s WHERE s.name = 'retention_days')
    );
    early integer;
BEGIN
    DELETE FROM pgops.slow_query AS q WHERE q.last_seen_at < keep_from;
    DELETE FROM pgops.slow_query AS q
    WHERE q.last_seen_at < (
        SELECT o.last_seen_at FROM pgops.slow_query AS o ORDER BY o.last_seen_at DESC OFFSET 19999 LIMIT 1
    );
    GET DIAGNOSTICS early = ROW_COUNT;
    RETURN early;
END
$$;

REVOKE ALL ON FUNCTION pgops.forget_slow_queries() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.forget_slow_queries() TO pgops;
