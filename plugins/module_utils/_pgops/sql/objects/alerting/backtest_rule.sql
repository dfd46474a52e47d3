-- object: function pgops.backtest_rule(pgops.alert_rule, timestamp with time zone, timestamp with time zone)
-- requires: rule_verdicts, alert_course, series_labels
CREATE OR REPLACE FUNCTION pgops.backtest_rule(
    p_rule pgops.alert_rule, p_from timestamptz, p_to timestamptz
)
RETURNS TABLE (node text, labels jsonb, changed_at timestamptz, from_status text, to_status text)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- What a rule would have done with the samples that are stored, had it been evaluated each minute from p_from to
-- p_to: every change of status of each series. Only samples count, not the hours that are left of older ones.
    SELECT n.node, pgops.series_labels(s, n.node), c.changed_at, c.from_status, c.to_status
    FROM pgops.rule_verdicts(p_rule, p_from, p_to) AS v
    INNER JOIN pgops.series AS s ON s.series_id = v.series_id
    INNER JOIN pgops.node AS n ON n.node_id = s.node_id
    CROSS JOIN LATERAL pgops.alert_course(p_rule, v.verdicts, p_from, interval '1 minute') AS c
    ORDER BY 1, 2, 3;
$$;

REVOKE ALL ON FUNCTION pgops.backtest_rule(
    pgops.alert_rule, timestamp with time zone, timestamp with time zone
) FROM PUBLIC;
