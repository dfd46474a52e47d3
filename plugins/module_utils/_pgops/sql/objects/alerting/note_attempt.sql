-- object: function pgops.note_attempt(uuid, text, text)
-- requires: attempt_pause
CREATE OR REPLACE FUNCTION pgops.note_attempt(p_attempt_id uuid, p_outcome text, p_error text)
RETURNS text
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Notes how an attempt ended, and with the last one of its message what becomes of this: sent, once all targets have
-- accepted it; else it waits for the next attempt (attempt_pause), or is dead.
-- Returns its status.
DECLARE
    at timestamptz := clock_timestamp();
    message pgops.notification;
    channel pgops.notification_channel;
BEGIN
    SELECT n.* INTO message
    FROM pgops.notification_attempt AS a
    INNER JOIN pgops.notification AS n ON n.notification_id = a.notification_id
    WHERE a.attempt_id = p_attempt_id
    FOR UPDATE OF n;
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    -- A sender that was taken for dead may still say how it ended.
    UPDATE pgops.notification_attempt AS a
    SET outcome = p_outcome, ended_at = at, error = left(p_error, 1000)
    WHERE a.attempt_id = p_attempt_id AND coalesce(a.outcome, 'ambiguous') = 'ambiguous';
    IF p_outcome = 'sent' THEN
        UPDATE pgops.alert_notice AS t
        SET
            delivered_at = CASE
                WHEN m.event = 'resolved' THEN t.delivered_at ELSE coalesce(t.delivered_at, at)
            END,
            resolved_delivered_at = CASE
                WHEN m.event IN ('resolved', 'passed') THEN coalesce(t.resolved_delivered_at, at)
                ELSE t.resolved_delivered_at
            END
        FROM pgops.notification_alert AS m
        WHERE
            m.notification_id = message.notification_id AND t.alert_id = m.alert_id AND t.channel = message.channel;
    END IF;
    IF message.status <> 'waiting' OR EXISTS (
        SELECT FROM pgops.notification_attempt AS a
        WHERE a.notification_id = message.notification_id AND a.outcome IS NULL
    ) THEN
        RETURN message.status;
    END IF;

    IF NOT EXISTS (
        SELECT FROM unnest(message.targets) AS t (target)
        WHERE NOT EXISTS (
            SELECT FROM pgops.notification_attempt AS a
            WHERE a.notification_id = message.notification_id AND a.target = t.target AND a.outcome = 'sent'
        )
    ) THEN
        message.status := 'sent';
    ELSE
        SELECT h.* INTO channel FROM pgops.notification_channel AS h WHERE h.channel = message.channel;
        message.attempts := message.attempts + 1;
        message.next_attempt_at := at + pgops.attempt_pause(message.attempts);
        IF message.attempts >= coalesce(channel.attempts, 0) THEN
            message.status := 'dead';
        END IF;
    END IF;
    UPDATE pgops.notification AS n
    SET
        status = message.status, attempts = message.attempts, next_attempt_at = message.next_attempt_at,
        claimed_by = NULL, claimed_until = NULL,
        -- Where a target has accepted it, the channel has been told.
        handed_over = n.handed_over OR message.status = 'sent' OR EXISTS (
            SELECT FROM pgops.notification_attempt AS a
            WHERE a.notification_id = message.notification_id AND a.outcome = 'sent'
        ),
        ended_at = CASE WHEN message.status <> 'waiting' THEN at END
    WHERE n.notification_id = message.notification_id;
    RETURN message.status;
END
$$;

REVOKE ALL ON FUNCTION pgops.note_attempt(uuid, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.note_attempt(uuid, text, text) TO pgops;
