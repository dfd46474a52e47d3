-- object: function pgops.rule_verdicts(pgops.alert_rule, timestamp with time zone, timestamp with time zone)
-- requires: samples_between, sample_steps, series_labels, alert_verdict
CREATE OR REPLACE FUNCTION pgops.rule_verdicts(
    p_rule pgops.alert_rule, p_from timestamptz, p_to timestamptz
)
RETURNS TABLE (series_id integer, verdicts text[])
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- What the stored samples say about a rule each minute from p_from to p_to, by series, of those that ever breach it.
-- Each sample is put to the moments in whose window it is. Where there is none the series counts as gone, not as
-- missing: whether its collector looked for it is not asked.
    WITH measured AS MATERIALIZED (
        SELECT v.series_id, v.collected_at AS at, v.sample AS amount, NULL::double precision AS lasted
        FROM pgops.samples_between(ARRAY[p_rule.metric_name], p_from - p_rule.evaluation_window, p_to) AS v
        WHERE p_rule.evaluation NOT IN ('rate', 'increase')
        UNION ALL
        SELECT t.series_id, t.ended_at, t.increase, extract(EPOCH FROM t.ended_at - t.started_at)
        FROM pgops.sample_steps(p_rule.metric_name, p_from - p_rule.evaluation_window, p_to) AS t
        WHERE p_rule.evaluation IN ('rate', 'increase')
    ),

    wanted AS MATERIALIZED (
        SELECT s.series_id
        FROM (SELECT DISTINCT m.series_id FROM measured AS m) AS m
        INNER JOIN pgops.series AS s ON s.series_id = m.series_id
        INNER JOIN pgops.node AS n ON n.node_id = s.node_id
        WHERE pgops.series_labels(s, n.node) @> p_rule.labels
    ),

    seen AS MATERIALIZED (
        SELECT
            m.series_id, g.moment,
            CASE p_rule.evaluation
                WHEN 'avg' THEN avg(m.amount)
                WHEN 'min' THEN min(m.amount)
                WHEN 'max' THEN max(m.amount)
                WHEN 'increase' THEN sum(m.amount)
                WHEN 'rate' THEN sum(m.amount) / nullif(sum(m.lasted), 0)
                ELSE (array_agg(m.amount ORDER BY m.at DESC))[1]
            END AS outcome
        FROM measured AS m
        INNER JOIN wanted AS w ON w.series_id = m.series_id
        CROSS JOIN LATERAL (
            SELECT
                greatest(ceil(extract(EPOCH FROM m.at - p_from) / 60), 0)::integer AS first,
                least(
                    ceil(extract(EPOCH FROM m.at + p_rule.evaluation_window - p_from) / 60) - 1,
                    floor(extract(EPOCH FROM p_to - p_from) / 60)
                )::integer AS last
        ) AS b
        CROSS JOIN LATERAL generate_series(b.first, b.last) AS g (moment)
        GROUP BY m.series_id, g.moment
    ),

    judged AS MATERIALIZED (
        SELECT s.series_id, s.moment, pgops.alert_verdict(p_rule, 'present', s.outcome) AS verdict
        FROM seen AS s
        WHERE s.outcome IS NOT NULL
    ),

    breaching AS (
        SELECT DISTINCT j.series_id FROM judged AS j WHERE j.verdict = 'breached'
    )

    SELECT b.series_id, array_agg(coalesce(j.verdict, 'gone') ORDER BY g.moment)
    FROM breaching AS b
    CROSS JOIN generate_series(
        0, floor(extract(EPOCH FROM p_to - p_from) / 60)::integer
    ) AS g (moment)
    LEFT JOIN judged AS j ON j.series_id = b.series_id AND j.moment = g.moment
    GROUP BY b.series_id;
$$;

REVOKE ALL ON FUNCTION pgops.rule_verdicts(
    pgops.alert_rule, timestamp with time zone, timestamp with time zone
) FROM PUBLIC;
