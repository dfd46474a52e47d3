-- object: view pgops.replication_topology
-- requires: replication_matches
CREATE OR REPLACE VIEW pgops.replication_topology AS
WITH self AS MATERIALIZED (
    SELECT
        s.node_id,
        s.in_recovery,
        s.state,
        s.sender,
        s.last_word_at,
        s.application_name,
        s.slot_name,
        s.lag_bytes,
        s.replay_delay_seconds
    FROM pgops.replication_self AS s
),

member AS MATERIALIZED (
    SELECT
        m.node_id,
        m.application_name,
        m.slot_name,
        m.sender,
        m.shared,
        m.message_age,
        m.streamed_at,
        m.replay_delay_seconds,
        m.reported_at,
        m.upstream_id,
        m.lag_bytes,
        m.upstream_at
    FROM pgops.replication_members AS m
),

sender AS MATERIALIZED (
    SELECT
        s.pid,
        s.application_name,
        s.usename,
        s.client_addr,
        s.physical,
        s.state,
        s.sync_state,
        s.reply_time,
        s.sent_lag_bytes,
        s.flush_lag_bytes,
        s.lag_bytes,
        s.lag_seconds,
        s.slot_name
    FROM pgops.replication_senders AS s
),

match AS MATERIALIZED (
    SELECT
        m.pid,
        m.node_id,
        m.node,
        m.certain
    FROM pgops.replication_matches AS m
),

slot AS MATERIALIZED (
    SELECT
        l.slot_name::text AS slot_name,
        l.slot_type,
        l.database::text AS database_name,
        l.active,
        l.wal_status,
        -- A lost slot retains nothing, though most still have a restart_lsn.
        CASE
            WHEN l.wal_status = 'lost' THEN NULL
            WHEN pg_catalog.pg_is_in_recovery()
                THEN greatest(pg_catalog.pg_last_wal_receive_lsn(), pg_catalog.pg_last_wal_replay_lsn())
            ELSE pg_catalog.pg_current_wal_lsn()
        END - l.restart_lsn AS retained_bytes,
        l.safe_wal_size,
        -- Since PostgreSQL 17.
        (pg_catalog.to_jsonb(l) ->> 'inactive_since')::timestamptz AS inactive_since,
        coalesce((pg_catalog.to_jsonb(l) ->> 'synced')::boolean, FALSE) AS synced
    FROM pg_catalog.pg_replication_slots AS l
),

placed AS MATERIALIZED (
    SELECT
        n.node_id,
        n.cluster,
        n.node,
        n.is_primary,
        n.last_seen_at,
        coalesce(n.node_id = s.node_id, FALSE) AS own,
        x.pid,
        -- Walsenders that may serve this node, or another one.
        exists(
            SELECT FROM match AS a
            WHERE a.node_id = n.node_id AND NOT a.certain
        ) AS doubtful,
        u.node_id AS upstream_id,
        u.node AS upstream,
        u.last_seen_at AS upstream_seen_at,
        coalesce(
            m.upstream_at > pg_catalog.now() - '3 minutes'::interval
            AND m.streamed_at > pg_catalog.now() - '3 minutes'::interval,
            FALSE
        ) AS streamed_lately
    FROM pgops.node AS n
    CROSS JOIN self AS s
    INNER JOIN member AS m ON n.node_id = m.node_id
    LEFT JOIN match AS x ON n.node_id = x.node_id AND x.certain
    LEFT JOIN pgops.node AS u ON m.upstream_id = u.node_id
),

