-- object: function pgops.store_events(integer, jsonb)
-- requires: cut_text
CREATE OR REPLACE FUNCTION pgops.store_events(p_node_id integer, p_events jsonb)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Records events of a node, each once: what it is, is in its key. Returns how many are new.
DECLARE
    recorded integer;
BEGIN
    INSERT INTO pgops.event (event_key, occurred_at, kind, cluster, node, event_text, details)
    SELECT
        n.node || ':' || e.event_key, least(e.occurred_at, now() + interval '1 day'), e.kind, n.cluster, n.node,
        pgops.cut_text(e.event_text, 1000), coalesce(e.details, '{}')
    FROM jsonb_to_recordset(p_events) AS e (
        event_key text, occurred_at timestamptz, kind text, event_text text, details jsonb
    )
    INNER JOIN pgops.node AS n ON n.node_id = p_node_id
    ON CONFLICT (event_key) DO NOTHING;
    GET DIAGNOSTICS recorded = ROW_COUNT;
    RETURN recorded;
END
$$;

REVOKE ALL ON FUNCTION pgops.store_events(integer, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.store_events(integer, jsonb) TO pgops;
