-- object: view pgops.replication_members
-- requires: latest_values
-- What each node last reported, within a day, about its link upstream, and who else knows it. For
-- replication_topology.
CREATE OR REPLACE VIEW pgops.replication_members AS
WITH word AS MATERIALIZED (
    SELECT
        v.node_id,
        v.metric_name,
        v.other,
        v.metric_value,
        v.collected_at
    FROM pgops.latest_values(
        ARRAY['receiver_message_age_seconds', 'replay_delay_seconds', 'replication_lag_bytes'], '1 day'::interval
    ) AS v
),

receiver AS (
    SELECT DISTINCT ON (w.node_id)
        w.node_id,
        w.other ->> 'application_name' AS application_name,
        w.other ->> 'slot' AS slot_name,
        w.other ->> 'sender' AS sender,
        w.metric_value AS message_age,
        w.collected_at AS streamed_at
    FROM word AS w
    WHERE w.metric_name = 'receiver_message_age_seconds'
    ORDER BY w.node_id ASC, w.collected_at DESC
),

named AS (
    SELECT
        r.node_id,
        r.application_name,
        r.slot_name,
        r.sender,
        r.message_age,
        r.streamed_at,
        pg_catalog.count(*) OVER (PARTITION BY r.application_name) > 1 AS shared
    FROM receiver AS r
)

SELECT
    n.node_id,
    r.application_name,
    r.slot_name,
    r.sender,
    r.shared,
    r.message_age,
    r.streamed_at,
    d.metric_value AS replay_delay_seconds,
    d.collected_at AS reported_at,
    u.node_id AS upstream_id,
    u.metric_value AS lag_bytes,
    u.collected_at AS upstream_at
FROM pgops.node AS n
LEFT JOIN named AS r ON n.node_id = r.node_id
LEFT JOIN word AS d ON n.node_id = d.node_id AND d.metric_name = 'replay_delay_seconds'
LEFT JOIN LATERAL (
    SELECT
        w.node_id,
        w.metric_value,
        w.collected_at
    FROM word AS w
    WHERE
        w.metric_name = 'replication_lag_bytes'
        AND w.other ->> 'standby' = r.application_name
        AND w.node_id <> n.node_id
        AND NOT r.shared
    ORDER BY w.collected_at DESC
    LIMIT 1
) AS u ON TRUE;

REVOKE ALL ON pgops.replication_members FROM PUBLIC;
