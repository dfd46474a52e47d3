-- object: function pgops.claim_alertmanager(uuid, text, interval)
-- requires: alert_document
CREATE OR REPLACE FUNCTION pgops.claim_alertmanager(p_sender uuid, p_channel text, p_lease interval)
RETURNS jsonb
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- All that an Alertmanager is to be told now, which only this sender may do within p_lease: what fires and nothing mutes,
-- as often as it is asked for, and what has ended, until it was told. NULL if another sender does, or there is no such
-- channel.
DECLARE
    at timestamptz := clock_timestamp();
BEGIN
    INSERT INTO pgops.alertmanager_state AS s (channel, claimed_by, claimed_until)
    SELECT h.channel, p_sender, at + p_lease
    FROM pgops.notification_channel AS h
    WHERE h.channel = p_channel AND h.kind = 'alertmanager' AND h.is_enabled
    ON CONFLICT (channel) DO UPDATE SET claimed_by = excluded.claimed_by, claimed_until = excluded.claimed_until
    WHERE s.claimed_by = p_sender OR coalesce(s.claimed_until <= at, TRUE);
    IF NOT FOUND THEN
        RETURN NULL;
    END IF;
    RETURN (
        SELECT
            coalesce(
                jsonb_agg(
                    pgops.alert_document(a, CASE WHEN a.ended_at IS NULL THEN 'firing' ELSE 'resolved' END)
                    ORDER BY a.fired_at, a.alert_id
                ),
                '[]'
            )
        FROM pgops.alert_notice AS t
        INNER JOIN pgops.alert AS a ON a.alert_id = t.alert_id
        WHERE t.channel = p_channel AND NOT t.closed AND (t.muted_by IS NULL OR a.ended_at IS NOT NULL)
    );
END
$$;

REVOKE ALL ON FUNCTION pgops.claim_alertmanager(uuid, text, interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.claim_alertmanager(uuid, text, interval) TO pgops;