linked AS (
    SELECT
        p.node_id,
        p.cluster,
        p.node,
        p.is_primary,
        p.last_seen_at,
        p.own,
        p.pid,
        p.doubtful,
        p.upstream_id,
        p.upstream,
        CASE
            WHEN p.own AND NOT s.in_recovery THEN 'primary'
            WHEN p.own THEN s.state
            WHEN p.pid IS NOT NULL THEN 'here'
            WHEN s.in_recovery AND p.is_primary THEN 'primary'
            WHEN p.doubtful THEN 'unknown'
            -- For a link between other nodes, what their agents report; the upstream node's only while linked.
            WHEN p.upstream_id <> coalesce(s.node_id, 0) AND p.streamed_lately THEN 'streaming'
            WHEN
                p.upstream_id <> coalesce(s.node_id, 0)
                AND p.upstream_seen_at < pg_catalog.now() - '3 minutes'::interval
                THEN 'unknown'
            WHEN s.in_recovery AND p.upstream_id IS NULL THEN 'unknown'
            WHEN
                m.application_name IS NULL
                AND EXISTS (
                    SELECT FROM sender AS e
                    WHERE e.physical AND NOT EXISTS (
                        SELECT FROM match AS a
                        WHERE a.pid = e.pid AND a.certain
                    )
                )
                THEN 'unknown'
            ELSE 'not connected'
        END AS state
    FROM placed AS p
    CROSS JOIN self AS s
    INNER JOIN member AS m ON p.node_id = m.node_id
),

-- The slot that a node uses here, or used while it was linked.
held AS MATERIALIZED (
    SELECT
        l.node_id,
        coalesce(e.slot_name, k.slot_name) AS slot_name
    FROM linked AS l
    CROSS JOIN self AS s
    INNER JOIN member AS m ON l.node_id = m.node_id
    LEFT JOIN sender AS e ON l.pid = e.pid
    LEFT JOIN slot AS k
        ON
            m.slot_name = k.slot_name
            AND l.pid IS NULL
            AND l.state = 'not connected'
            AND NOT l.own
            AND NOT k.active
            AND coalesce(l.upstream_id, s.node_id) = s.node_id
)

SELECT
    l.cluster,
    l.node,
    'node' AS member,
    l.is_primary,
    l.last_seen_at,
    CASE
        WHEN l.state = 'primary' THEN NULL
        WHEN l.own THEN coalesce(l.upstream, s.sender)
        WHEN l.pid IS NOT NULL THEN h.node
        ELSE coalesce(l.upstream, m.sender)
    END AS upstream,
    CASE WHEN l.state = 'here' THEN e.state ELSE l.state END AS state,
    e.sync_state,
    CASE
        WHEN l.own THEN s.lag_bytes
        WHEN l.pid IS NOT NULL THEN e.lag_bytes
        WHEN l.state = 'streaming' THEN m.lag_bytes::numeric
    END AS lag_bytes,
    e.sent_lag_bytes,
    e.flush_lag_bytes,
    e.lag_seconds,
    CASE WHEN l.own THEN s.replay_delay_seconds ELSE m.replay_delay_seconds END AS replay_delay_seconds,
    CASE WHEN l.own AND s.in_recovery THEN pg_catalog.clock_timestamp() ELSE m.reported_at END AS reported_at,
    w.last_word_at,
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - w.last_word_at) AS last_word_age_seconds,
    CASE WHEN l.own THEN s.application_name ELSE coalesce(e.application_name, m.application_name) END
        AS application_name,
    e.client_addr,
    e.usename,
    coalesce(k.slot_name, CASE WHEN l.own THEN s.slot_name ELSE m.slot_name END) AS slot_name,
    k.slot_type,
    k.active AS slot_active,
    k.wal_status,
    k.retained_bytes,
    k.safe_wal_size,
    CASE
        WHEN l.doubtful AND l.pid IS NULL
            THEN 'its walsender cannot be told from others of the same application_name: give it one of its own'
        WHEN l.state = 'unknown' AND m.application_name IS NULL
            THEN 'its agent has not told yet which application_name it comes by'
        WHEN l.state = 'streaming' AND NOT l.own THEN 'as their agents last reported'
    END AS remark
FROM linked AS l
CROSS JOIN self AS s
INNER JOIN member AS m ON l.node_id = m.node_id
LEFT JOIN pgops.node AS h ON s.node_id = h.node_id
LEFT JOIN sender AS e ON l.pid = e.pid
LEFT JOIN held AS d ON l.node_id = d.node_id
LEFT JOIN slot AS k ON d.slot_name = k.slot_name
CROSS JOIN
    LATERAL (
        SELECT
            CASE
                WHEN l.own THEN s.last_word_at
                WHEN l.pid IS NOT NULL THEN e.reply_time
                WHEN l.state = 'primary' THEN l.last_seen_at
                ELSE greatest(
                    m.upstream_at, m.streamed_at - pg_catalog.make_interval(secs => m.message_age), k.inactive_since
                )
            END AS last_word_at
    ) AS w
