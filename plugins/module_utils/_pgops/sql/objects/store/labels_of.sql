-- object: function pgops.labels_of(jsonb)
CREATE OR REPLACE FUNCTION pgops.labels_of(p_item jsonb)
RETURNS jsonb
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- The labels of a collector's row: the four named ones as they are, all others in "other".
    SELECT jsonb_strip_nulls(
        (p_item - ARRAY(
            SELECT k.label FROM jsonb_object_keys(p_item) AS k (label)
            WHERE k.label NOT IN ('database', 'schema', 'table', 'index')
        ))
        || jsonb_build_object('other', nullif(
            jsonb_strip_nulls(p_item - ARRAY['database', 'schema', 'table', 'index']), '{}'
        ))
    );
$$;

REVOKE ALL ON FUNCTION pgops.labels_of(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.labels_of(jsonb) TO pgops;
