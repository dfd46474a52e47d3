-- object: function pgops.collector_lateness(timestamp with time zone)
-- requires: samples_between
CREATE OR REPLACE FUNCTION pgops.collector_lateness(p_at timestamptz)
RETURNS TABLE (node_id integer, labels jsonb, derived double precision)
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET plan_cache_mode = force_custom_plan
AS $$
-- How long ago each collector last ran without an error, in intervals of its own. Where a job of the agent runs no
-- more, only that is told, by what it reports of itself (collector "agent" or "inspect"): the age of all others is that
-- at its last report. No value for a collector that the job no longer reports, since it was switched off or is not for
-- the role that the server has now; nor for a job that inspects and is no longer scheduled, which job_age_seconds tells.
#variable_conflict use_column
DECLARE
    since timestamptz := p_at - interval '7 days';
    until timestamptz := p_at;
BEGIN
    RETURN QUERY
    WITH told AS MATERIALIZED (
        SELECT
            s.node_id, c.collector, c.rights = 'all_data' AS inspected,
            max(r.reported_at) AS reported_at, max(f.worked_at) AS worked_at,
            coalesce(max(i.seconds), c.interval_seconds) AS seconds
        FROM pgops.metric AS m
        INNER JOIN pgops.series AS s ON s.metric_id = m.metric_id
        INNER JOIN pgops.node AS n ON n.node_id = s.node_id
        INNER JOIN pgops.collector AS c
            ON c.collector = s.other ->> 'collector'
            AND c.role IN ('any', CASE WHEN n.is_primary THEN 'primary' ELSE 'standby' END)
            -- The job that inspects does so on primaries only.
            AND (c.rights <> 'all_data' OR n.is_primary)
        INNER JOIN pgops.shape_series AS p ON p.series_id = s.series_id
        INNER JOIN pgops.shape AS h ON h.shape_id = p.shape_id AND h.last_used_on >= since::date
        CROSS JOIN LATERAL (
            SELECT o.collected_at AS reported_at FROM pgops.round AS o
            WHERE
                o.shape_id = p.shape_id AND o.collected_at > since AND o.collected_at <= until
                AND o.sample_values[p.place] IS NOT NULL
            ORDER BY o.collected_at DESC LIMIT 1
        ) AS r
        LEFT JOIN LATERAL (
            SELECT o.collected_at AS worked_at FROM pgops.round AS o
            WHERE
                o.shape_id = p.shape_id AND o.collected_at > since AND o.collected_at <= until
                AND o.sample_values[p.place] = 0
            ORDER BY o.collected_at DESC LIMIT 1
        ) AS f ON TRUE
        -- In the same round, where it is not the interval of the collector's file.
        LEFT JOIN LATERAL (
            SELECT o.sample_values[q.place] AS seconds
            FROM pgops.metric AS k
            INNER JOIN pgops.series AS t ON t.metric_id = k.metric_id AND t.node_id = s.node_id AND t.other = s.other
            INNER JOIN pgops.shape_series AS q ON q.series_id = t.series_id AND q.shape_id = p.shape_id
            INNER JOIN pgops.round AS o ON o.shape_id = p.shape_id AND o.collected_at = r.reported_at
            WHERE k.metric_name = 'collector_interval_seconds' AND o.collected_at > since AND o.collected_at <= until
        ) AS i ON TRUE
        WHERE m.metric_name = 'collector_errors' AND c.collector NOT IN ('agent', 'inspect', 'derived')
        GROUP BY s.node_id, c.collector, c.rights, c.interval_seconds
    ),

    job AS MATERIALIZED (
        SELECT t.node_id, t.inspected, max(t.reported_at) AS reported_at FROM told AS t GROUP BY t.node_id, t.inspected
    )

    SELECT j.node_id, jsonb_build_object('collector', c.collector), extract(EPOCH FROM until - j.reported_at)::float8
        / c.interval_seconds
    FROM job AS j
    INNER JOIN pgops.collector AS c ON c.collector = CASE WHEN j.inspected THEN 'inspect' ELSE 'agent' END
    WHERE
        c.interval_seconds > 0
        AND (
            NOT j.inspected
            OR EXISTS (
                SELECT FROM job AS a
                CROSS JOIN LATERAL pgops.samples_between(
                    '{job_age_seconds}', a.reported_at - interval '5 minutes', a.reported_at + interval '5 minutes'
                ) AS g
                WHERE
                    a.node_id = j.node_id AND NOT a.inspected
                    AND g.node_id = a.node_id AND g.labels ->> 'job' = 'inspect'
            )
        )
    UNION ALL
    SELECT
        t.node_id, jsonb_build_object('collector', t.collector),
        extract(EPOCH FROM j.reported_at - coalesce(t.worked_at, since))::float8 / t.seconds
    FROM told AS t
    INNER JOIN job AS j ON j.node_id = t.node_id AND j.inspected = t.inspected
    WHERE t.seconds > 0 AND t.reported_at > j.reported_at - make_interval(secs => 2.5 * t.seconds);
END
$$;

REVOKE ALL ON FUNCTION pgops.collector_lateness(timestamp with time zone) FROM PUBLIC;
