-- object: view pgops.alerting_status
CREATE OR REPLACE VIEW pgops.alerting_status AS
SELECT
    e.evaluated_at,
    pg_catalog.now() - e.evaluated_at AS age,
    r.rules_enabled,
    r.rules_disabled,
    (
        SELECT s.value::integer FROM pgops.setting AS s
        WHERE s.name = 'expected_standbys'
    ) AS expected_standbys
FROM (
    SELECT
        count(*) FILTER (WHERE r.is_enabled) AS rules_enabled,
        count(*) FILTER (WHERE NOT r.is_enabled) AS rules_disabled
    FROM pgops.alert_rule AS r
) AS r
LEFT JOIN pgops.alert_evaluation AS e ON TRUE;

REVOKE ALL ON pgops.alerting_status FROM PUBLIC;
GRANT SELECT ON pgops.alerting_status TO pgops, pgops_reader;
