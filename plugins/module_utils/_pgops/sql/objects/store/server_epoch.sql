-- object: function pgops.server_epoch()
CREATE OR REPLACE FUNCTION pgops.server_epoch()
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- When this server started last, a crash included, and since when it has its oldest statistics.
    SELECT concat_ws(
        ' ',
        (
            SELECT to_char(min(a.backend_start), 'YYYY-MM-DD"T"HH24:MI:SS.USOF') FROM pg_stat_activity AS a
            WHERE a.backend_type = 'checkpointer'
        ),
        (
            SELECT to_char(least(b.stats_reset, c.stats_reset, w.stats_reset), 'YYYY-MM-DD"T"HH24:MI:SS.USOF')
            FROM pg_stat_bgwriter AS b
            CROSS JOIN pg_stat_archiver AS c
            CROSS JOIN pg_stat_wal AS w
        )
    );
$$;

REVOKE ALL ON FUNCTION pgops.server_epoch() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.server_epoch() TO pgops;
