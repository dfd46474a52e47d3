-- object: function pgops.counters(text, integer)
CREATE OR REPLACE FUNCTION pgops.counters(p_metric text, p_node_id integer)
RETURNS TABLE (series_id integer, counter_id integer, of_table boolean)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- The series of a counter (NULL: of every one), on one node or on all, each with the first one of those that count the
-- same: an object may have had several names. An identity without a slash is a database's, in which the other names
-- tell objects apart.
    SELECT
        s.series_id,
        CASE
            WHEN s.identity = '' THEN s.series_id
            ELSE min(s.series_id) OVER (
                PARTITION BY
                    s.metric_id,
                    s.node_id,
                    s.identity,
                    s.other,
                    CASE WHEN s.identity !~ '/' THEN jsonb_build_array(s.schema_name, s.table_name, s.index_name) END
            )
        END,
        s.table_name <> '' AND s.index_name = ''
    FROM pgops.metric AS m
    INNER JOIN pgops.series AS s ON s.metric_id = m.metric_id
    WHERE
        m.kind = 'counter'
        AND (p_metric IS NULL OR m.metric_name = p_metric)
        AND (p_node_id IS NULL OR s.node_id = p_node_id);
$$;

REVOKE ALL ON FUNCTION pgops.counters(text, integer) FROM PUBLIC;
