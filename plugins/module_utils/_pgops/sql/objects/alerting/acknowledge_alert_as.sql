-- object: function pgops.acknowledge_alert_as(uuid, text, text)
CREATE OR REPLACE FUNCTION pgops.acknowledge_alert_as(p_alert_id uuid, p_by text, p_note text DEFAULT NULL)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Notes that somebody looks after an alert, until it has ended; false if somebody did before, who stays. For the agent's
-- command, which tells whose terminal it was.
DECLARE
    known pgops.alert;
BEGIN
    SELECT a.* INTO known FROM pgops.alert AS a WHERE a.alert_id = p_alert_id FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no alert %', p_alert_id
            USING ERRCODE = 'no_data_found', HINT = 'pgops.alert_history has all of them.';
    END IF;
    IF known.fired_at IS NULL OR known.ended_at IS NOT NULL THEN
        RAISE EXCEPTION 'the alert % is %', p_alert_id, known.status
            USING ERRCODE = 'object_not_in_prerequisite_state', HINT = 'Only an alert that fires can be acknowledged.';
    END IF;
    IF known.acknowledged_at IS NOT NULL THEN
        RETURN FALSE;
    END IF;
    UPDATE pgops.alert AS a
    SET acknowledged_at = now(), acknowledged_by = left(p_by, 100), acknowledgement = left(p_note, 1000)
    WHERE a.alert_id = p_alert_id;
    RETURN TRUE;
END
$$;

REVOKE ALL ON FUNCTION pgops.acknowledge_alert_as(uuid, text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.acknowledge_alert_as(uuid, text, text) TO pgops;
