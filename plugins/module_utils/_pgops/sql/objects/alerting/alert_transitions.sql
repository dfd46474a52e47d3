-- object: view pgops.alert_transitions
CREATE OR REPLACE VIEW pgops.alert_transitions AS
SELECT
    t.alert_id,
    t.changed_at,
    t.from_status,
    t.to_status,
    t.metric_value
FROM pgops.alert_transition AS t;

REVOKE ALL ON pgops.alert_transitions FROM PUBLIC;
GRANT SELECT ON pgops.alert_transitions TO pgops, pgops_reader;
