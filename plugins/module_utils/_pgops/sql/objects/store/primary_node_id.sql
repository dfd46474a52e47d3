-- object: function pgops.primary_node_id()
-- requires: register_node
CREATE OR REPLACE FUNCTION pgops.primary_node_id()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- The node that this writable server is: the one that was last seen as primary.
BEGIN
    RETURN coalesce(
        (SELECT n.node_id FROM pgops.node AS n WHERE n.is_primary ORDER BY n.last_seen_at DESC LIMIT 1),
        pgops.register_node(
            'unknown', 'unknown',
            (SELECT c.system_identifier::text FROM pg_control_system() AS c), true, ''
        )
    );
END
$$;

REVOKE ALL ON FUNCTION pgops.primary_node_id() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.primary_node_id() TO pgops;
