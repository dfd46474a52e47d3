-- object: function pgops.scene_transactions(boolean)
-- requires: redacted, readable, valid_text, cut_text
CREATE OR REPLACE FUNCTION pgops.scene_transactions(p_texts boolean)
RETURNS jsonb
LANGUAGE sql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- The 20 transactions that have been open for the longest time, prepared ones too. Texts are redacted, and cut before
-- that.
    WITH open AS MATERIALIZED (
        SELECT
            a.pid, a.xact_start AS began_at, a.datname, a.usename, a.application_name, a.client_addr, a.backend_type,
            a.state, a.state_change, a.wait_event_type, a.wait_event,
            greatest(age(a.backend_xmin), age(a.backend_xid)) AS xids, a.query, NULL AS gid
        FROM pg_stat_activity AS a
        WHERE a.xact_start IS NOT NULL AND a.pid <> pg_backend_pid() AND a.backend_type <> 'parallel worker'
        UNION ALL
        SELECT
            NULL, x.prepared, x.database, x.owner, NULL, NULL, 'prepared transaction',
            NULL, NULL, NULL, NULL, age(x.transaction), NULL, x.gid
        FROM pg_prepared_xacts AS x
    ),

    oldest AS MATERIALIZED (
        SELECT o.* FROM open AS o ORDER BY o.began_at ASC, o.pid ASC, o.gid ASC LIMIT 20
    )

    SELECT
        jsonb_build_object(
            'rows', coalesce(jsonb_agg(jsonb_strip_nulls(jsonb_build_object(
                'pid', o.pid, 'prepared', pgops.valid_text(o.gid),
                'transaction_seconds', round(extract(EPOCH FROM clock_timestamp() - o.began_at), 1),
                'user', pgops.readable(o.usename), 'database', pgops.readable(o.datname),
                'application', pgops.valid_text(nullif(o.application_name, '')), 'client', o.client_addr,
                'type', nullif(o.backend_type, 'client backend'), 'state', o.state,
                'state_seconds', round(extract(EPOCH FROM clock_timestamp() - o.state_change), 1),
                'wait', nullif(concat_ws(':', o.wait_event_type, o.wait_event), ''), 'xmin_age', o.xids,
                'query', CASE WHEN p_texts THEN pgops.redacted(pgops.cut_text(pgops.valid_text(o.query), 1000)) END
            )) ORDER BY o.began_at, o.pid, o.gid), '[]'),
            'left_out', (SELECT count(*) FROM open) - count(*)
        )
    FROM oldest AS o;
$$;

REVOKE ALL ON FUNCTION pgops.scene_transactions(boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.scene_transactions(boolean) TO pgops;
