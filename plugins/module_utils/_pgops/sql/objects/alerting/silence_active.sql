-- object: function pgops.silence_active(pgops.silence, timestamp with time zone)
CREATE OR REPLACE FUNCTION pgops.silence_active(p_silence pgops.silence, p_at timestamptz)
RETURNS boolean
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Whether a silence or maintenance window is in force at p_at. A window opens by the clock of its time zone, and stays
-- open for its duration by a clock that is never set: two hours are two hours in the night of a change as well. Where
-- the clock skips the start, it opens with the change; where it shows it twice, the second time.
    SELECT
        p_at >= p_silence.starts_at AND p_at < p_silence.ends_at
        AND (
            p_silence.weekdays IS NULL
            OR EXISTS (
                SELECT
                FROM (
                    SELECT (p_at AT TIME ZONE p_silence.time_zone)::date - b.days AS day
                    FROM generate_series(0, 8) AS b (days)
                ) AS d
                CROSS JOIN LATERAL (
                    SELECT (d.day + p_silence.start_time) AT TIME ZONE p_silence.time_zone AS opens_at
                ) AS o
                WHERE
                    extract(ISODOW FROM d.day)::integer = ANY (p_silence.weekdays)
                    AND (
                        p_silence.days_of_month IS NULL
                        OR extract(DAY FROM d.day)::integer = ANY (p_silence.days_of_month)
                    )
                    AND p_at >= o.opens_at AND p_at < o.opens_at + p_silence.duration
            )
        );
$$;

REVOKE ALL ON FUNCTION pgops.silence_active(pgops.silence, timestamp with time zone) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.silence_active(pgops.silence, timestamp with time zone)
TO pgops, pgops_reader, pgops_operator;
