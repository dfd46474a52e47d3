-- object: function pgops.scene_sessions()
-- requires: readable, valid_text
CREATE OR REPLACE FUNCTION pgops.scene_sessions()
RETURNS jsonb
LANGUAGE sql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- Who has how many client sessions in which state: the 20 largest groups.
    WITH grouped AS MATERIALIZED (
        SELECT
            a.datname, a.usename, a.application_name, a.state, count(*) AS sessions,
            count(*) FILTER (WHERE a.wait_event_type = 'Lock') AS waiting, min(a.state_change) AS since
        FROM pg_stat_activity AS a
        WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
        GROUP BY a.datname, a.usename, a.application_name, a.state
    ),

    largest AS MATERIALIZED (
        SELECT g.* FROM grouped AS g
        ORDER BY g.sessions DESC, g.datname ASC, g.usename ASC, g.application_name ASC, g.state ASC
        LIMIT 20
    )

    SELECT
        jsonb_build_object(
            'rows', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'sessions', l.sessions, 'user', pgops.readable(l.usename), 'database', pgops.readable(l.datname),
                'application', pgops.valid_text(nullif(l.application_name, '')), 'state', l.state,
                'wait_for_locks', nullif(l.waiting, 0),
                'longest_seconds', round(extract(EPOCH FROM clock_timestamp() - l.since), 1)
            )) ORDER BY l.sessions DESC, l.datname, l.usename), '[]'),
            'left_out', (SELECT count(*) FROM grouped) - count(*)
        )
    FROM largest AS l;
$$;

REVOKE ALL ON FUNCTION pgops.scene_sessions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.scene_sessions() TO pgops;
