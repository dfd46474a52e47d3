-- object: function pgops.alert_values(pgops.alert_rule[], timestamp with time zone)
-- requires: sample_steps, series_labels
CREATE OR REPLACE FUNCTION pgops.alert_values(p_rules pgops.alert_rule[], p_at timestamptz)
RETURNS TABLE (rule_id uuid, series_id integer, found text, metric_value double precision)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
SET enable_nestloop = off
AS $$
-- What rules compare with their thresholds at p_at: one row for each of a rule's series that is in a shape which was in
-- use in the window, or the day before. found: "present" with a value; "gone" for what its collector measured before,
-- and no longer found in its last two runs without an error; "missing" for what is not known.
--
-- The bounds are variables, since with custom plans the partitions of all other days are excluded before planning.
-- Linear in series and samples: the array of a round is taken apart once, beside that of the series at its places,
-- and what the planner cannot know the size of is joined by hashes. A lateral part is a look by index for each shape.
#variable_conflict use_column
DECLARE
    until timestamptz := p_at;
    since timestamptz := p_at - (SELECT max(r.evaluation_window) FROM unnest(p_rules) AS r);
BEGIN
    RETURN QUERY
    WITH asked AS MATERIALIZED (
        SELECT
            r.rule_id, m.metric_id, m.metric_name, r.labels, r.evaluation, until - r.evaluation_window AS since,
            (
                SELECT array_agg(c.collector) FROM pgops.collector AS c WHERE m.metric_name = ANY (c.metrics)
            ) AS collectors
        FROM unnest(p_rules) AS r
        INNER JOIN pgops.metric AS m ON m.metric_name = r.metric_name
    ),

    wanted AS MATERIALIZED (
        SELECT a.rule_id, s.series_id, s.node_id, a.evaluation, a.since, a.metric_name
        FROM asked AS a
        INNER JOIN pgops.series AS s ON s.metric_id = a.metric_id
        INNER JOIN pgops.node AS n ON n.node_id = s.node_id
        WHERE a.labels = '{}' OR pgops.series_labels(s, n.node) @> a.labels
    ),

    earliest AS MATERIALIZED (
        SELECT w.series_id, min(w.since) AS since FROM wanted AS w GROUP BY w.series_id
    ),

    -- By shape, the series at its places, NULL where nobody wants it; and the longest window of theirs: a long one is
    -- for a collector that runs seldom, whose rounds are a few.
    looked_at AS MATERIALIZED (
        SELECT o.shape_id, array_agg(e.series_id ORDER BY o.place) AS series_ids, min(e.since) AS since
        FROM pgops.shape AS h
        INNER JOIN pgops.shape_series AS o ON o.shape_id = h.shape_id
        LEFT JOIN earliest AS e ON e.series_id = o.series_id
        WHERE h.last_used_on >= least(since, until - interval '1 day')::date
        GROUP BY o.shape_id
        HAVING count(e.series_id) > 0
    ),

    known AS MATERIALIZED (
        SELECT DISTINCT p.series_id
        FROM looked_at AS l CROSS JOIN LATERAL unnest(l.series_ids) AS p (series_id)
        WHERE p.series_id IS NOT NULL
    ),

    sampled AS MATERIALIZED (
        SELECT v.series_id, r.collected_at, v.sample
        FROM looked_at AS l
        CROSS JOIN LATERAL (
            SELECT o.collected_at, o.sample_values FROM pgops.round AS o
            WHERE
                o.shape_id = l.shape_id AND o.collected_at > since AND o.collected_at > l.since
                AND o.collected_at <= until
            OFFSET 0
        ) AS r
        CROSS JOIN LATERAL unnest(l.series_ids, r.sample_values) AS v (series_id, sample)
        WHERE v.series_id IS NOT NULL AND v.sample IS NOT NULL AND v.sample <> 'NaN'
    ),

    newest AS MATERIALIZED (
        SELECT DISTINCT ON (v.series_id) v.series_id, v.collected_at, v.sample
        FROM sampled AS v
        ORDER BY v.series_id, v.collected_at DESC
    ),

    aggregated AS MATERIALIZED (
        SELECT
            w.rule_id, w.series_id,
            CASE w.evaluation
                WHEN 'avg' THEN avg(v.sample) WHEN 'min' THEN min(v.sample) WHEN 'max' THEN max(v.sample)
            END AS outcome
        FROM wanted AS w
        INNER JOIN sampled AS v ON v.series_id = w.series_id
        WHERE w.evaluation IN ('avg', 'min', 'max') AND v.collected_at > w.since
        GROUP BY w.rule_id, w.series_id, w.evaluation
    ),

    grown AS MATERIALIZED (
        SELECT
            w.rule_id, w.series_id,
            CASE w.evaluation
                WHEN 'increase' THEN sum(t.increase)
                ELSE sum(t.increase) / nullif(sum(extract(EPOCH FROM t.ended_at - t.started_at)), 0)::double precision
            END AS outcome
        FROM (
            SELECT DISTINCT w.metric_name, w.since FROM wanted AS w WHERE w.evaluation IN ('rate', 'increase')
        ) AS m
        CROSS JOIN LATERAL pgops.sample_steps(m.metric_name, m.since, until) AS t
        INNER JOIN wanted AS w ON w.series_id = t.series_id AND w.since = m.since
        WHERE w.evaluation IN ('rate', 'increase')
        GROUP BY w.rule_id, w.series_id, w.evaluation
    ),

    -- Each report is of the runs since the one before: what the last but one followed was not found by a whole run.
    reported AS MATERIALIZED (
        SELECT s.node_id, s.other ->> 'collector' AS collector, (array_agg(r.collected_at ORDER BY r.collected_at DESC))[2]
            AS last_but_one
        FROM pgops.metric AS m
        INNER JOIN pgops.series AS s ON s.metric_id = m.metric_id
        CROSS JOIN LATERAL (
            SELECT o.collected_at
            FROM pgops.shape_series AS p
            INNER JOIN pgops.shape AS h ON h.shape_id = p.shape_id
            CROSS JOIN LATERAL (
                SELECT o.collected_at FROM pgops.round AS o
                WHERE
                    o.shape_id = p.shape_id AND o.collected_at > since AND o.collected_at <= until
                    AND o.sample_values[p.place] = 0
                OFFSET 0
            ) AS o
            WHERE p.series_id = s.series_id AND h.last_used_on >= since::date
            OFFSET 0
        ) AS r
        WHERE m.metric_name = 'collector_errors'
        GROUP BY s.node_id, s.other ->> 'collector'
    ),

    looked_for AS MATERIALIZED (
        SELECT a.rule_id, k.node_id, max(k.last_but_one) AS looked_at
        FROM asked AS a
        INNER JOIN reported AS k ON k.collector = ANY (a.collectors) AND k.last_but_one > a.since
        GROUP BY a.rule_id, k.node_id
    )

    SELECT
        w.rule_id, w.series_id,
        CASE WHEN o.is_gone THEN 'gone' WHEN o.outcome IS NULL THEN 'missing' ELSE 'present' END,
        CASE WHEN NOT o.is_gone THEN o.outcome END
    FROM wanted AS w
    INNER JOIN known AS k ON k.series_id = w.series_id
    LEFT JOIN newest AS v ON v.series_id = w.series_id
    LEFT JOIN aggregated AS a ON a.rule_id = w.rule_id AND a.series_id = w.series_id
    LEFT JOIN grown AS g ON g.rule_id = w.rule_id AND g.series_id = w.series_id
    LEFT JOIN looked_for AS f ON f.rule_id = w.rule_id AND f.node_id = w.node_id
    CROSS JOIN LATERAL (
        SELECT
            coalesce(f.looked_at > coalesce(v.collected_at, '-infinity'), FALSE) AS is_gone,
            CASE
                WHEN w.evaluation IN ('rate', 'increase') THEN g.outcome
                WHEN w.evaluation <> 'last' THEN a.outcome
                WHEN v.collected_at > w.since THEN v.sample
            END AS outcome
    ) AS o;
END
$$;

REVOKE ALL ON FUNCTION pgops.alert_values(pgops.alert_rule[], timestamp with time zone) FROM PUBLIC;
