-- object: function pgops.end_silence(uuid)
CREATE OR REPLACE FUNCTION pgops.end_silence(p_silence_id uuid)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Ends a silence or maintenance window for good; returns whether there was one. Those of the inventory are ended there.
DECLARE
    silence pgops.silence;
BEGIN
    SELECT s.* INTO silence FROM pgops.silence AS s
    WHERE s.silence_id = p_silence_id AND s.ends_at > now() FOR UPDATE;
    IF NOT FOUND THEN
        RETURN FALSE;
    END IF;
    IF silence.source = 'inventory' THEN
        RAISE EXCEPTION 'this maintenance window belongs to the inventory'
            USING ERRCODE = 'insufficient_privilege', HINT = 'Remove it there and run site.yml.';
    END IF;
    IF silence.starts_at >= now() THEN
        DELETE FROM pgops.silence AS s WHERE s.silence_id = p_silence_id;
    ELSE
        UPDATE pgops.silence AS s SET ends_at = now() WHERE s.silence_id = p_silence_id;
    END IF;
    RETURN TRUE;
END
$$;

REVOKE ALL ON FUNCTION pgops.end_silence(uuid) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.end_silence(uuid) TO pgops_operator;
