-- object: function pgops.alert_verdict(pgops.alert_rule, text, double precision)
-- requires: compared
CREATE OR REPLACE FUNCTION pgops.alert_verdict(p_rule pgops.alert_rule, p_found text, p_value double precision)
RETURNS text
LANGUAGE sql
IMMUTABLE
AS $$
-- What a value says about a rule: breached; cleared; between, for one that does not breach the threshold and has not
-- cleared; or what was found in place of a value, as alert_values() says it: missing or gone.
    SELECT
        CASE
            WHEN p_found <> 'present' THEN p_found
            WHEN pgops.compared(p_value, p_rule.condition_operator, p_rule.threshold_value) THEN 'breached'
            WHEN pgops.compared(p_value, p_rule.condition_operator, p_rule.clear_threshold) THEN 'between'
            ELSE 'cleared'
        END;
$$;

REVOKE ALL ON FUNCTION pgops.alert_verdict(pgops.alert_rule, text, double precision) FROM PUBLIC;
