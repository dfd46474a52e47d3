-- object: function pgops.newest_rounds(interval)
CREATE OR REPLACE FUNCTION pgops.newest_rounds(p_max_age interval)
RETURNS TABLE (node text, collector text, collected_at timestamptz)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
AS $$
-- The time of the newest round of each collector on each node, none older than p_max_age; a metric that no collector
-- yields counts as a collector. If two yield it, they are for different roles, or both are jobs that report what
-- collectors cost. One index look-up for each metric of a shape, by its first series: a collector that fails leaves its
-- places empty. The bounds are variables, since with custom plans the partitions of all other days are excluded before
-- planning. One day ahead is what store_round() accepts.
#variable_conflict use_column
DECLARE
    since timestamptz := now() - p_max_age;
    until timestamptz := now() + interval '1 day';
BEGIN
    RETURN QUERY
    WITH heard AS MATERIALIZED (
        SELECT n.node, n.is_primary, m.metric_name, k.collector AS inspected, max(r.collected_at) AS newest_at
        FROM pgops.shape AS h
        INNER JOIN pgops.node AS n ON n.node_id = h.node_id
        CROSS JOIN LATERAL (
            SELECT DISTINCT ON (s.metric_id) s.metric_id, s.other, o.place
            FROM pgops.shape_series AS o
            INNER JOIN pgops.series AS s ON s.series_id = o.series_id
            WHERE o.shape_id = h.shape_id
            ORDER BY s.metric_id, o.place
        ) AS p
        INNER JOIN pgops.metric AS m ON m.metric_id = p.metric_id
        -- What a job reports about a collector belongs to the job.
        LEFT JOIN pgops.collector AS k ON k.collector = p.other ->> 'collector' AND k.rights = 'all_data'
        CROSS JOIN LATERAL (
            SELECT o.collected_at FROM pgops.round AS o
            WHERE
                o.shape_id = h.shape_id AND o.collected_at >= since AND o.collected_at < until
                AND o.sample_values[p.place] IS NOT NULL
            ORDER BY o.collected_at DESC LIMIT 1
        ) AS r
        WHERE h.last_used_on >= since::date
        GROUP BY n.node, n.is_primary, m.metric_name, k.collector
    )

    SELECT w.node, coalesce(c.collector, w.metric_name), max(w.newest_at)
    FROM heard AS w
    LEFT JOIN LATERAL (
        SELECT c.collector FROM pgops.collector AS c
        WHERE w.metric_name = ANY (c.metrics)
        ORDER BY
            c.role IN ('any', CASE WHEN w.is_primary THEN 'primary' ELSE 'standby' END) DESC,
            (c.rights = 'all_data') = (w.inspected IS NOT NULL) DESC,
            c.collector
        LIMIT 1
    ) AS c ON true
    GROUP BY 1, 2;
END
$$;

REVOKE ALL ON FUNCTION pgops.newest_rounds(interval) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.newest_rounds(interval) TO pgops, pgops_reader;
