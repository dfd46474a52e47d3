-- object: view pgops.alert_rules
-- requires: write_rule
CREATE OR REPLACE VIEW pgops.alert_rules AS
SELECT
    r.rule_id,
    r.rule_name,
    r.metric_name,
    r.condition_operator,
    r.threshold_value,
    r.severity_level,
    r.evaluation_window,
    r.minimum_duration,
    r.notification_channels,
    r.notification_template,
    r.is_enabled,
    r.created_at,
    r.updated_at,
    r.clear_threshold,
    r.evaluation,
    r.keep_firing_for,
    r.missing_data,
    r.flapping_after,
    r.labels,
    r.source
FROM pgops.alert_rule AS r;

REVOKE ALL ON pgops.alert_rules FROM PUBLIC;
GRANT SELECT ON pgops.alert_rules TO pgops, pgops_reader, pgops_operator;
GRANT INSERT, UPDATE, DELETE ON pgops.alert_rules TO pgops_operator;

DROP TRIGGER IF EXISTS write_rule ON pgops.alert_rules;
CREATE TRIGGER write_rule INSTEAD OF INSERT OR UPDATE OR DELETE ON pgops.alert_rules
FOR EACH ROW EXECUTE FUNCTION pgops.write_rule();
