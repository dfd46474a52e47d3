-- object: view pgops.installed_collectors
CREATE OR REPLACE VIEW pgops.installed_collectors AS
SELECT
    c.collector,
    c.scope,
    c.labels,
    c.metrics,
    c.role,
    c.rights,
    c.called
FROM pgops.collector AS c;

REVOKE ALL ON pgops.installed_collectors FROM PUBLIC;
GRANT SELECT ON pgops.installed_collectors TO pgops, pgops_reader;
