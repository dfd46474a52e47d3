-- object: function pgops.store_fitted(integer, text[], text, timestamp with time zone, jsonb, double precision[])
-- requires: define_shape, store_round
CREATE OR REPLACE FUNCTION pgops.store_fitted(
    p_node_id integer, p_metrics text[], p_origin text, p_collected_at timestamptz,
    p_series jsonb, p_values double precision[]
)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Stores a round of these series, which belong to these metrics, in the newest shape that has some of them and no other
-- metrics: known series keep their places, new ones are appended. A new shape if more than half of the places would
-- have no value (rounds.py does the same). Otherwise objects that come and go would create endless new shapes.
DECLARE
    known pgops.shape;
    fitted record;
    used_fingerprint bytea := sha256(convert_to(p_series::text, 'UTF8'));
    metric_ids integer[] := ARRAY(SELECT m.metric_id FROM pgops.metric AS m WHERE m.metric_name = ANY (p_metrics));
BEGIN
    IF pgops.store_round(p_node_id, used_fingerprint, p_origin, p_collected_at, p_values) THEN
        RETURN true;
    END IF;

    -- Step by step, by indexes: the planner has no useful estimate for this.
    WITH present AS MATERIALIZED (
        SELECT m.metric_id, i.database, i.schema, i."table", i.index, i.other, i.identity
        FROM jsonb_to_recordset(p_series) AS i (
            metric text, database text, schema text, "table" text, index text, other jsonb, identity text
        )
        INNER JOIN pgops.metric AS m ON m.metric_name = i.metric
    ),

    candidate AS MATERIALIZED (
        SELECT DISTINCT p.shape_id
        FROM present AS i
        CROSS JOIN LATERAL (
            SELECT s.series_id FROM pgops.series AS s
            WHERE
                s.metric_id = i.metric_id
                AND s.node_id = p_node_id
                AND s.database_name = coalesce(i.database, '')
                AND s.schema_name = coalesce(i.schema, '')
                AND s.table_name = coalesce(i."table", '')
                AND s.index_name = coalesce(i.index, '')
                AND s.other = coalesce(i.other, '{}')
                AND s.identity = coalesce(i.identity, '')
            LIMIT 1
        ) AS s
        CROSS JOIN LATERAL (
            SELECT o.shape_id FROM pgops.shape_series AS o
            WHERE o.series_id = s.series_id
            OFFSET 0
        ) AS p
    )

    SELECT h.* INTO known
    FROM candidate AS c
    INNER JOIN pgops.shape AS h ON h.shape_id = c.shape_id
    CROSS JOIN LATERAL (
        SELECT bool_and(t.metric_id = ANY (metric_ids)) AS only_these
        FROM pgops.shape_series AS o
        INNER JOIN pgops.series AS t ON t.series_id = o.series_id
        WHERE o.shape_id = h.shape_id
    ) AS f
    -- A fingerprint of another length is no longer in use: see renew_shapes().
    WHERE octet_length(h.fingerprint) = 32 AND f.only_these
    ORDER BY h.shape_id DESC
    LIMIT 1;

    WITH present AS (
        SELECT
            (
                -- An empty label is not a label.
                SELECT jsonb_object_agg(e.key, e.value) FROM jsonb_each(u.item) AS e
                WHERE e.value <> '""'
            ) AS item,
            p_values[u.place] AS sample
        FROM jsonb_array_elements(p_series) WITH ORDINALITY AS u (item, place)
    ),

    before AS (
        SELECT
            o.place,
            jsonb_strip_nulls(jsonb_build_object(
                'metric', m.metric_name, 'database', nullif(s.database_name, ''), 'schema', nullif(s.schema_name, ''),
                'table', nullif(s.table_name, ''), 'index', nullif(s.index_name, ''), 'other', nullif(s.other, '{}'),
                'identity', nullif(s.identity, '')
            )) AS item
        FROM pgops.shape_series AS o
        INNER JOIN pgops.series AS s ON s.series_id = o.series_id
        INNER JOIN pgops.metric AS m ON m.metric_id = s.metric_id
        WHERE o.shape_id = known.shape_id
    )

    SELECT
        jsonb_agg(coalesce(b.item, p.item) ORDER BY b.place ASC NULLS LAST, p.item ASC) AS series,
        array_agg(p.sample ORDER BY b.place ASC NULLS LAST, p.item ASC) AS sampled
    INTO fitted
    FROM before AS b
    FULL JOIN present AS p ON p.item = b.item;

    IF cardinality(fitted.sampled) > 2 * cardinality(p_values) + 20 THEN
        SELECT p_series AS series, p_values AS sampled INTO fitted;
        known := NULL;
    END IF;
    IF cardinality(fitted.sampled) = known.size THEN
        RETURN pgops.store_round(p_node_id, known.fingerprint, p_origin, p_collected_at, fitted.sampled);
    END IF;
    used_fingerprint := sha256(convert_to(fitted.series::text, 'UTF8'));
    PERFORM pgops.define_shape(p_node_id, used_fingerprint, '[]', fitted.series);
    RETURN pgops.store_round(p_node_id, used_fingerprint, p_origin, p_collected_at, fitted.sampled);
END
$$;

REVOKE ALL ON FUNCTION pgops.store_fitted(
    integer, text[], text, timestamp with time zone, jsonb, double precision[]
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.store_fitted(
    integer, text[], text, timestamp with time zone, jsonb, double precision[]
) TO pgops;
