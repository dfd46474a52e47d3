-- object: function pgops.claim_notifications(uuid, jsonb, interval, integer)
-- requires: attempt_pause, notification_document
CREATE OR REPLACE FUNCTION pgops.claim_notifications(
    p_sender uuid, p_targets jsonb, p_lease interval, p_each integer
)
RETURNS TABLE (attempt_id uuid, channel text, target text, marked boolean, document jsonb)
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Gives messages that are due to a sender, which alone may send them within p_lease: at most p_each of each channel in
-- p_targets, {"channel": ["target", ...]}, the names of its addresses. Returns the attempts that it has to make, noted
-- as begun: for those targets that have not accepted the message yet. marked: the target may have it all the same, since
-- an attempt ended in a way that does not tell, or its sender never said how it ended. What would have to wait for longer
-- than anything has to was written by a clock that was ahead, and does not.
#variable_conflict use_column
DECLARE
    at timestamptz := clock_timestamp();
BEGIN
    RETURN QUERY
    WITH due AS MATERIALIZED (
        SELECT n.notification_id
        FROM jsonb_each(p_targets) AS c (channel, targets)
        INNER JOIN pgops.notification_channel AS h ON h.channel = c.channel AND h.is_enabled AND h.kind = 'apprise'
        CROSS JOIN LATERAL (
            SELECT n.notification_id
            FROM pgops.notification AS n
            WHERE
                n.channel = c.channel AND n.status = 'waiting'
                AND (n.next_attempt_at <= at OR n.next_attempt_at > at + pgops.attempt_pause(n.attempts))
                AND coalesce(n.claimed_until <= at OR n.claimed_until > at + p_lease, TRUE)
            ORDER BY n.urgency DESC, n.next_attempt_at, n.notification_id
            LIMIT p_each
            FOR UPDATE SKIP LOCKED
        ) AS n
    ),

    claimed AS (
        UPDATE pgops.notification AS n
        SET
            claimed_by = p_sender, claimed_until = at + p_lease,
            -- Whoever had claimed it before has not said how it ended: that is a failure, too.
            attempts = n.attempts + (n.claimed_by IS NOT NULL)::integer,
            targets = ARRAY(SELECT t.target FROM jsonb_array_elements_text(p_targets -> n.channel) AS t (target))
        FROM due AS d
        WHERE n.notification_id = d.notification_id
        RETURNING n.*
    ),

    abandoned AS (
        UPDATE pgops.notification_attempt AS a
        SET outcome = 'ambiguous', ended_at = at, error = 'The sender ended before it could tell.'
        FROM claimed AS c
        WHERE a.notification_id = c.notification_id AND a.outcome IS NULL
    ),

    wanted AS MATERIALIZED (
        SELECT
            gen_random_uuid() AS attempt_id, c.notification_id, c.channel, t.target,
            EXISTS (
                SELECT FROM pgops.notification_attempt AS a
                WHERE
                    a.notification_id = c.notification_id AND a.target = t.target
                    AND coalesce(a.outcome, 'ambiguous') = 'ambiguous'
            ) AS marked
        FROM claimed AS c
        CROSS JOIN LATERAL unnest(c.targets) AS t (target)
        WHERE
            NOT EXISTS (
                SELECT FROM pgops.notification_attempt AS a
                WHERE a.notification_id = c.notification_id AND a.target = t.target AND a.outcome = 'sent'
            )
    ),

    begun AS (
        INSERT INTO pgops.notification_attempt (attempt_id, notification_id, target, sender, began_at, marked)
        SELECT w.attempt_id, w.notification_id, w.target, p_sender, at, w.marked FROM wanted AS w
    )

    SELECT w.attempt_id, w.channel, w.target, w.marked, pgops.notification_document(n)
    FROM wanted AS w
    INNER JOIN pgops.notification AS n ON n.notification_id = w.notification_id
    ORDER BY n.urgency DESC, n.queued_at, n.notification_id, w.target;
END
$$;

REVOKE ALL ON FUNCTION pgops.claim_notifications(uuid, jsonb, interval, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.claim_notifications(uuid, jsonb, interval, integer) TO pgops;
