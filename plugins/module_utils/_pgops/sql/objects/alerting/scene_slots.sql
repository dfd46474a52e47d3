-- object: function pgops.scene_slots()
-- requires: readable
CREATE OR REPLACE FUNCTION pgops.scene_slots()
RETURNS jsonb
LANGUAGE sql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- The 50 replication slots that keep the most WAL; what only some versions have is left out by the others.
    WITH kept AS MATERIALIZED (
        SELECT
            s.slot_name, s.slot_type, s.database, s.active, s.active_pid, s.wal_status, s.xmin, s.catalog_xmin,
            to_jsonb(s) ->> 'inactive_since' AS inactive_since,
            to_jsonb(s) ->> 'invalidation_reason' AS invalidation_reason,
            pg_wal_lsn_diff(
                CASE
                    WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                    ELSE pg_current_wal_lsn()
                END, s.restart_lsn
            ) AS retained
        FROM pg_replication_slots AS s
    ),

    largest AS MATERIALIZED (
        SELECT k.* FROM kept AS k ORDER BY k.retained DESC NULLS LAST, k.slot_name ASC LIMIT 50
    )

    SELECT
        jsonb_build_object(
            'rows', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'slot', l.slot_name, 'type', l.slot_type, 'database', pgops.readable(l.database), 'active', l.active,
                'pid', l.active_pid, 'retained_bytes', l.retained, 'wal_status', l.wal_status,
                'xmin_age', greatest(age(l.xmin), age(l.catalog_xmin)), 'inactive_since', l.inactive_since,
                'invalid', l.invalidation_reason
            )) ORDER BY l.retained DESC NULLS LAST, l.slot_name), '[]'),
            'left_out', (SELECT count(*) FROM kept) - count(*)
        )
    FROM largest AS l;
$$;

REVOKE ALL ON FUNCTION pgops.scene_slots() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.scene_slots() TO pgops;
