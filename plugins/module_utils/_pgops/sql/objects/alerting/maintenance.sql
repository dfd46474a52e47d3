-- object: function pgops.maintenance(jsonb, integer[], time without time zone, interval, text, text, integer[])
CREATE OR REPLACE FUNCTION pgops.maintenance(
    p_labels jsonb,
    p_weekdays integer[],
    p_start_time time,
    p_duration interval,
    p_time_zone text,
    p_comment text,
    p_days_of_month integer[] DEFAULT NULL
)
RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Nobody is told of alerts with all of these labels in a window that opens on each of these days of the week (1 for
-- Monday), at p_start_time in the time zone; with days of the month, only where the day is one of these as well: Sunday
-- and 1 to 7 make the first Sunday of each month. Returns its silence_id; end_silence() ends it.
DECLARE
    silence uuid;
BEGIN
    IF (SELECT count(*) >= 200 FROM pgops.silence AS s WHERE s.source = 'user' AND s.ends_at > now()) THEN
        RAISE EXCEPTION 'there are 200 silences already'
            USING ERRCODE = 'program_limit_exceeded', HINT = 'pgops.silences lists them; end those that nobody needs.';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_timezone_names AS z WHERE z.name = p_time_zone) THEN
        RAISE EXCEPTION 'there is no time zone %', quote_nullable(p_time_zone)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'pg_timezone_names lists them.';
    END IF;
    INSERT INTO pgops.silence AS s (
        kind, labels, ends_at, weekdays, days_of_month, start_time, duration, time_zone, comment, created_by
    )
    VALUES (
        'maintenance', p_labels, 'infinity', p_weekdays, p_days_of_month, p_start_time, p_duration, p_time_zone,
        p_comment, session_user
    )
    RETURNING s.silence_id INTO silence;
    RETURN silence;
END
$$;

REVOKE ALL ON FUNCTION pgops.maintenance(
    jsonb, integer[], time without time zone, interval, text, text, integer[]
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.maintenance(
    jsonb, integer[], time without time zone, interval, text, text, integer[]
) TO pgops_operator;
