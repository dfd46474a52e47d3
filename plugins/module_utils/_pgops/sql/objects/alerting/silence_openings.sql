-- object: function pgops.silence_openings(pgops.silence, timestamp with time zone, timestamp with time zone)
CREATE OR REPLACE FUNCTION pgops.silence_openings(p_silence pgops.silence, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (opens_at timestamptz, closes_at timestamptz)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- When a silence or maintenance window opens and closes, each time that overlaps p_from to p_to; by the rules of
-- silence_active().
    SELECT w.opens_at, w.closes_at
    FROM (
        SELECT p_silence.starts_at, p_silence.ends_at WHERE p_silence.weekdays IS NULL
        UNION ALL
        SELECT
            greatest(o.opens_at, p_silence.starts_at), least(o.opens_at + p_silence.duration, p_silence.ends_at)
        FROM generate_series(
            (p_from AT TIME ZONE p_silence.time_zone)::date - 8, (p_to AT TIME ZONE p_silence.time_zone)::date,
            interval '1 day'
        ) AS d (day)
        CROSS JOIN LATERAL (
            SELECT (d.day::date + p_silence.start_time) AT TIME ZONE p_silence.time_zone AS opens_at
        ) AS o
        WHERE
            extract(ISODOW FROM d.day)::integer = ANY (p_silence.weekdays)
            AND (
                p_silence.days_of_month IS NULL
                OR extract(DAY FROM d.day)::integer = ANY (p_silence.days_of_month)
            )
    ) AS w (opens_at, closes_at)
    WHERE w.opens_at < w.closes_at AND w.opens_at <= p_to AND w.closes_at >= p_from;
$$;

REVOKE ALL ON FUNCTION pgops.silence_openings(
    pgops.silence, timestamp with time zone, timestamp with time zone
) FROM PUBLIC;
