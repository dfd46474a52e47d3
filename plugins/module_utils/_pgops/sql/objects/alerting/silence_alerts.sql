-- object: function pgops.silence_alerts(jsonb, interval, text, timestamp with time zone)
CREATE OR REPLACE FUNCTION pgops.silence_alerts(
    p_labels jsonb, p_for interval, p_comment text, p_from timestamptz DEFAULT pg_catalog.now()
)
RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Nobody is told of alerts with all of these labels for some time; returns the silence's silence_id. Labels are those of
-- the series, and rule_name, severity, metric, cluster and node.
DECLARE
    silence uuid;
BEGIN
    IF (SELECT count(*) >= 200 FROM pgops.silence AS s WHERE s.source = 'user' AND s.ends_at > now()) THEN
        RAISE EXCEPTION 'there are 200 silences already'
            USING ERRCODE = 'program_limit_exceeded', HINT = 'pgops.silences lists them; end those that nobody needs.';
    END IF;
    INSERT INTO pgops.silence AS s (kind, labels, starts_at, ends_at, comment, created_by)
    VALUES ('silence', p_labels, p_from, p_from + p_for, p_comment, session_user)
    RETURNING s.silence_id INTO silence;
    RETURN silence;
END
$$;

REVOKE ALL ON FUNCTION pgops.silence_alerts(jsonb, interval, text, timestamp with time zone) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.silence_alerts(jsonb, interval, text, timestamp with time zone) TO pgops_operator;
