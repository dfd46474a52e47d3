-- object: function pgops.attempt_pause(integer)
CREATE OR REPLACE FUNCTION pgops.attempt_pause(p_attempts integer)
RETURNS interval
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- For how long a message waits after so many attempts have failed: half a minute, each time twice as long, up to an hour.
    SELECT CASE
        WHEN p_attempts = 0 THEN interval '0'
        ELSE least(interval '30 seconds' * 2 ^ (least(p_attempts, 8) - 1), interval '1 hour')
    END;
$$;

REVOKE ALL ON FUNCTION pgops.attempt_pause(integer) FROM PUBLIC;
