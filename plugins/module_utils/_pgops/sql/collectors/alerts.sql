-- collector: alerts
-- scope: instance
-- interval: 60
-- role: primary
-- metric: alerts_firing unit=count category=availability
--   Alerts of the cluster that fire, by severity, those that are about to end or whose data is missing among them.
-- metric: alert_evaluation_age_seconds unit=s category=availability direction=above warning=180 critical=600
--   Time since rules were last evaluated. No value before that, or where no rule is enabled.
SELECT
    k.severity,
    count(a.alert_id) AS alerts_firing,
    NULL::numeric AS alert_evaluation_age_seconds
FROM unnest(ARRAY['info', 'warning', 'critical']) AS k (severity)
INNER JOIN pgops.alerting_status AS s ON s.evaluated_at IS NOT NULL
LEFT JOIN pgops.alert_history AS a
    ON k.severity = a.severity_level AND a.ended_at IS NULL AND a.fired_at IS NOT NULL
GROUP BY k.severity
UNION ALL
SELECT
    NULL AS severity,
    NULL AS alerts_firing,
    extract(EPOCH FROM clock_timestamp() - s.evaluated_at) AS alert_evaluation_age_seconds
FROM pgops.alerting_status AS s
WHERE s.evaluated_at IS NOT NULL AND s.rules_enabled > 0
