-- object: function pgops.register_node(text, text, text, boolean, text)
CREATE OR REPLACE FUNCTION pgops.register_node(
    p_cluster text, p_node text, p_system_identifier text, p_is_primary boolean, p_agent_version text
)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Records that a node exists and its current role; returns its number. Written at most once a minute.
DECLARE
    known pgops.node;
BEGIN
    SELECT n.* INTO known FROM pgops.node AS n WHERE n.node = p_node;
    IF NOT FOUND THEN
        INSERT INTO pgops.node (cluster, node, system_identifier, is_primary, agent_version)
        VALUES (p_cluster, p_node, p_system_identifier, p_is_primary, p_agent_version)
        ON CONFLICT (node) DO NOTHING;
        SELECT n.* INTO STRICT known FROM pgops.node AS n WHERE n.node = p_node;
    END IF;
    IF (known.cluster, known.system_identifier, known.is_primary, known.agent_version)
        IS DISTINCT FROM (p_cluster, p_system_identifier, p_is_primary, p_agent_version)
        OR known.last_seen_at < now() - interval '50 seconds'
    THEN
        UPDATE pgops.node AS n
        SET cluster = p_cluster,
            system_identifier = p_system_identifier,
            is_primary = p_is_primary,
            agent_version = p_agent_version,
            last_seen_at = now()
        WHERE n.node_id = known.node_id;
    END IF;
    -- This database has one primary: a failed former primary does not report that it no longer is one.
    IF p_is_primary AND EXISTS (SELECT FROM pgops.node AS n WHERE n.is_primary AND n.node_id <> known.node_id) THEN
        UPDATE pgops.node AS n SET is_primary = false WHERE n.is_primary AND n.node_id <> known.node_id;
    END IF;
    RETURN known.node_id;
END
$$;

REVOKE ALL ON FUNCTION pgops.register_node(text, text, text, boolean, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.register_node(text, text, text, boolean, text) TO pgops;
