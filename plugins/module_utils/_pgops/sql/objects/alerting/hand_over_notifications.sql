-- object: function pgops.hand_over_notifications(timestamp with time zone)
CREATE OR REPLACE FUNCTION pgops.hand_over_notifications(p_at timestamptz)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- What a channel cannot be told, after so many failures, its fallback channel is told as well: what is in the messages,
-- what waits behind them, and what an Alertmanager has not taken.
BEGIN
    WITH failing AS MATERIALIZED (
        SELECT n.notification_id, n.channel, n.rule_id, n.cluster, n.status, h.fallback_channel
        FROM pgops.notification AS n
        INNER JOIN pgops.notification_channel AS h ON h.channel = n.channel
        WHERE
            n.status <> 'sent'
            AND (NOT n.handed_over OR n.status = 'waiting')
            AND (n.status = 'dead' OR n.attempts >= h.fallback_after)
            AND NOT EXISTS (
                SELECT FROM pgops.notification_attempt AS t
                WHERE t.notification_id = n.notification_id AND t.outcome = 'sent'
            )
    ),

    handed_over AS (
        UPDATE pgops.notification AS n SET handed_over = TRUE
        FROM failing AS f
        WHERE n.notification_id = f.notification_id AND NOT n.handed_over
    ),

    untold AS (
        SELECT m.alert_id, f.fallback_channel
        FROM failing AS f
        INNER JOIN pgops.notification_alert AS m ON m.notification_id = f.notification_id
        UNION
        SELECT t.alert_id, f.fallback_channel
        FROM failing AS f
        INNER JOIN pgops.alert_notice AS t
            ON t.channel = f.channel AND t.rule_id = f.rule_id AND t.cluster = f.cluster
        WHERE f.status = 'waiting' AND NOT t.closed AND t.queued_at IS NULL AND t.muted_by IS NULL
        UNION
        SELECT t.alert_id, h.fallback_channel
        FROM pgops.alertmanager_state AS s
        INNER JOIN pgops.notification_channel AS h ON h.channel = s.channel
        INNER JOIN pgops.alert_notice AS t ON t.channel = s.channel
        WHERE s.failures >= h.fallback_after AND NOT t.closed AND t.delivered_at IS NULL AND t.muted_by IS NULL
    )

    INSERT INTO pgops.alert_notice (alert_id, channel, rule_id, cluster, seen_at)
    SELECT a.alert_id, h.channel, a.rule_id, a.cluster, p_at
    FROM untold AS u
    INNER JOIN pgops.notification_channel AS h ON h.channel = u.fallback_channel
    INNER JOIN pgops.alert AS a ON a.alert_id = u.alert_id
    ON CONFLICT (alert_id, channel) DO NOTHING;
END
$$;

REVOKE ALL ON FUNCTION pgops.hand_over_notifications(timestamp with time zone) FROM PUBLIC;
