-- object: function pgops.scene_standbys()
-- requires: readable, valid_text
CREATE OR REPLACE FUNCTION pgops.scene_standbys()
RETURNS jsonb
LANGUAGE sql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- What streams from this server, the furthest behind first, at most 50; on a standby, before these, what it receives
-- and replays itself.
    WITH here AS MATERIALIZED (
        SELECT
            pg_is_in_recovery() AS standby,
            CASE
                WHEN pg_is_in_recovery() THEN coalesce(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())
                ELSE pg_current_wal_lsn()
            END AS lsn
    ),

    stream AS MATERIALIZED (
        SELECT r.*, pg_wal_lsn_diff(h.lsn, r.replay_lsn) AS lag
        FROM pg_stat_replication AS r
        CROSS JOIN here AS h
    ),

    shown AS MATERIALIZED (
        SELECT
            0 AS turn, 0::numeric AS lag,
            jsonb_build_object(
                'role', 'standby', 'receiver', coalesce(w.status, 'none'), 'sender', w.sender_host, 'slot', w.slot_name,
                'timeline', w.received_tli,
                'last_message_seconds', round(extract(EPOCH FROM clock_timestamp() - w.last_msg_receipt_time), 1),
                'not_replayed_bytes', pg_wal_lsn_diff(h.lsn, pg_last_wal_replay_lsn()),
                'replayed_commit_seconds',
                round(extract(EPOCH FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 1),
                'paused', CASE WHEN h.standby THEN pg_is_wal_replay_paused() END
            ) AS shown
        FROM here AS h
        LEFT JOIN pg_stat_wal_receiver AS w ON TRUE
        WHERE h.standby
        UNION ALL
        (
            SELECT
                1, s.lag,
                jsonb_build_object(
                    'application', pgops.valid_text(nullif(s.application_name, '')), 'client', s.client_addr,
                    'user', pgops.readable(s.usename), 'pid', s.pid, 'state', s.state, 'sync', s.sync_state,
                    'lag_bytes', s.lag, 'replay_lag_seconds', round(extract(EPOCH FROM s.replay_lag), 1),
                    'xmin_age', age(s.backend_xmin)
                )
            FROM stream AS s
            ORDER BY s.lag DESC NULLS FIRST, s.pid ASC
            LIMIT 50
        )
    )

    SELECT
        jsonb_build_object(
            'rows', coalesce(jsonb_agg(jsonb_strip_nulls(s.shown) ORDER BY s.turn, s.lag DESC NULLS FIRST), '[]'),
            'left_out', (SELECT count(*) FROM stream) - count(*) FILTER (WHERE s.turn = 1)
        )
    FROM shown AS s;
$$;

REVOKE ALL ON FUNCTION pgops.scene_standbys() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.scene_standbys() TO pgops;
