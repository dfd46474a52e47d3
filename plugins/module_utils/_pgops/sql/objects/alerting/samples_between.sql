-- object: function pgops.samples_between(text[], timestamp with time zone, timestamp with time zone)
-- requires: series_labels
CREATE OR REPLACE FUNCTION pgops.samples_between(p_metrics text[], p_from timestamptz, p_to timestamptz)
RETURNS TABLE (
    node_id integer, series_id integer, metric_name text, labels jsonb, collected_at timestamptz,
    sample double precision
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
AS $$
-- All samples of these metrics after p_from and not after p_to, with the labels of their series but for the node. For a
-- few series: each is looked up by index. The bounds are variables, as in latest_values().
#variable_conflict use_column
DECLARE
    since timestamptz := p_from;
    until timestamptz := p_to;
BEGIN
    RETURN QUERY
    SELECT s.node_id, s.series_id, m.metric_name, pgops.series_labels(s, NULL), r.collected_at, r.sample
    FROM pgops.metric AS m
    INNER JOIN pgops.series AS s ON s.metric_id = m.metric_id
    INNER JOIN pgops.shape_series AS p ON p.series_id = s.series_id
    INNER JOIN pgops.shape AS h ON h.shape_id = p.shape_id AND h.last_used_on >= since::date
    CROSS JOIN LATERAL (
        SELECT o.collected_at, o.sample_values[p.place] AS sample FROM pgops.round AS o
        WHERE o.shape_id = p.shape_id AND o.collected_at > since AND o.collected_at <= until
        OFFSET 0
    ) AS r
    WHERE m.metric_name = ANY (p_metrics) AND r.sample IS NOT NULL AND r.sample <> 'NaN';
END
$$;

REVOKE ALL ON FUNCTION pgops.samples_between(
    text[], timestamp with time zone, timestamp with time zone
) FROM PUBLIC;
