-- object: function pgops.note_alertmanager(uuid, text, uuid[], uuid[], text)
CREATE OR REPLACE FUNCTION pgops.note_alertmanager(
    p_sender uuid, p_channel text, p_firing uuid[], p_resolved uuid[], p_error text
)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Notes that an Alertmanager was told that these alerts fire and those have ended, or why it was not: then there are none.
DECLARE
    at timestamptz := clock_timestamp();
BEGIN
    UPDATE pgops.alertmanager_state AS s
    SET
        failures = CASE WHEN p_error IS NULL THEN 0 ELSE s.failures + 1 END,
        told_at = CASE WHEN p_error IS NULL THEN at ELSE s.told_at END,
        error = left(p_error, 1000), claimed_by = NULL, claimed_until = NULL
    WHERE s.channel = p_channel AND s.claimed_by = p_sender;

    UPDATE pgops.alert_notice AS t
    SET
        queued_at = coalesce(t.queued_at, at),
        delivered_at = coalesce(t.delivered_at, at),
        resolved_delivered_at = CASE WHEN t.alert_id = ANY (p_resolved) THEN at END,
        closed = t.alert_id = ANY (p_resolved)
    WHERE
        t.channel = p_channel AND NOT t.closed
        AND (
            t.alert_id = ANY (p_resolved)
            OR (t.alert_id = ANY (p_firing) AND t.delivered_at IS NULL)
        );
END
$$;

REVOKE ALL ON FUNCTION pgops.note_alertmanager(uuid, text, uuid[], uuid[], text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.note_alertmanager(uuid, text, uuid[], uuid[], text) TO pgops;
