-- object: function pgops.scene_blocking(boolean)
-- requires: blocking_tree, redacted, readable, valid_text, cut_text
CREATE OR REPLACE FUNCTION pgops.scene_blocking(p_texts boolean)
RETURNS jsonb
LANGUAGE sql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- Who waits for whom: at most 50 sessions in the order of the tree, those at its roots before all others. Texts are
-- redacted, and cut before that.
    WITH tree AS MATERIALIZED (
        SELECT b.*, row_number() OVER () AS place FROM pgops.blocking_tree AS b
    ),

    ranked AS MATERIALIZED (
        SELECT t.*, row_number() OVER (ORDER BY t.depth > 0 ASC, t.place ASC) AS turn FROM tree AS t
    )

    SELECT
        jsonb_build_object(
            'rows', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'depth', t.depth, 'pid', t.pid, 'blocks', t.blocks, 'blocked_by', to_jsonb(t.blocked_by[1:10]),
                'user', pgops.readable(t.usename), 'database', pgops.readable(t.datname),
                'application', pgops.valid_text(nullif(t.application_name, '')), 'state', t.state,
                'wait', nullif(concat_ws(':', t.wait_event_type, t.wait_event), ''),
                'waits_seconds', round(t.waits_seconds::numeric, 1), 'lock_type', t.lock_type, 'lock_mode', t.lock_mode,
                'relation', t.relation, 'holds', to_jsonb(t.holds_modes),
                'prepared', (SELECT jsonb_agg(pgops.valid_text(p.gid)) FROM unnest(t.prepared[1:10]) AS p (gid)),
                'transaction_seconds', round(extract(EPOCH FROM clock_timestamp() - t.xact_start), 1),
                'query', CASE WHEN p_texts THEN pgops.redacted(pgops.cut_text(pgops.valid_text(t.query), 1000)) END
            )) ORDER BY t.place), '[]'),
            'left_out', (SELECT count(*) FROM tree) - count(*)
        )
    FROM ranked AS t
    WHERE t.turn <= 50;
$$;

REVOKE ALL ON FUNCTION pgops.scene_blocking(boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.scene_blocking(boolean) TO pgops;
