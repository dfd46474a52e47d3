-- object: function pgops.forget_alerts()
CREATE OR REPLACE FUNCTION pgops.forget_alerts()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Deletes the alerts that ended before the time for which they are kept, with their transitions, and after a week those
-- that never fired; returns how many. An alert that goes on stays.
DECLARE
    deleted integer;
    kept constant interval := make_interval(days => coalesce(
        (SELECT s.value::integer FROM pgops.setting AS s WHERE s.name = 'alert_retention_days'), 400
    ));
BEGIN
    DELETE FROM pgops.alert AS a
    WHERE
        a.ended_at < now() - kept
        OR (a.fired_at IS NULL AND a.ended_at < now() - least(kept, interval '7 days'));
    GET DIAGNOSTICS deleted = ROW_COUNT;
    RETURN deleted;
END
$$;

REVOKE ALL ON FUNCTION pgops.forget_alerts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.forget_alerts() TO pgops;
