-- object: function pgops.note_events(integer)
-- requires: silence_openings, cut_text
CREATE OR REPLACE FUNCTION pgops.note_events(p_node_id integer)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Records what other tables of the last day know to have been done: backups, dumps, drills, recovery points, migrations of
-- the schema, silences and maintenance windows. p_node_id is the primary. Returns how many events are new.
DECLARE
    since constant timestamptz := now() - interval '1 day';
    this_cluster constant text := (SELECT n.cluster FROM pgops.node AS n WHERE n.node_id = p_node_id);
    recorded integer;
BEGIN
    INSERT INTO pgops.event (event_key, occurred_at, kind, cluster, node, event_text, details)
    SELECT
        f.event_key, f.occurred_at, f.kind, this_cluster, coalesce(f.node, ''), pgops.cut_text(f.event_text, 1000),
        jsonb_strip_nulls(f.details)
    FROM (
        SELECT
            'backup:' || b.backup_id || ':' || m.status AS event_key, m.at AS occurred_at, 'backup' AS kind, b.node,
            concat_ws(
                ' ', b.backup_type, 'backup', CASE WHEN m.status = 'began' THEN 'began' ELSE b.status END,
                CASE WHEN m.status = 'ended' THEN ': ' || left(b.error_message, 500) END
            ) AS event_text,
            jsonb_build_object(
                'backup_id', b.backup_id, 'type', b.backup_type, 'method', b.backup_method, 'name', b.name,
                'seconds', CASE WHEN m.status = 'ended' THEN round(extract(EPOCH FROM b.ended_at - b.started_at)) END,
                'bytes', CASE WHEN m.status = 'ended' THEN b.stored_bytes END
            ) AS details
        FROM pgops.backup AS b
        CROSS JOIN LATERAL (
            VALUES ('began', b.started_at),
            ('ended', CASE WHEN b.status IN ('completed', 'failed') THEN b.ended_at END)
        ) AS m (status, at)
        WHERE m.at BETWEEN since AND now()
        UNION ALL
        SELECT
            'dump:' || d.dump_id || ':' || m.status, m.at, 'backup', d.node,
            concat_ws(
                ' ', 'dump of', left(d.database_name, 256), CASE WHEN m.status = 'began' THEN 'began' ELSE d.status END,
                CASE WHEN m.status = 'ended' THEN ': ' || left(d.error_message, 500) END
            ),
            jsonb_build_object(
                'dump_id', d.dump_id, 'name', d.name,
                'seconds', CASE WHEN m.status = 'ended' THEN round(extract(EPOCH FROM d.ended_at - d.started_at)) END,
                'bytes', CASE WHEN m.status = 'ended' THEN d.stored_bytes END
            )
        FROM pgops.dump AS d
        CROSS JOIN LATERAL (
            VALUES ('began', d.started_at),
            ('ended', CASE WHEN d.status IN ('completed', 'failed') THEN d.ended_at END)
        ) AS m (status, at)
        WHERE m.at BETWEEN since AND now()
        UNION ALL
        SELECT
            'drill:' || r.drill_id, r.completed_at, 'drill', r.node,
            concat_ws(
                ' ', 'recovery drill', CASE r.status WHEN 'not_run' THEN 'was not made' ELSE r.status END,
                CASE WHEN r.status <> 'passed' THEN '(' || r.reason || '): ' || left(r.error_message, 500) END
            ),
            jsonb_build_object(
                'drill_id', r.drill_id, 'backup', r.backup_name, 'rto_seconds', r.rto_seconds,
                'rpo_seconds', r.rpo_seconds
            )
        FROM pgops.drill AS r
        WHERE r.completed_at BETWEEN since AND now()
        UNION ALL
        SELECT
            'recovery_point:' || p.recovery_id, p.created_at, 'backup', '',
            'recovery point ' || p.recovery_name || ' by ' || p.created_by,
            jsonb_build_object('recovery_id', p.recovery_id, 'lsn', p.target_lsn)
        FROM pgops.recovery_point AS p
        WHERE p.created_at BETWEEN since AND now()
        UNION ALL
        SELECT
            'migration:' || max(m.number), min(m.applied_at), 'deployment', '',
            'pg_ops_schema: migrations ' || min(m.number) || ' to ' || max(m.number),
            jsonb_build_object('module', 'pg_ops_schema', 'version', m.collection_version)
        FROM pgops.migration AS m
        WHERE m.applied_at BETWEEN since AND now()
        GROUP BY m.applied_at, m.collection_version
        UNION ALL
        SELECT
            'silence:' || s.silence_id || ':' || extract(EPOCH FROM o.opens_at)::bigint || ':' || m.what, m.at,
            'maintenance', s.labels ->> 'node',
            format(
                '%s %s, by %s, for %s: %s',
                CASE s.kind WHEN 'maintenance' THEN 'maintenance window' ELSE s.kind END, m.what,
                s.created_by, s.labels, s.comment
            ),
            jsonb_build_object(
                'silence_id', s.silence_id, 'kind', s.kind, 'labels', s.labels, 'until', o.closes_at
            )
        FROM pgops.silence AS s
        CROSS JOIN LATERAL pgops.silence_openings(s, greatest(since, s.created_at), now()) AS o
        CROSS JOIN LATERAL (
            VALUES ('begins', greatest(o.opens_at, s.created_at)), ('ends', o.closes_at)
        ) AS m (what, at)
        WHERE s.ends_at > since AND m.at BETWEEN since AND now()
    ) AS f
    ON CONFLICT (event_key) DO NOTHING;
    GET DIAGNOSTICS recorded = ROW_COUNT;
    RETURN recorded;
END
$$;

REVOKE ALL ON FUNCTION pgops.note_events(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.note_events(integer) TO pgops;
