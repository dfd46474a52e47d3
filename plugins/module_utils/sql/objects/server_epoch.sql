-- object: function pgops.server_epoch()
CREATE OR REPLACE FUNCTION pgops.server_epoch()
RETURNS text
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- What the counters of this server count from: its start, the last reset of any statistics, its timeline.
    SELECT concat_ws(
        ' ',
        to_char(pg_postmaster_start_time(), 'YYYYMMDDHH24MISSUS'),
        to_char((SELECT max(d.stats_reset) FROM pg_stat_database AS d), 'YYYYMMDDHH24MISSUS'),
        to_char((SELECT b.stats_reset FROM pg_stat_bgwriter AS b), 'YYYYMMDDHH24MISSUS'),
        (SELECT c.timeline_id FROM pg_control_checkpoint() AS c)
    );
$$;

REVOKE ALL ON FUNCTION pgops.server_epoch() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.server_epoch() TO pgops;
