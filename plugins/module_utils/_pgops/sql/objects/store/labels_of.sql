-- object: function pgops.labels_of(jsonb)
-- requires: readable
CREATE OR REPLACE FUNCTION pgops.labels_of(p_item jsonb)
RETURNS jsonb
LANGUAGE sql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- The labels of a collector's row: the four named ones as they are, all others in "other".
    SELECT jsonb_strip_nulls(
        coalesce(jsonb_object_agg(e.label, e.value) FILTER (WHERE e.is_named), '{}')
        || jsonb_build_object('other', jsonb_object_agg(e.label, e.value) FILTER (WHERE NOT e.is_named))
    )
    FROM (
        SELECT
            i.label,
            i.label IN ('database', 'schema', 'table', 'index') AS is_named,
            CASE
                WHEN jsonb_typeof(i.value) = 'string' THEN to_jsonb(pgops.readable(i.value #>> '{}'))
                ELSE i.value
            END AS value
        FROM jsonb_each(p_item) AS i (label, value)
        WHERE i.value <> 'null'
    ) AS e;
$$;

REVOKE ALL ON FUNCTION pgops.labels_of(jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.labels_of(jsonb) TO pgops;
