-- object: view pgops.replication_self
-- requires: replication_members
-- The node that this server is, and its own link upstream. For replication_topology.
CREATE OR REPLACE VIEW pgops.replication_self AS
WITH own AS (
    SELECT
        i.in_recovery,
        r.pid,
        r.status,
        r.last_msg_receipt_time,
        pg_catalog.clock_timestamp() - r.last_msg_receipt_time > '1 minute'::interval AS silent,
        greatest(
            pg_catalog.pg_last_wal_receive_lsn(), r.latest_end_lsn, pg_catalog.pg_last_wal_replay_lsn()
        ) AS received,
        pg_catalog.pg_last_wal_replay_lsn() AS replayed,
        pg_catalog.date_part(
            'epoch', pg_catalog.clock_timestamp() - pg_catalog.pg_last_xact_replay_timestamp()
        ) AS data_age,
        r.sender_host || ':' || r.sender_port AS sender,
        nullif(pg_catalog.current_setting('primary_slot_name'), '') AS slot_name,
        -- Its name upstream; the setting is hidden from roles without pg_read_all_settings.
        (
            SELECT
                coalesce(
                    substring(c.setting FROM $$(?:^|[ ?&])application_name *= *'([^']*)'$$),
                    substring(c.setting FROM $$(?:^|[ ?&])application_name *= *([^ '&]+)$$),
                    nullif(pg_catalog.current_setting('cluster_name'), ''),
                    'walreceiver'
                )
            FROM pg_catalog.pg_settings AS c
            WHERE c.name = 'primary_conninfo'
        ) AS application_name
    FROM (SELECT pg_catalog.pg_is_in_recovery() AS in_recovery) AS i
    LEFT JOIN pg_catalog.pg_stat_wal_receiver AS r ON TRUE
)

SELECT
    CASE
        WHEN o.in_recovery
            THEN (
                SELECT pg_catalog.min(m.node_id)
                FROM pgops.replication_members AS m
                WHERE
                    (m.application_name = o.application_name OR o.application_name IS NULL)
                    AND m.slot_name IS NOT DISTINCT FROM o.slot_name
                    -- Others may use a default name as well, and not have reported yet.
                    AND (
                        o.slot_name IS NOT NULL
                        OR o.application_name NOT IN ('walreceiver', pg_catalog.current_setting('cluster_name'))
                    )
                HAVING pg_catalog.count(*) = 1
            )
        ELSE (
            SELECT n.node_id FROM pgops.node AS n
            WHERE n.is_primary
            ORDER BY n.last_seen_at DESC LIMIT 1
        )
    END AS node_id,
    o.in_recovery,
    CASE
        WHEN NOT o.in_recovery THEN 'primary'
        WHEN o.pid IS NULL THEN 'not connected'
        WHEN o.silent THEN 'silent'
        ELSE o.status
    END AS state,
    o.sender,
    o.last_msg_receipt_time AS last_word_at,
    CASE WHEN o.in_recovery THEN o.application_name END AS application_name,
    CASE WHEN o.in_recovery THEN o.slot_name END AS slot_name,
    CASE WHEN o.status = 'streaming' AND NOT o.silent THEN o.received - o.replayed END AS lag_bytes,
    CASE
        WHEN NOT o.in_recovery THEN NULL
        WHEN o.status = 'streaming' AND NOT o.silent AND o.replayed >= o.received THEN 0
        ELSE o.data_age
    END AS replay_delay_seconds
FROM own AS o;

REVOKE ALL ON pgops.replication_self FROM PUBLIC;
