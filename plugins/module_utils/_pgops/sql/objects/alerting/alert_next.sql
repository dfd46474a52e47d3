-- object: function pgops.alert_next(pgops.alert_progress, pgops.alert_rule, text, timestamp with time zone)
CREATE OR REPLACE FUNCTION pgops.alert_next(
    p_before pgops.alert_progress, p_rule pgops.alert_rule, p_verdict text, p_at timestamptz
)
RETURNS pgops.alert_progress
LANGUAGE plpgsql
IMMUTABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- Where a rule is with a series after an evaluation at p_at, which alert_verdict() gave p_verdict; p_before is NULL
-- for a series that it has not been concerned with. Without clear thresholds, flapping and missing data, that is what
-- Prometheus does: a condition that holds is pending, and fires with the first evaluation that is minimum_duration
-- later; one that has ceased ends the alert with the first evaluation that is keep_firing_for later.
--
-- Data that is missing changes nothing but the time since when, unless the rule says otherwise; after a day of it the
-- alert ends. A series that is gone, where its collector works and no longer finds it, ends its alert like a value.
DECLARE
    after pgops.alert_progress := p_before;
    verdict text := p_verdict;
    hold interval := p_rule.keep_firing_for;
BEGIN
    after.state := coalesce(after.state, 'inactive');
    -- A clock that was set back: nothing lasts since a moment that has not come yet.
    after.breached_since := least(after.breached_since, p_at);
    after.cleared_since := least(after.cleared_since, p_at);
    after.fired_at := ARRAY(
        SELECT f.at FROM unnest(after.fired_at) AS f (at) WHERE f.at > p_at - interval '1 hour' AND f.at <= p_at
    );
    IF verdict = 'missing' THEN
        after.missing_since := least(coalesce(after.missing_since, p_at), p_at);
        IF p_rule.missing_data = 'keep' AND p_at - after.missing_since < interval '1 day' THEN
            IF after.state = 'inactive' THEN
                after.missing_since := NULL;
            END IF;
            RETURN after;
        END IF;
        verdict := CASE p_rule.missing_data WHEN 'fire' THEN 'breached' ELSE 'gone' END;
    ELSE
        after.missing_since := NULL;
    END IF;

    IF verdict = 'breached' THEN
        IF after.state = 'inactive' THEN
            after.state := 'pending';
            after.breached_since := p_at;
        END IF;
        IF after.state = 'pending' AND p_at - after.breached_since >= p_rule.minimum_duration THEN
            after.state := 'firing';
            after.fired_at := after.fired_at || p_at;
        ELSIF after.state = 'recovering' THEN
            after.state := 'firing';
        END IF;
        after.cleared_since := NULL;
    ELSIF verdict = 'between' AND after.state IN ('firing', 'recovering') THEN
        after.state := 'firing';
        after.cleared_since := NULL;
    ELSIF after.state IN ('firing', 'recovering') THEN
        IF p_rule.flapping_after > 0 AND cardinality(after.fired_at) >= p_rule.flapping_after THEN
            hold := greatest(hold, interval '15 minutes');
        END IF;
        after.cleared_since := coalesce(after.cleared_since, p_at);
        after.state := CASE WHEN p_at - after.cleared_since >= hold THEN 'inactive' ELSE 'recovering' END;
    ELSE
        after.state := 'inactive';
    END IF;
    IF after.state = 'inactive' THEN
        after.breached_since := NULL;
        after.cleared_since := NULL;
        after.missing_since := NULL;
    END IF;
    RETURN after;
END
$$;

REVOKE ALL ON FUNCTION pgops.alert_next(
    pgops.alert_progress, pgops.alert_rule, text, timestamp with time zone
) FROM PUBLIC;
