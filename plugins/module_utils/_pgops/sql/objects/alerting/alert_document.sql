-- object: function pgops.alert_document(pgops.alert, text)
CREATE OR REPLACE FUNCTION pgops.alert_document(p_alert pgops.alert, p_event text)
RETURNS jsonb
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- An alert as senders read it.
    SELECT jsonb_build_object(
        'alert_id', p_alert.alert_id, 'event', p_event, 'rule_name', p_alert.rule_name,
        'severity', p_alert.severity_level, 'metric', p_alert.metric_name, 'operator', p_alert.condition_operator,
        'metric_value', p_alert.metric_value::text, 'threshold_value', p_alert.threshold_value::text,
        'cluster', p_alert.cluster, 'node', p_alert.node, 'labels', p_alert.labels, 'fired_at', p_alert.fired_at,
        'ended_at', p_alert.ended_at, 'reason', p_alert.reason, 'flapping', p_alert.flapping
    );
$$;

REVOKE ALL ON FUNCTION pgops.alert_document(pgops.alert, text) FROM PUBLIC;
