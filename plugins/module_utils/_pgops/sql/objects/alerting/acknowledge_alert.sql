-- object: function pgops.acknowledge_alert(uuid, text)
-- requires: acknowledge_alert_as
CREATE OR REPLACE FUNCTION pgops.acknowledge_alert(p_alert_id uuid, p_note text DEFAULT NULL)
RETURNS boolean
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Notes that the caller looks after an alert, until it has ended; false if somebody did before.
    SELECT pgops.acknowledge_alert_as(p_alert_id, session_user::text, p_note);
$$;

REVOKE ALL ON FUNCTION pgops.acknowledge_alert(uuid, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.acknowledge_alert(uuid, text) TO pgops_operator;
