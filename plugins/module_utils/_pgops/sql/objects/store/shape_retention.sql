-- object: function pgops.shape_retention(integer)
CREATE OR REPLACE FUNCTION pgops.shape_retention(p_shape_id integer)
RETURNS smallint
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Retention of a shape's rounds in days, 0 for the default: the longest of its metrics.
    SELECT CASE
        WHEN count(*) = count(r.days) OR max(r.days) > u.usual_days THEN max(r.days)
        ELSE 0::smallint
    END
    FROM (SELECT t.value::integer FROM pgops.setting AS t WHERE t.name = 'retention_days') AS u (usual_days)
    LEFT JOIN pgops.shape_series AS p ON p.shape_id = p_shape_id
    LEFT JOIN pgops.series AS s ON s.series_id = p.series_id
    LEFT JOIN pgops.metric AS m ON m.metric_id = s.metric_id
    LEFT JOIN pgops.retention AS r ON r.metric_name = m.metric_name
    GROUP BY u.usual_days;
$$;

REVOKE ALL ON FUNCTION pgops.shape_retention(integer) FROM PUBLIC;
