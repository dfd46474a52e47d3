-- object: function pgops.latest_values(text[], interval)
CREATE OR REPLACE FUNCTION pgops.latest_values(p_metrics text[], p_max_age interval)
RETURNS TABLE (
    node_id integer, metric_name text, database_name text, schema_name text, table_name text, index_name text,
    other jsonb, metric_value double precision, collected_at timestamptz
)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
AS $$
-- The newest value for each set of labels of these metrics, none older than p_max_age. The bounds are variables, since with
-- custom plans the partitions of all other days are excluded before planning.
#variable_conflict use_column
DECLARE
    since timestamptz := now() - p_max_age;
    until timestamptz := now() + interval '1 day';
BEGIN
    RETURN QUERY
    WITH newest AS MATERIALIZED (
        SELECT h.shape_id, r.collected_at, r.sample_values
        FROM pgops.shape AS h
        CROSS JOIN LATERAL (
            SELECT o.collected_at, o.sample_values FROM pgops.round AS o
            WHERE o.shape_id = h.shape_id AND o.collected_at >= since AND o.collected_at < until
            ORDER BY o.collected_at DESC LIMIT 1
        ) AS r
        WHERE h.last_used_on >= since::date
    )
    SELECT DISTINCT ON (
        s.metric_id, s.node_id, s.database_name, s.schema_name, s.table_name, s.index_name, s.other
    )
        s.node_id, m.metric_name, s.database_name, s.schema_name, s.table_name, s.index_name, s.other,
        w.sample_values[p.place], w.collected_at
    FROM newest AS w
    INNER JOIN pgops.shape_series AS p ON p.shape_id = w.shape_id
    INNER JOIN pgops.series AS s ON s.series_id = p.series_id
    INNER JOIN pgops.metric AS m ON m.metric_id = s.metric_id
    WHERE m.metric_name = ANY (p_metrics) AND w.sample_values[p.place] IS NOT NULL
    ORDER BY
        s.metric_id, s.node_id, s.database_name, s.schema_name, s.table_name, s.index_name, s.other,
        w.collected_at DESC;
END
$$;

REVOKE ALL ON FUNCTION pgops.latest_values(text[], interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.latest_values(text[], interval) TO pgops, pgops_reader;
