-- object: view pgops.events
CREATE OR REPLACE VIEW pgops.events AS
SELECT
    e.occurred_at,
    e.kind,
    e.cluster,
    e.node,
    e.event_text,
    e.details,
    e.recorded_at,
    e.event_key
FROM pgops.event AS e;

REVOKE ALL ON pgops.events FROM PUBLIC;
GRANT SELECT ON pgops.events TO pgops, pgops_reader;
