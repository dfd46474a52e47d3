-- object: function pgops.metric_values(text, timestamp with time zone, timestamp with time zone, interval)
-- requires: hours_gone, check_request
CREATE OR REPLACE FUNCTION pgops.metric_values(
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
    samples bigint,
    minimum double precision,
    average double precision,
    maximum double precision,
    last double precision
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- The values of a metric as collected, by its labels: over the whole time, or in steps of it. started_at and ended_at are those of
-- the first and the last sample. If the samples are gone, whole hours take their place; for a counter, its value at
-- the end of each.
BEGIN
    PERFORM pgops.check_request(p_metric, p_from, p_to, p_step);
    RETURN QUERY
    WITH sampled AS (
        SELECT
            p.series_id, r.collected_at AS first_at, r.collected_at AS last_at, 1::double precision AS weight,
            r.sample_values[p.place] AS low, r.sample_values[p.place] AS middle, r.sample_values[p.place] AS high,
            r.sample_values[p.place] AS newest
        FROM pgops.metric AS m
        INNER JOIN pgops.series AS s ON s.metric_id = m.metric_id
        INNER JOIN pgops.shape_series AS p ON p.series_id = s.series_id
        INNER JOIN pgops.shape AS h ON h.shape_id = p.shape_id
        INNER JOIN pgops.round_class AS c ON c.keep_days = h.keep_days
        INNER JOIN pgops.round AS r ON r.shape_id = p.shape_id
        WHERE
            m.metric_name = p_metric
            AND r.collected_at >= c.gone_before::timestamp AT TIME ZONE 'UTC'
            AND r.collected_at > p_from
            AND r.collected_at <= p_to
            AND r.sample_values[p.place] IS NOT NULL
        UNION ALL
        SELECT
            g.series_id, g.started_at, g.ended_at, CASE g.kind WHEN 'counter' THEN 1 ELSE g.weight END,
            CASE g.kind WHEN 'counter' THEN g.last ELSE g.minimum END,
            CASE g.kind WHEN 'counter' THEN g.last ELSE g.average END,
            CASE g.kind WHEN 'counter' THEN g.last ELSE g.maximum END,
            g.last
        FROM pgops.hours_gone(p_metric, p_from, p_to) AS g
    )

    SELECT
        n.cluster, n.node, nullif(s.database_name, ''), nullif(s.schema_name, ''), nullif(s.table_name, ''),
        nullif(s.index_name, ''), s.other, min(v.first_at), max(v.last_at), sum(v.weight)::bigint,
        min(v.low), sum(v.middle * v.weight) / sum(v.weight), max(v.high),
        (array_agg(v.newest ORDER BY v.last_at DESC))[1]
    FROM sampled AS v
    INNER JOIN pgops.series AS s ON s.series_id = v.series_id
    INNER JOIN pgops.node AS n ON n.node_id = s.node_id
    GROUP BY
        n.node_id, s.database_name, s.schema_name, s.table_name, s.index_name, s.other,
        CASE WHEN p_step IS NOT NULL THEN date_bin(p_step, v.last_at - interval '1 microsecond', p_from) END
    ORDER BY 1, 2, 3, 4, 5, 6, 7, 8;
END
$$;

REVOKE ALL ON FUNCTION pgops.metric_values(
    text, timestamp with time zone, timestamp with time zone, interval
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.metric_values(
    text, timestamp with time zone, timestamp with time zone, interval
) TO pgops, pgops_reader;
