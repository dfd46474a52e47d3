-- object: function pgops.check_request(text, timestamp with time zone, timestamp with time zone, interval)
CREATE OR REPLACE FUNCTION pgops.check_request(
    p_metric text, p_from timestamptz, p_to timestamptz, p_step interval
)
RETURNS text
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Refuses an unknown metric, an empty time and impossible steps; returns the metric's kind. The names suggested for an
-- unknown one have the most trigrams in common with it.
DECLARE
    found_kind text := (SELECT m.kind FROM pgops.metric AS m WHERE m.metric_name = p_metric);
    near_names text;
BEGIN
    IF found_kind IS NULL THEN
        SELECT string_agg(c.metric_name, ', ' ORDER BY c.likeness DESC, c.metric_name) INTO near_names
        FROM (
            SELECT m.metric_name, 2.0 * count(*) / (length(m.metric_name) + length(p_metric) + 2) AS likeness
            FROM pgops.metric AS m
            CROSS JOIN LATERAL (
                SELECT substr('  ' || m.metric_name || ' ', g.place, 3)
                FROM generate_series(1, length(m.metric_name) + 1) AS g (place)
                INTERSECT
                SELECT substr('  ' || lower(p_metric) || ' ', g.place, 3)
                FROM generate_series(1, least(length(p_metric), 100) + 1) AS g (place)
            ) AS common
            GROUP BY m.metric_name
            ORDER BY likeness DESC, m.metric_name
            LIMIT 3
        ) AS c
        WHERE c.likeness >= 0.4;
        RAISE EXCEPTION 'metric % was never collected', coalesce(quote_literal(p_metric), 'NULL')
            USING ERRCODE = 'invalid_parameter_value',
                HINT = coalesce('Similar names: ' || near_names || '. ', '')
                    || 'SELECT metric_name, kind FROM pgops.metrics lists them.';
    END IF;
    IF p_from IS NULL OR p_to IS NULL OR p_from >= p_to THEN
        RAISE EXCEPTION 'the time from % to % is empty', coalesce(p_from::text, 'NULL'), coalesce(p_to::text, 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'The first time must be the earlier one.';
    END IF;
    IF p_step <= interval '0' THEN
        RAISE EXCEPTION 'a step must be longer than 0, not %', p_step USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF extract(year FROM p_step) <> 0 OR extract(month FROM p_step) <> 0 THEN
        RAISE EXCEPTION 'a step of % has no fixed length', p_step
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use days, hours or less.';
    END IF;
    IF p_step IS NOT NULL AND NOT isfinite(p_from) THEN
        RAISE EXCEPTION 'steps cannot start at %', p_from
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Set a start time, or omit the step.';
    END IF;
    RETURN found_kind;
END
$$;

REVOKE ALL ON FUNCTION pgops.check_request(
    text, timestamp with time zone, timestamp with time zone, interval
) FROM PUBLIC;
