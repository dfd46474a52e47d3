-- object: function pgops.alerts_without_scene(text)
CREATE OR REPLACE FUNCTION pgops.alerts_without_scene(p_node text)
RETURNS uuid[]
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- The alerts that began to fire within five minutes of which a node has kept no scene yet: what is seen later is not
-- what was. The primary keeps one of each alert, a standby of its own.
    SELECT coalesce(array_agg(a.alert_id), '{}')
    FROM pgops.alert AS a
    WHERE
        a.fired_at > now() - interval '5 minutes'
        AND (a.ended_at IS NULL OR a.ended_at > now() - interval '5 minutes')
        AND (a.node = p_node OR NOT pg_is_in_recovery())
        AND NOT EXISTS (
            SELECT
            FROM pgops.alert_scene AS s
            INNER JOIN pgops.scene AS c ON c.scene_id = s.scene_id
            WHERE s.alert_id = a.alert_id AND c.node = p_node
        );
$$;

REVOKE ALL ON FUNCTION pgops.alerts_without_scene(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.alerts_without_scene(text) TO pgops;
