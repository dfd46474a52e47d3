-- object: function pgops.alert_mutes(uuid[], timestamp with time zone)
-- requires: silence_active
CREATE OR REPLACE FUNCTION pgops.alert_mutes(p_alerts uuid[], p_at timestamptz)
RETURNS TABLE (alert_id uuid, muted_by text)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_nestloop = off
AS $$
-- Those of some alerts of which nobody is to be told at p_at, or of one that has ended: was when it fired. A silence or
-- maintenance window with labels that it has; one of the same rule's name and labels with a higher severity, which
-- fires as well, though that may be silenced itself; or an instance that is down, for all else of its node. Linear in
-- alerts, and in silences, of which there are few.
    WITH concerned AS MATERIALIZED (
        SELECT
            a.alert_id, a.rule_name, a.cluster, a.node, a.labels, a.ended_at,
            CASE WHEN a.ended_at IS NULL THEN p_at ELSE a.fired_at END AS moment,
            array_position(ARRAY['info', 'warning', 'critical'], a.severity_level) AS rank,
            a.labels || jsonb_build_object(
                'rule_name', a.rule_name, 'severity', a.severity_level, 'metric', a.metric_name, 'cluster', a.cluster,
                'node', a.node
            ) AS all_labels
        -- Joined by a hash: a parameter that is an array would be searched for each alert.
        FROM unnest(p_alerts) AS p (alert_id)
        INNER JOIN pgops.alert AS a ON p.alert_id = a.alert_id
        WHERE a.ended_at IS NULL OR a.ended_at > p_at - interval '1 day'
    ),

    firing AS MATERIALIZED (
        SELECT
            a.rule_name, a.cluster, a.node, a.labels,
            max(array_position(ARRAY['info', 'warning', 'critical'], a.severity_level)) AS rank
        FROM pgops.alert AS a
        WHERE a.ended_at IS NULL AND a.fired_at IS NOT NULL
        GROUP BY a.rule_name, a.cluster, a.node, a.labels
    ),

    down AS MATERIALIZED (
        SELECT DISTINCT f.cluster, f.node FROM firing AS f WHERE f.rule_name = 'instance_down'
    ),

    silences AS MATERIALIZED (
        SELECT s AS silence, s.kind, s.labels, s.starts_at, s.ends_at
        FROM pgops.silence AS s
        WHERE s.ends_at > (SELECT min(c.moment) FROM concerned AS c)
    )

    SELECT c.alert_id, m.muted_by
    FROM concerned AS c
    LEFT JOIN firing AS f
        ON f.rule_name = c.rule_name AND f.cluster = c.cluster AND f.node = c.node AND f.labels = c.labels
        AND c.ended_at IS NULL
    LEFT JOIN down AS d ON d.cluster = c.cluster AND d.node = c.node AND c.ended_at IS NULL
    CROSS JOIN LATERAL (
        SELECT
            coalesce(
                (
                    SELECT s.kind FROM silences AS s
                    WHERE
                        c.all_labels @> s.labels AND c.moment >= s.starts_at AND c.moment < s.ends_at
                        AND pgops.silence_active(s.silence, c.moment)
                    ORDER BY s.kind LIMIT 1
                ),
                CASE
                    WHEN f.rank > c.rank THEN 'severity'
                    WHEN d.node IS NOT NULL AND c.rule_name <> 'instance_down' THEN 'instance_down'
                END
            ) AS muted_by
    ) AS m
    WHERE m.muted_by IS NOT NULL;
$$;

REVOKE ALL ON FUNCTION pgops.alert_mutes(uuid[], timestamp with time zone) FROM PUBLIC;
