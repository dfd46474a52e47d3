-- object: function pgops.queue_notifications_at(timestamp with time zone)
-- requires: note_alerts, hand_over_notifications
CREATE OR REPLACE FUNCTION pgops.queue_notifications_at(p_at timestamptz)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_nestloop = off
SET plan_cache_mode = force_custom_plan
AS $$
-- Writes the messages that are due at p_at into the outbox; returns how many. There is one for each channel, rule and
-- cluster: what has begun to fire and nothing mutes, what has ended of what was told, whether it is muted now or not,
-- and what still fires. While one waits to be sent, or another was written less than the channel's group_interval ago,
-- all that happens waits for the next; so messages are no more than rules, however many series fire. Without anything
-- new, what still fires and nobody has acknowledged is told again after the repeat_interval.
DECLARE
    queued integer;
    noticed uuid[];
BEGIN
    BEGIN
        LOCK TABLE pgops.notification_group IN SHARE ROW EXCLUSIVE MODE;
    EXCEPTION WHEN lock_not_available THEN
        RETURN 0;  -- another sender does this just now
    END;
    PERFORM pgops.note_alerts(p_at);
    PERFORM pgops.hand_over_notifications(p_at);

    SELECT coalesce(array_agg(DISTINCT t.alert_id), '{}') INTO noticed
    FROM pgops.alert_notice AS t WHERE NOT t.closed;

    WITH happened AS MATERIALIZED (
        SELECT
            t.alert_id, t.channel, t.rule_id, t.cluster, h.group_interval, h.repeat_interval,
            array_position(ARRAY['info', 'warning', 'critical'], a.severity_level) AS urgency,
            CASE
                WHEN a.ended_at IS NULL AND t.muted_by IS NOT NULL THEN NULL
                WHEN a.ended_at IS NULL AND t.queued_at IS NULL THEN 'firing'
                WHEN a.ended_at IS NULL AND a.acknowledged_at IS NULL THEN 'repeated'
                WHEN a.ended_at IS NULL THEN NULL
                WHEN t.queued_at IS NULL AND t.muted_by IS NULL THEN 'passed'
                WHEN t.queued_at IS NOT NULL AND h.send_resolved THEN 'resolved'
            END AS event
        FROM pgops.alert_notice AS t
        INNER JOIN pgops.alert AS a ON a.alert_id = t.alert_id AND a.alert_id = ANY (noticed)
        INNER JOIN pgops.notification_channel AS h ON h.channel = t.channel
        WHERE NOT t.closed AND h.kind = 'apprise' AND h.is_enabled
    ),

    due AS MATERIALIZED (
        SELECT g.*, gen_random_uuid() AS notification_id
        FROM (
            SELECT
                p.channel, p.rule_id, p.cluster, max(p.urgency) AS urgency,
                count(*) FILTER (WHERE p.event = 'repeated') AS still_firing
            FROM happened AS p
            LEFT JOIN pgops.notification_group AS g
                ON g.channel = p.channel AND g.rule_id = p.rule_id AND g.cluster = p.cluster
                -- What was written by a clock that was ahead is not waited for.
                AND g.queued_at <= p_at
            LEFT JOIN pgops.notification AS n
                ON n.channel = p.channel AND n.rule_id = p.rule_id AND n.cluster = p.cluster AND n.status = 'waiting'
            WHERE p.event IS NOT NULL AND n.notification_id IS NULL
            GROUP BY p.channel, p.rule_id, p.cluster
            HAVING
                bool_or(
                    p_at >= g.queued_at + CASE p.event WHEN 'repeated' THEN p.repeat_interval ELSE p.group_interval END
                    OR g.queued_at IS NULL
                )
        ) AS g
    ),

    written AS (
        INSERT INTO pgops.notification (
            notification_id, channel, rule_id, cluster, urgency, still_firing, queued_at, next_attempt_at
        )
        SELECT d.notification_id, d.channel, d.rule_id, d.cluster, d.urgency, d.still_firing, p_at, p_at FROM due AS d
        RETURNING notification_id
    ),

    said AS (
        INSERT INTO pgops.notification_alert (notification_id, alert_id, event)
        SELECT s.notification_id, s.alert_id, s.event
        FROM (
            SELECT
                d.notification_id, p.alert_id, p.event,
                row_number() OVER (PARTITION BY d.notification_id, p.event ORDER BY p.alert_id) AS place
            FROM due AS d
            INNER JOIN happened AS p ON p.channel = d.channel AND p.rule_id = d.rule_id AND p.cluster = d.cluster
            WHERE p.event IS NOT NULL
        ) AS s
        -- All that is shown: what goes on for long would fill the table.
        WHERE s.event <> 'repeated' OR s.place <= 20
        RETURNING notification_id, alert_id, event
    ),

    noted AS (
        UPDATE pgops.alert_notice AS t
        SET queued_at = coalesce(t.queued_at, p_at), closed = s.event IN ('resolved', 'passed')
        FROM said AS s
        INNER JOIN due AS d ON d.notification_id = s.notification_id
        WHERE t.alert_id = s.alert_id AND t.channel = d.channel
    ),

    grouped AS (
        INSERT INTO pgops.notification_group AS g (channel, rule_id, cluster, queued_at)
        SELECT d.channel, d.rule_id, d.cluster, p_at FROM due AS d
        ON CONFLICT (channel, rule_id, cluster) DO UPDATE SET queued_at = excluded.queued_at
    )

    SELECT count(*) INTO queued FROM written;

    -- Nobody will be told that they ended.
    UPDATE pgops.alert_notice AS t
    SET closed = TRUE
    FROM pgops.alert AS a
    WHERE
        NOT t.closed AND a.alert_id = t.alert_id AND a.alert_id = ANY (noticed) AND a.ended_at IS NOT NULL
        AND (
            (t.queued_at IS NULL AND t.delivered_at IS NULL AND t.muted_by IS NOT NULL)
            OR NOT EXISTS (
                SELECT FROM pgops.notification_channel AS h
                WHERE h.channel = t.channel AND h.is_enabled AND (h.send_resolved OR t.queued_at IS NULL)
            )
        );
    UPDATE pgops.notification AS n
    SET status = 'dead', ended_at = p_at, handed_over = TRUE
    WHERE
        n.status = 'waiting'
        AND NOT EXISTS (SELECT FROM pgops.notification_channel AS h WHERE h.channel = n.channel);

    -- All that is left of it are senders which died.
    UPDATE pgops.notification AS n
    SET status = 'dead', ended_at = p_at
    FROM pgops.notification_channel AS h
    WHERE
        h.channel = n.channel AND n.status = 'waiting' AND n.attempts >= h.attempts
        AND n.claimed_until < clock_timestamp();
    RETURN queued;
END
$$;

REVOKE ALL ON FUNCTION pgops.queue_notifications_at(timestamp with time zone) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.queue_notifications_at(timestamp with time zone) TO pgops;
