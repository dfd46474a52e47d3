-- object: function pgops.note_alerts(timestamp with time zone)
-- requires: alert_mutes
CREATE OR REPLACE FUNCTION pgops.note_alerts(p_at timestamptz)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_nestloop = off
AS $$
-- Notes which channels each alert that fires is for, and whether they are to be told of it now; also of those that fired
-- and have ended since anybody looked, within a day. A rule is told to the channels that it names, and where it names
-- none that there is, to those that are the default. That a channel cannot be told anything, it is not told itself; nor
-- is nobody: where no other one is named, all others are.
DECLARE
    concerned uuid[];
BEGIN
    SELECT coalesce(array_agg(a.alert_id), '{}') INTO concerned
    FROM pgops.alert AS a
    WHERE
        a.fired_at IS NOT NULL
        AND (
            a.ended_at IS NULL
            OR (
                a.ended_at > p_at - interval '1 day'
                AND NOT EXISTS (SELECT FROM pgops.alert_notice AS t WHERE t.alert_id = a.alert_id)
            )
        );

    WITH muted AS MATERIALIZED (
        SELECT m.alert_id, m.muted_by FROM pgops.alert_mutes(concerned, p_at) AS m
    ),

    named AS MATERIALIZED (
        SELECT r.rule_id, array_agg(h.channel) AS channels
        FROM pgops.alert_rule AS r
        INNER JOIN pgops.notification_channel AS h ON r.notification_channels ? h.channel
        GROUP BY r.rule_id
    ),

    looked_at AS (
        UPDATE pgops.alert_notice AS t
        SET muted_by = m.muted_by
        FROM unnest(concerned) AS c (alert_id)
        LEFT JOIN muted AS m ON m.alert_id = c.alert_id
        WHERE t.alert_id = c.alert_id AND NOT t.closed AND t.muted_by IS DISTINCT FROM m.muted_by
    )

    INSERT INTO pgops.alert_notice (alert_id, channel, rule_id, cluster, seen_at, muted_by)
    SELECT a.alert_id, h.channel, a.rule_id, a.cluster, p_at, m.muted_by
    FROM unnest(concerned) AS c (alert_id)
    INNER JOIN pgops.alert AS a ON c.alert_id = a.alert_id
    LEFT JOIN named AS n ON n.rule_id = a.rule_id
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN a.metric_name IN ('notification_oldest_seconds', 'notifications_dead') THEN a.labels ->> 'channel'
        END AS about
    ) AS b
    INNER JOIN pgops.notification_channel AS h
        ON h.is_enabled AND h.channel IS DISTINCT FROM b.about
        AND (
            h.channel = ANY (n.channels)
            OR (n.channels IS NULL AND h.is_default)
            OR (b.about IS NOT NULL AND (n.channels IS NULL OR n.channels <@ ARRAY[b.about]))
        )
        AND a.severity_level = ANY (h.severities)
        AND a.labels || jsonb_build_object(
            'rule_name', a.rule_name, 'severity', a.severity_level, 'metric', a.metric_name, 'cluster', a.cluster,
            'node', a.node
        ) @> h.labels
        -- A new channel is not told what has been before.
        AND (a.ended_at IS NULL OR h.created_at < a.ended_at)
    LEFT JOIN muted AS m ON m.alert_id = a.alert_id
    WHERE a.ended_at IS NULL OR a.ended_at > p_at - interval '1 day'
    ON CONFLICT (alert_id, channel) DO NOTHING;
END
$$;

REVOKE ALL ON FUNCTION pgops.note_alerts(timestamp with time zone) FROM PUBLIC;
