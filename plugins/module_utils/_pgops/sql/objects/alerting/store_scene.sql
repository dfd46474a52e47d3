-- object: function pgops.store_scene(integer, uuid[], timestamp with time zone, jsonb)
CREATE OR REPLACE FUNCTION pgops.store_scene(
    p_node_id integer, p_alerts uuid[], p_taken_at timestamptz, p_parts jsonb
)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Keeps what a node saw with the alerts that it is of; returns how many they are. An alert has one scene of a node, the
-- first. Where texts of statements are off, none is kept.
DECLARE
    source pgops.node;
    with_texts constant boolean := coalesce(
        (SELECT s.value::boolean FROM pgops.setting AS s WHERE s.name = 'query_texts'), TRUE
    );
    kept bigint;
    concerned uuid[];
BEGIN
    SELECT n.* INTO STRICT source FROM pgops.node AS n WHERE n.node_id = p_node_id;
    SELECT array_agg(a.alert_id) INTO concerned
    FROM pgops.alert AS a
    WHERE
        a.alert_id = ANY (p_alerts)
        AND NOT EXISTS (
            SELECT
            FROM pgops.alert_scene AS s
            INNER JOIN pgops.scene AS c ON c.scene_id = s.scene_id
            WHERE s.alert_id = a.alert_id AND c.node = source.node
        );
    IF concerned IS NULL THEN
        RETURN 0;
    END IF;
    INSERT INTO pgops.scene AS c (cluster, node, is_primary, taken_at, parts)
    SELECT
        source.cluster, source.node, source.is_primary, p_taken_at,
        jsonb_object_agg(
            p.part,
            CASE
                WHEN with_texts OR jsonb_typeof(p.seen -> 'rows') IS DISTINCT FROM 'array' THEN p.seen
                ELSE p.seen || jsonb_build_object(
                    'rows', (
                        SELECT coalesce(jsonb_agg(r.seen - 'query' ORDER BY r.place), '[]')
                        FROM jsonb_array_elements(p.seen -> 'rows') WITH ORDINALITY AS r (seen, place)
                    )
                )
            END
        )
    FROM jsonb_each(p_parts) AS p (part, seen)
    RETURNING c.scene_id INTO kept;
    INSERT INTO pgops.alert_scene (alert_id, scene_id) SELECT c.alert_id, kept FROM unnest(concerned) AS c (alert_id);
    RETURN cardinality(concerned);
END
$$;

REVOKE ALL ON FUNCTION pgops.store_scene(integer, uuid[], timestamp with time zone, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.store_scene(integer, uuid[], timestamp with time zone, jsonb) TO pgops;
