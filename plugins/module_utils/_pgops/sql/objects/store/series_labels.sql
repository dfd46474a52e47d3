-- object: function pgops.series_labels(pgops.series, text)
CREATE OR REPLACE FUNCTION pgops.series_labels(p_series pgops.series, p_node text)
RETURNS jsonb
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- All labels of a series and its node's name: those of a collector's row, without the empty ones.
    SELECT
        p_series.other || jsonb_strip_nulls(jsonb_build_object(
            'node', p_node,
            'database', nullif(p_series.database_name, ''),
            'schema', nullif(p_series.schema_name, ''),
            'table', nullif(p_series.table_name, ''),
            'index', nullif(p_series.index_name, '')
        ));
$$;

REVOKE ALL ON FUNCTION pgops.series_labels(pgops.series, text) FROM PUBLIC;
