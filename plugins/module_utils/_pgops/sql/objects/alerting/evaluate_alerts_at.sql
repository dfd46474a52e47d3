-- object: function pgops.evaluate_alerts_at(timestamp with time zone)
-- requires: alert_values, alert_verdict, alert_next, alert_status, series_labels
CREATE OR REPLACE FUNCTION pgops.evaluate_alerts_at(p_at timestamptz)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET enable_nestloop = off
AS $$
-- Evaluates every enabled rule as of p_at, and keeps each change; returns how many alerts began to fire. Nothing happens
-- at a time that is not after the last one: it has been evaluated. A clock that was ahead is not waited for. The lock is
-- on a table that only our roles can lock.
--
-- Not only a value ends an alert: its rule goes, or is changed and no longer about it ("left"); nothing is known of its
-- series any more; or its node has not been seen for a week ("unseen"), which ends also what fires where data is missing.
DECLARE
    rules pgops.alert_rule[];
    fired integer;
BEGIN
    LOCK TABLE pgops.alert_state IN SHARE ROW EXCLUSIVE MODE;
    IF EXISTS (
        SELECT FROM pgops.alert_evaluation AS e
        WHERE e.evaluated_at >= p_at AND e.evaluated_at <= clock_timestamp()
    ) THEN
        RETURN 0;
    END IF;
    SELECT coalesce(array_agg(r), '{}') INTO rules FROM pgops.alert_rule AS r WHERE r.is_enabled;

    WITH judged AS MATERIALIZED (
        SELECT
            r AS rule, coalesce(v.rule_id, t.rule_id) AS rule_id, coalesce(v.series_id, t.series_id) AS series_id,
            t.rule_id IS NOT NULL AS known, t.alert_id, t.progress AS before, v.metric_value,
            CASE
                WHEN r.rule_id IS NULL THEN 'removed'
                WHEN v.rule_id IS NOT NULL THEN pgops.alert_verdict(r, v.found, v.metric_value)
                -- Of what has been in no round for a day: each by itself, since these are few.
                ELSE coalesce(
                    (
                        SELECT
                            CASE
                                WHEN n.last_seen_at < p_at - interval '7 days' THEN 'unseen'
                                WHEN r.labels = '{}' OR pgops.series_labels(s, n.node) @> r.labels THEN 'missing'
                            END
                        FROM pgops.series AS s
                        CROSS JOIN LATERAL (
                            SELECT o.node, o.last_seen_at FROM pgops.node AS o WHERE o.node_id = s.node_id OFFSET 0
                        ) AS n
                        WHERE
                            s.series_id = t.series_id
                            AND s.metric_id = (
                                SELECT m.metric_id FROM pgops.metric AS m WHERE m.metric_name = r.metric_name
                            )
                    ),
                    'left'
                )
            END AS verdict
        FROM pgops.alert_values(rules, p_at) AS v
        FULL JOIN pgops.alert_state AS t ON t.rule_id = v.rule_id AND t.series_id = v.series_id
        LEFT JOIN pgops.alert_rule AS r ON r.rule_id = coalesce(v.rule_id, t.rule_id) AND r.is_enabled
    ),

    moved AS MATERIALIZED (
        SELECT j.*, n.after
        FROM judged AS j
        CROSS JOIN LATERAL (
            SELECT
                CASE
                    WHEN j.verdict IN ('removed', 'left', 'unseen') THEN ROW('inactive', NULL, NULL, NULL, '{}')::pgops.alert_progress
                    ELSE pgops.alert_next(j.before, j.rule, j.verdict, p_at)
                END AS after
        ) AS n
        WHERE
            j.known
            OR j.verdict = 'breached'
            OR (j.verdict = 'missing' AND (j.rule).missing_data = 'fire')
    ),

    changed AS MATERIALIZED (
        SELECT
            m.*, pgops.alert_status(m.before) AS from_status, pgops.alert_status(m.after) AS to_status,
            coalesce(m.alert_id, CASE WHEN (m.after).state <> 'inactive' THEN gen_random_uuid() END) AS ongoing
        FROM moved AS m
        WHERE m.before IS DISTINCT FROM m.after
    ),

    begun AS (
        INSERT INTO pgops.alert (
            alert_id, rule_id, rule_name, metric_name, severity_level, condition_operator, threshold_value, series_id,
            cluster, node, labels, status, metric_value, started_at, fired_at, flapping
        )
        SELECT
            c.ongoing, c.rule_id, (c.rule).rule_name, (c.rule).metric_name, (c.rule).severity_level,
            (c.rule).condition_operator, (c.rule).threshold_value, c.series_id, n.cluster, n.node,
            pgops.series_labels(s, n.node), c.to_status, c.metric_value, p_at,
            CASE WHEN (c.after).state = 'firing' THEN p_at END,
            (c.rule).flapping_after > 0 AND cardinality((c.after).fired_at) >= (c.rule).flapping_after
        FROM changed AS c
        INNER JOIN pgops.series AS s ON s.series_id = c.series_id
        INNER JOIN pgops.node AS n ON n.node_id = s.node_id
        WHERE c.alert_id IS NULL AND c.ongoing IS NOT NULL
        RETURNING alert_id
    ),

    gone_on AS (
        UPDATE pgops.alert AS a
        SET
            status = CASE
                WHEN c.to_status <> 'inactive' THEN c.to_status
                WHEN a.fired_at IS NULL THEN 'inactive'
                ELSE 'resolved'
            END,
            metric_value = CASE
                WHEN (c.before).state = 'pending' AND (c.after).state = 'firing' THEN c.metric_value
                ELSE a.metric_value
            END,
            fired_at = CASE WHEN (c.after).state = 'firing' THEN coalesce(a.fired_at, p_at) ELSE a.fired_at END,
            ended_at = CASE WHEN c.to_status = 'inactive' THEN p_at END,
            reason = CASE
                WHEN c.to_status <> 'inactive' THEN NULL
                WHEN c.verdict = 'removed' THEN 'The rule was removed or disabled.'
                WHEN c.verdict = 'left' THEN 'The rule is no longer about it.'
                WHEN c.verdict = 'unseen' THEN 'Its node has not been seen for a week.'
                WHEN c.verdict = 'gone' THEN 'It is no longer there.'
                WHEN c.verdict = 'missing' THEN 'Nothing has been measured any more.'
            END,
            flapping = a.flapping
            OR coalesce((c.rule).flapping_after > 0 AND cardinality((c.after).fired_at) >= (c.rule).flapping_after, FALSE)
        FROM changed AS c
        WHERE a.alert_id = c.alert_id
        RETURNING a.alert_id
    ),

    noted AS (
        INSERT INTO pgops.alert_transition (alert_id, changed_at, from_status, to_status, metric_value)
        SELECT c.ongoing, p_at, coalesce(c.from_status, 'inactive'), c.to_status, c.metric_value
        FROM changed AS c
        WHERE c.ongoing IS NOT NULL AND c.from_status IS DISTINCT FROM c.to_status
    ),

    kept AS (
        INSERT INTO pgops.alert_state AS t (rule_id, series_id, alert_id, progress)
        SELECT c.rule_id, c.series_id, CASE WHEN (c.after).state <> 'inactive' THEN c.ongoing END, c.after
        FROM changed AS c
        WHERE (c.after).state <> 'inactive' OR (c.after).fired_at <> '{}'
        ON CONFLICT (rule_id, series_id) DO UPDATE SET alert_id = excluded.alert_id, progress = excluded.progress
    ),

    forgotten AS (
        DELETE FROM pgops.alert_state AS t
        USING changed AS c
        WHERE
            t.rule_id = c.rule_id AND t.series_id = c.series_id
            AND (c.after).state = 'inactive' AND (c.after).fired_at = '{}'
    )

    SELECT count(*) INTO fired
    FROM changed AS c
    WHERE (c.after).state = 'firing' AND coalesce((c.before).state, 'inactive') IN ('inactive', 'pending');

    INSERT INTO pgops.alert_evaluation AS e (evaluated_at) VALUES (p_at)
    ON CONFLICT (only_one) DO UPDATE SET evaluated_at = excluded.evaluated_at;
    RETURN fired;
END
$$;

REVOKE ALL ON FUNCTION pgops.evaluate_alerts_at(timestamp with time zone) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.evaluate_alerts_at(timestamp with time zone) TO pgops;
