-- object: view pgops.nodes
CREATE OR REPLACE VIEW pgops.nodes AS
SELECT
    n.node,
    n.cluster,
    n.is_primary,
    n.system_identifier,
    n.agent_version,
    n.first_seen_at,
    n.last_seen_at
FROM pgops.node AS n;

REVOKE ALL ON pgops.nodes FROM PUBLIC;
GRANT SELECT ON pgops.nodes TO pgops, pgops_reader;
