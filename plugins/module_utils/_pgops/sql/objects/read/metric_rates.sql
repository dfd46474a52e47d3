-- object: function pgops.metric_rates(text, timestamp with time zone, timestamp with time zone, interval)
-- requires: check_request, counter_steps
CREATE OR REPLACE FUNCTION pgops.metric_rates(
    p_metric text,
    p_from timestamptz DEFAULT now() - interval '1 hour',
    p_to timestamptz DEFAULT now(),
    p_step interval DEFAULT NULL
)
RETURNS TABLE (
    cluster text,
    node text,
    database_name text,
    schema_name text,
    table_name text,
    index_name text,
    additional_info jsonb,
    started_at timestamptz,
    ended_at timestamptz,
    increase double precision,
    rate double precision
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- How fast a counter grew, per second, by its labels: over the whole time, or in steps of it. Resets, restarts and failovers are
-- taken into account; what was counted between the last sample before one and the event itself is not known.
BEGIN
    IF pgops.check_request(p_metric, p_from, p_to, p_step) <> 'counter' THEN
        RAISE EXCEPTION '% is a gauge, which has no rate', p_metric
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use metric_values() for gauges.';
    END IF;
    RETURN QUERY
    SELECT
        n.cluster, n.node, nullif(g.database_name, ''), nullif(g.schema_name, ''), nullif(g.table_name, ''),
        nullif(g.index_name, ''), g.other, g.first_at, g.last_at, g.total,
        g.total / nullif(extract(epoch FROM g.last_at - g.first_at), 0)::double precision
    FROM (
        SELECT
            s.node_id, s.database_name, s.schema_name, s.table_name, s.index_name, s.other,
            min(c.started_at) AS first_at, max(c.ended_at) AS last_at, sum(c.increase) AS total
        FROM pgops.counter_steps(p_metric, p_from, p_to) AS c
        INNER JOIN pgops.series AS s ON s.series_id = c.series_id
        GROUP BY
            s.node_id, s.database_name, s.schema_name, s.table_name, s.index_name, s.other,
            CASE WHEN p_step IS NOT NULL THEN date_bin(p_step, c.ended_at - interval '1 microsecond', p_from) END
    ) AS g
    INNER JOIN pgops.node AS n ON n.node_id = g.node_id
    ORDER BY 1, 2, 3, 4, 5, 6, 7, 8;
END
$$;

REVOKE ALL ON FUNCTION pgops.metric_rates(
    text, timestamp with time zone, timestamp with time zone, interval
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.metric_rates(
    text, timestamp with time zone, timestamp with time zone, interval
) TO pgops, pgops_reader;
