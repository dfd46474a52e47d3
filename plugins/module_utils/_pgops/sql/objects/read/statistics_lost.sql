-- object: function pgops.statistics_lost(integer, timestamp with time zone, timestamp with time zone)
CREATE OR REPLACE FUNCTION pgops.statistics_lost(p_series_id integer, p_before timestamptz, p_after timestamptz)
RETURNS boolean
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Whether a server that restarted between two rounds lost all its statistics, as after a crash: then counters of its
-- databases fell. A clean restart loses none, also where somebody reset the shared statistics before or after it.
    SELECT EXISTS (
        SELECT
        FROM pgops.series AS o
        INNER JOIN pgops.metric AS m ON m.metric_id = o.metric_id
        CROSS JOIN LATERAL (
            SELECT r.sample_values[p.place] AS sample
            FROM pgops.shape_series AS p
            INNER JOIN pgops.round AS r ON r.shape_id = p.shape_id
            WHERE
                p.series_id = o.series_id
                AND r.collected_at > p_before - interval '2 hours'
                AND r.collected_at <= p_before
                AND r.sample_values[p.place] IS NOT NULL
            ORDER BY r.collected_at DESC
            LIMIT 1
        ) AS earlier
        INNER JOIN pgops.shape_series AS q ON q.series_id = o.series_id
        INNER JOIN pgops.round AS n ON n.shape_id = q.shape_id
        WHERE
            m.kind = 'counter'
            AND o.node_id = s.node_id
            AND o.database_name <> ''
            AND (o.schema_name, o.table_name) = ('', '')
            AND n.collected_at > p_before
            AND n.collected_at <= p_after + interval '15 minutes'
            AND n.sample_values[q.place] < earlier.sample
    )
    FROM pgops.series AS s
    WHERE s.series_id = p_series_id;
$$;

REVOKE ALL ON FUNCTION pgops.statistics_lost(
    integer, timestamp with time zone, timestamp with time zone
) FROM PUBLIC;
