-- object: function pgops.silences_ahead(interval)
CREATE OR REPLACE FUNCTION pgops.silences_ahead(p_for interval)
RETURNS TABLE (labels jsonb, begins_at timestamptz, ends_at timestamptz)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- The times within p_for from now in which silences and maintenance windows are in force, each opening of a recurring
-- window by itself; not those that `pgops watch` has asked for.
    SELECT s.labels, s.starts_at, s.ends_at
    FROM pgops.silence AS s
    WHERE
        s.weekdays IS NULL AND s.ends_at > now() AND s.starts_at < now() + p_for AND s.created_by <> 'pgops watch'
    UNION ALL
    SELECT s.labels, greatest(o.opens_at, s.starts_at), least(o.opens_at + s.duration, s.ends_at)
    FROM pgops.silence AS s
    CROSS JOIN LATERAL (
        SELECT ((now() AT TIME ZONE s.time_zone)::date + d.days) AS day
        FROM generate_series(-8, least(extract(DAY FROM p_for)::integer, 31) + 1) AS d (days)
    ) AS d
    CROSS JOIN LATERAL (SELECT (d.day + s.start_time) AT TIME ZONE s.time_zone AS opens_at) AS o
    WHERE
        s.weekdays IS NOT NULL
        AND extract(ISODOW FROM d.day)::integer = ANY (s.weekdays)
        AND (s.days_of_month IS NULL OR extract(DAY FROM d.day)::integer = ANY (s.days_of_month))
        AND o.opens_at < now() + p_for AND least(o.opens_at + s.duration, s.ends_at) > now()
        AND greatest(o.opens_at, s.starts_at) < least(o.opens_at + s.duration, s.ends_at);
$$;

REVOKE ALL ON FUNCTION pgops.silences_ahead(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.silences_ahead(interval) TO pgops;
