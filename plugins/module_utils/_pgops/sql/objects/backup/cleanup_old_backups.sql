-- object: function pgops.cleanup_old_backups()
-- requires: check_backup_request
CREATE OR REPLACE FUNCTION pgops.cleanup_old_backups()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Asks the agent to remove what the configured retention does not keep; returns how many backups that were when the
-- repository was last looked at. What is removed is decided from the repository, once the agent does it.
DECLARE
    known pgops.expiry;
BEGIN
    PERFORM pgops.check_backup_request();
    UPDATE pgops.expiry AS e
    SET requested_at = clock_timestamp(), requested_by = session_user
    WHERE e.requested_at IS NULL OR e.requested_at < e.started_at;
    SELECT e.* INTO STRICT known FROM pgops.expiry AS e;
    IF known.forecast_at IS NULL THEN
        RAISE WARNING 'how many backups it will remove is not known yet'
            USING HINT = 'The job "requests" finds out. Is it scheduled?';
    END IF;
    RETURN coalesce(known.releasable, 0);
END
$$;

REVOKE ALL ON FUNCTION pgops.cleanup_old_backups() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.cleanup_old_backups() TO pgops_operator;
