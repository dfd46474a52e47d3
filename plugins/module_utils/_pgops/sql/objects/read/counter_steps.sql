-- object: function pgops.counter_steps(text, timestamp with time zone, timestamp with time zone, integer)
-- requires: sample_steps, hours_gone
CREATE OR REPLACE FUNCTION pgops.counter_steps(
    p_metric text, p_from timestamptz, p_to timestamptz, p_node_id integer DEFAULT NULL
)
RETURNS TABLE (
    series_id integer,
    shape_id integer,
    started_at timestamptz,
    ended_at timestamptz,
    increase double precision
)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- The rows of sample_steps, and for hours whose samples are gone one step each, as long as the time measured in it.
    SELECT t.series_id, t.shape_id, t.started_at, t.ended_at, t.increase
    FROM pgops.sample_steps(p_metric, p_from, p_to, p_node_id) AS t
    INNER JOIN pgops.shape AS h ON h.shape_id = t.shape_id
    INNER JOIN pgops.round_class AS c ON c.keep_days = h.keep_days
    WHERE t.ended_at >= (c.gone_before + interval '1 hour') AT TIME ZONE 'UTC'
    UNION ALL
    SELECT
        o.series_id,
        o.shape_id,
        o.ended_at - make_interval(secs => o.weight),
        o.ended_at,
        o.average * o.weight
    FROM pgops.hours_gone(p_metric, p_from, p_to) AS o
    WHERE o.kind = 'counter' AND o.weight > 0 AND (p_node_id IS NULL OR o.node_id = p_node_id);
$$;

REVOKE ALL ON FUNCTION pgops.counter_steps(
    text, timestamp with time zone, timestamp with time zone, integer
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.counter_steps(
    text, timestamp with time zone, timestamp with time zone, integer
) TO pgops, pgops_reader;
