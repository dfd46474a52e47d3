-- object: function pgops.define_shape(integer, bytea, jsonb, jsonb)
-- requires: shape_retention
CREATE OR REPLACE FUNCTION pgops.define_shape(
    p_node_id integer, p_fingerprint bytea, p_metrics jsonb, p_series jsonb
)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Writes a shape into the dictionary: p_series is an array of {metric, database, schema, table, index, other, identity}
-- in the order of the values; p_metrics describes its metrics, for those not known yet. Returns its number.
DECLARE
    new_shape_id integer;
BEGIN
    INSERT INTO pgops.metric (metric_name, category, unit, kind, direction, warning, critical, help)
    SELECT m.metric_name, m.category, m.unit, m.kind, m.direction, m.warning, m.critical, coalesce(m.help, '')
    FROM jsonb_to_recordset(p_metrics) AS m (
        metric_name text, category text, unit text, kind text, direction text,
        warning double precision, critical double precision, help text
    )
    WHERE NOT EXISTS (SELECT FROM pgops.metric AS k WHERE k.metric_name = m.metric_name)
    ON CONFLICT (metric_name) DO NOTHING;

    INSERT INTO pgops.shape (node_id, fingerprint, size, last_used_on)
    VALUES (p_node_id, p_fingerprint, jsonb_array_length(p_series), current_date)
    ON CONFLICT (node_id, fingerprint) DO NOTHING
    RETURNING shape_id INTO new_shape_id;
    IF new_shape_id IS NULL THEN
        RETURN (
            SELECT s.shape_id FROM pgops.shape AS s
            WHERE s.node_id = p_node_id AND s.fingerprint = p_fingerprint
        );
    END IF;

    -- The history of a counter from before its identity was known.
    UPDATE pgops.series AS k SET identity = s.identity
    FROM jsonb_to_recordset(p_series) AS s (
        metric text, database text, schema text, "table" text, index text, other jsonb, identity text
    )
    INNER JOIN pgops.metric AS m ON m.metric_name = s.metric
    WHERE
        s.identity <> ''
        AND (k.metric_id, k.node_id, k.identity) = (m.metric_id, p_node_id, '')
        AND (k.database_name, k.schema_name) = (coalesce(s.database, ''), coalesce(s.schema, ''))
        AND (k.table_name, k.index_name) = (coalesce(s."table", ''), coalesce(s.index, ''))
        AND k.other = coalesce(s.other, '{}')
        AND NOT EXISTS (
            SELECT FROM pgops.series AS o
            WHERE
                (o.metric_id, o.node_id, o.identity) = (k.metric_id, k.node_id, s.identity)
                AND (o.database_name, o.schema_name) = (k.database_name, k.schema_name)
                AND (o.table_name, o.index_name) = (k.table_name, k.index_name)
                AND o.other = k.other
        );

    INSERT INTO pgops.series (metric_id, node_id, database_name, schema_name, table_name, index_name, other, identity)
    SELECT DISTINCT
        m.metric_id, p_node_id, coalesce(s.database, ''), coalesce(s.schema, ''), coalesce(s."table", ''),
        coalesce(s.index, ''), coalesce(s.other, '{}'), coalesce(s.identity, '')
    FROM jsonb_to_recordset(p_series) AS s (
        metric text, database text, schema text, "table" text, index text, other jsonb, identity text
    )
    INNER JOIN pgops.metric AS m ON m.metric_name = s.metric
    ON CONFLICT DO NOTHING;

    INSERT INTO pgops.shape_series (shape_id, place, series_id)
    SELECT new_shape_id, u.place, s.series_id
    FROM jsonb_array_elements(p_series) WITH ORDINALITY AS u (item, place)
    INNER JOIN pgops.metric AS m ON m.metric_name = u.item ->> 'metric'
    INNER JOIN pgops.series AS s
        ON
            s.metric_id = m.metric_id
            AND s.node_id = p_node_id
            AND s.database_name = coalesce(u.item ->> 'database', '')
            AND s.schema_name = coalesce(u.item ->> 'schema', '')
            AND s.table_name = coalesce(u.item ->> 'table', '')
            AND s.index_name = coalesce(u.item ->> 'index', '')
            AND s.other = coalesce(u.item -> 'other', '{}')
            AND s.identity = coalesce(u.item ->> 'identity', '');
    IF (SELECT count(*) FROM pgops.shape_series AS p WHERE p.shape_id = new_shape_id)
        <> jsonb_array_length(p_series)
    THEN
        RAISE EXCEPTION 'a shape contains unknown metrics, or a series twice'
            USING ERRCODE = 'data_exception';
    END IF;
    UPDATE pgops.shape AS h SET keep_days = pgops.shape_retention(new_shape_id) WHERE h.shape_id = new_shape_id;
    RETURN new_shape_id;
END
$$;

REVOKE ALL ON FUNCTION pgops.define_shape(integer, bytea, jsonb, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.define_shape(integer, bytea, jsonb, jsonb) TO pgops;
