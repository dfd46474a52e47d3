-- object: function pgops.alert_status(pgops.alert_progress)
CREATE OR REPLACE FUNCTION pgops.alert_status(p_progress pgops.alert_progress)
RETURNS text
LANGUAGE sql
IMMUTABLE
AS $$
-- The state as people are told: data that is missing is a state of its own.
    SELECT
        CASE
            WHEN p_progress.state <> 'inactive' AND p_progress.missing_since IS NOT NULL THEN 'missing'
            ELSE p_progress.state
        END;
$$;

REVOKE ALL ON FUNCTION pgops.alert_status(pgops.alert_progress) FROM PUBLIC;
