-- object: view pgops.collector_status
-- requires: newest_rounds
CREATE OR REPLACE VIEW pgops.collector_status AS
SELECT
    w.node,
    w.collector,
    w.collected_at,
    pg_catalog.now() - w.collected_at AS age
FROM pgops.newest_rounds('1 day'::interval) AS w;

REVOKE ALL ON pgops.collector_status FROM PUBLIC;
GRANT SELECT ON pgops.collector_status TO pgops, pgops_reader;