UNION ALL
SELECT
    NULL AS cluster,
    NULL AS node,
    'node' AS member,
    FALSE AS is_primary,
    NULL AS last_seen_at,
    s.sender AS upstream,
    s.state,
    NULL AS sync_state,
    s.lag_bytes,
    NULL AS sent_lag_bytes,
    NULL AS flush_lag_bytes,
    NULL AS lag_seconds,
    s.replay_delay_seconds,
    pg_catalog.clock_timestamp() AS reported_at,
    s.last_word_at,
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - s.last_word_at) AS last_word_age_seconds,
    s.application_name,
    NULL AS client_addr,
    NULL AS usename,
    s.slot_name,
    NULL AS slot_type,
    NULL AS slot_active,
    NULL AS wal_status,
    NULL AS retained_bytes,
    NULL AS safe_wal_size,
    'this standby: its agent has not told yet which application_name it comes by, or others come by the same'
        AS remark
FROM self AS s
WHERE s.in_recovery AND s.node_id IS NULL
UNION ALL
SELECT
    h.cluster,
    NULL AS node,
    'receiver' AS member,
    NULL AS is_primary,
    NULL AS last_seen_at,
    h.node AS upstream,
    e.state,
    e.sync_state,
    e.lag_bytes,
    e.sent_lag_bytes,
    e.flush_lag_bytes,
    e.lag_seconds,
    NULL AS replay_delay_seconds,
    NULL AS reported_at,
    e.reply_time AS last_word_at,
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - e.reply_time) AS last_word_age_seconds,
    e.application_name,
    e.client_addr,
    e.usename,
    e.slot_name,
    k.slot_type,
    k.active AS slot_active,
    k.wal_status,
    k.retained_bytes,
    k.safe_wal_size,
    'may be ' || (
        SELECT pg_catalog.string_agg(a.node, ' or ' ORDER BY a.node) FROM match AS a
        WHERE a.pid = e.pid)
        AS remark
FROM sender AS e
CROSS JOIN self AS s
LEFT JOIN pgops.node AS h ON s.node_id = h.node_id
LEFT JOIN slot AS k ON e.slot_name = k.slot_name
WHERE
    NOT EXISTS (
        SELECT FROM match AS a
        WHERE a.pid = e.pid AND a.certain
    )
UNION ALL
SELECT
    h.cluster,
    NULL AS node,
    'slot' AS member,
    NULL AS is_primary,
    NULL AS last_seen_at,
    h.node AS upstream,
    CASE WHEN k.active THEN 'in use' ELSE 'not connected' END AS state,
    NULL AS sync_state,
    NULL AS lag_bytes,
    NULL AS sent_lag_bytes,
    NULL AS flush_lag_bytes,
    NULL AS lag_seconds,
    NULL AS replay_delay_seconds,
    NULL AS reported_at,
    k.inactive_since AS last_word_at,
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - k.inactive_since) AS last_word_age_seconds,
    NULL AS application_name,
    NULL AS client_addr,
    NULL AS usename,
    k.slot_name,
    k.slot_type,
    k.active AS slot_active,
    k.wal_status,
    k.retained_bytes,
    k.safe_wal_size,
    CASE WHEN k.synced THEN 'a copy of the primary''s' ELSE 'of database ' || k.database_name END AS remark
FROM slot AS k
CROSS JOIN self AS s
LEFT JOIN pgops.node AS h ON s.node_id = h.node_id
WHERE
    NOT EXISTS (
        SELECT FROM sender AS e
        WHERE e.slot_name = k.slot_name
    )
    AND NOT EXISTS (
        SELECT FROM held AS d
        WHERE d.slot_name = k.slot_name
    );

REVOKE ALL ON pgops.replication_topology FROM PUBLIC;
GRANT SELECT ON pgops.replication_topology TO pgops, pgops_reader;
