-- object: function pgops.write_rule()
CREATE OR REPLACE FUNCTION pgops.write_rule()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Carries out what is written to alert_rules. A rule must be on a metric that a collector yields or somebody has
-- recorded. Rules of the inventory are changed there. A shipped one that is changed here is its user's from then on,
-- and deployments leave it as it is.
DECLARE
    written pgops.alert_rule;
BEGIN
    IF TG_OP <> 'INSERT' AND old.source = 'inventory' THEN
        RAISE EXCEPTION 'the rule % (%) belongs to the inventory', old.rule_name, old.severity_level
            USING ERRCODE = 'insufficient_privilege', HINT = 'Change pgops_alert_rules and run site.yml.';
    END IF;
    IF TG_OP = 'DELETE' THEN
        IF old.source = 'shipped' THEN
            RAISE EXCEPTION 'the rule % (%) is one of the collection', old.rule_name, old.severity_level
                USING ERRCODE = 'insufficient_privilege', HINT = 'Set is_enabled to false instead.';
        END IF;
        DELETE FROM pgops.alert_rule AS r WHERE r.rule_id = old.rule_id;
        RETURN old;
    END IF;
    IF NOT EXISTS (SELECT FROM pgops.metric AS m WHERE m.metric_name = new.metric_name)
        AND NOT EXISTS (SELECT FROM pgops.collector AS c WHERE new.metric_name = ANY (c.metrics))
    THEN
        RAISE EXCEPTION 'no collector yields the metric %', quote_nullable(new.metric_name)
            USING ERRCODE = 'invalid_parameter_value', HINT = 'pgops.metrics and docs/monitoring.md list them.';
    END IF;
    IF TG_OP = 'INSERT' AND (SELECT count(*) >= 1000 FROM pgops.alert_rule AS r WHERE r.source = 'user') THEN
        RAISE EXCEPTION 'there are a thousand rules already'
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Delete those that nobody needs.';
    END IF;
    written := ROW(
        coalesce(new.rule_id, gen_random_uuid()), new.rule_name, new.metric_name, new.condition_operator,
        new.threshold_value, new.clear_threshold, coalesce(new.severity_level, 'warning'),
        coalesce(new.evaluation, 'last'), coalesce(new.evaluation_window, '5 minutes'),
        coalesce(new.minimum_duration, '1 minute'), coalesce(new.keep_firing_for, '0'),
        coalesce(new.missing_data, 'keep'), coalesce(new.flapping_after, 4), coalesce(new.labels, '{}'),
        coalesce(new.notification_channels, '[]'), new.notification_template, coalesce(new.is_enabled, TRUE), 'user',
        CASE TG_OP WHEN 'INSERT' THEN now() ELSE old.created_at END, now()
    );
    IF TG_OP = 'UPDATE' THEN
        -- A rule stays the same, whatever is changed about it: its alerts go on.
        written.rule_id := old.rule_id;
        DELETE FROM pgops.alert_rule AS r WHERE r.rule_id = old.rule_id;
    END IF;
    INSERT INTO pgops.alert_rule SELECT (written).*;
    new.rule_id := written.rule_id;
    RETURN new;
END
$$;

REVOKE ALL ON FUNCTION pgops.write_rule() FROM PUBLIC;
