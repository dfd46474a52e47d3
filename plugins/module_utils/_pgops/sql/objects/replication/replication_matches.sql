-- object: view pgops.replication_matches
-- requires: replication_self, replication_senders
-- Which node each walsender may serve, by its slot and application_name; certain if it can serve no other node, and
-- the node has no other walsender. For replication_topology.
CREATE OR REPLACE VIEW pgops.replication_matches AS
WITH candidate AS (
    SELECT
        s.pid,
        n.node_id,
        n.node,
        CASE
            WHEN m.application_name = s.application_name AND m.slot_name = s.slot_name THEN 1
            -- Any client may use a default name: then the node must have reported lately that it streams.
            WHEN
                m.application_name = s.application_name
                AND s.application_name NOT IN ('walreceiver', pg_catalog.current_setting('cluster_name'))
                THEN 2
            WHEN
                m.application_name = s.application_name
                AND coalesce(m.slot_name, '') = coalesce(s.slot_name, '')
                AND m.message_age < 60
                AND m.streamed_at > pg_catalog.now() - '3 minutes'::interval
                THEN 2
            WHEN
                m.application_name = s.application_name
                AND coalesce(m.slot_name, '') = coalesce(s.slot_name, '')
                THEN 4
            WHEN
                m.application_name IS NULL
                AND pg_catalog.lower(s.application_name) IN (
                    pg_catalog.lower(n.node),
                    pg_catalog.lower(pg_catalog.split_part(n.node, '/', 1)),
                    pg_catalog.split_part(pg_catalog.split_part(pg_catalog.lower(n.node), '/', 1), '.', 1)
                )
                THEN 3
        END AS doubt
    FROM pgops.replication_senders AS s
    CROSS JOIN pgops.node AS n
    INNER JOIN pgops.replication_members AS m ON n.node_id = m.node_id
    WHERE s.physical AND n.node_id IS DISTINCT FROM (SELECT o.node_id FROM pgops.replication_self AS o)
),

-- A node that more likely belongs to another walsender is left out.
likely AS (
    SELECT
        c.pid,
        c.node_id,
        c.node,
        c.doubt,
        pg_catalog.min(c.doubt) OVER (PARTITION BY c.pid) AS least
    FROM (
        SELECT
            d.pid,
            d.node_id,
            d.node,
            d.doubt,
            pg_catalog.min(d.doubt) OVER (PARTITION BY d.node_id) AS least
        FROM candidate AS d
        WHERE d.doubt IS NOT NULL
    ) AS c
    WHERE c.doubt = c.least
)

SELECT
    k.pid,
    k.node_id,
    k.node,
    k.doubt < 4
    AND pg_catalog.count(*) OVER (PARTITION BY k.pid) = 1
    AND pg_catalog.count(*) OVER (PARTITION BY k.node_id) = 1 AS certain
FROM likely AS k
WHERE k.doubt = k.least;

REVOKE ALL ON pgops.replication_matches FROM PUBLIC;
