-- object: function pgops.server_epoch()
CREATE OR REPLACE FUNCTION pgops.server_epoch()
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Time of this server's last start, including after a crash, and the time since which it has its oldest statistics.
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
