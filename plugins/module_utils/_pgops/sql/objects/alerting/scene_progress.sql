-- object: function pgops.scene_progress()
-- requires: maintenance_progress, readable
CREATE OR REPLACE FUNCTION pgops.scene_progress()
RETURNS jsonb
LANGUAGE sql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- Maintenance that is running, the oldest first, at most 20.
    WITH running AS MATERIALIZED (
        SELECT m.* FROM pgops.maintenance_progress AS m
    ),

    oldest AS MATERIALIZED (
        SELECT r.* FROM running AS r ORDER BY r.started_at ASC, r.pid ASC LIMIT 20
    )

    SELECT
        jsonb_build_object(
            'rows', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'operation', o.operation, 'pid', o.pid, 'database', pgops.readable(o.datname), 'relation', o.relation,
                'phase', o.phase, 'percent', round(o.percent::numeric, 1),
                'seconds', round(extract(EPOCH FROM clock_timestamp() - o.started_at), 1),
                'user', pgops.readable(o.usename), 'type', nullif(o.backend_type, 'client backend'),
                'wait', nullif(concat_ws(':', o.wait_event_type, o.wait_event), '')
            )) ORDER BY o.started_at, o.pid), '[]'),
            'left_out', (SELECT count(*) FROM running) - count(*)
        )
    FROM oldest AS o;
$$;

REVOKE ALL ON FUNCTION pgops.scene_progress() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.scene_progress() TO pgops;
