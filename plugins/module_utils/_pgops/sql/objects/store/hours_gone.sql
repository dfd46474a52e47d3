-- object: function pgops.hours_gone(text, timestamp with time zone, timestamp with time zone)
CREATE OR REPLACE FUNCTION pgops.hours_gone(p_metric text, p_from timestamptz, p_to timestamptz)
RETURNS TABLE (
    node_id integer,
    series_id integer,
    shape_id integer,
    kind text,
    started_at timestamptz,
    ended_at timestamptz,
    minimum double precision,
    average double precision,
    maximum double precision,
    last double precision,
    weight double precision
)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- The rollups of a metric (NULL: of all) for the hours whose samples are gone, and that end after p_from and not after
-- p_to. A counter's first increase of the next hour started before it.
    SELECT
        s.node_id,
        s.series_id,
        u.shape_id,
        m.kind,
        u.started_at,
        u.started_at + interval '1 hour',
        max(u.sample_values[p.place]) FILTER (WHERE u.statistic = 'minimum'),
        max(u.sample_values[p.place]) FILTER (WHERE u.statistic = 'average'),
        max(u.sample_values[p.place]) FILTER (WHERE u.statistic = 'maximum'),
        max(u.sample_values[p.place]) FILTER (WHERE u.statistic = 'last'),
        max(u.sample_values[p.place]) FILTER (WHERE u.statistic = 'weight')
    FROM pgops.metric AS m
    INNER JOIN pgops.series AS s ON s.metric_id = m.metric_id
    INNER JOIN pgops.shape_series AS p ON p.series_id = s.series_id
    INNER JOIN pgops.shape AS h ON h.shape_id = p.shape_id
    INNER JOIN pgops.round_class AS c ON c.keep_days = h.keep_days
    INNER JOIN pgops.rollup AS u ON u.shape_id = p.shape_id
    WHERE
        (p_metric IS NULL OR m.metric_name = p_metric)
        AND u.started_at > p_from - interval '1 hour'
        AND u.started_at <= p_to - interval '1 hour'
        AND u.started_at < (c.gone_before + CASE m.kind WHEN 'counter' THEN interval '1 hour' ELSE interval '0' END)
            AT TIME ZONE 'UTC'
        AND u.sample_values[p.place] IS NOT NULL
    GROUP BY s.series_id, u.shape_id, m.kind, u.started_at;
$$;

REVOKE ALL ON FUNCTION pgops.hours_gone(text, timestamp with time zone, timestamp with time zone) FROM PUBLIC;
