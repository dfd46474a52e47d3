-- object: function pgops.heed_watch(text, text, jsonb)
CREATE OR REPLACE FUNCTION pgops.heed_watch(p_cluster text, p_node text, p_alerts jsonb)
RETURNS integer
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Silences what `pgops watch` on a node's host has told people already: p_alerts are its alerts that fire, an array of
-- {"rule": ..., "labels": {...}}. Each silence lasts for five minutes unless this is called again, and ends with what it
-- is for; what fires then is told. Returns how many there are.
    WITH heeded AS MATERIALIZED (
        SELECT
            jsonb_strip_nulls(jsonb_build_object(
                'cluster', p_cluster, 'node', CASE WHEN s.of_node THEN p_node END, 'rule_name', s.rule_name,
                'mount', CASE WHEN t.rule = 'disk_full' THEN t.labels ->> 'mount' END
            )) AS labels,
            min(t.rule) AS rule
        FROM jsonb_to_recordset(p_alerts) AS t (rule text, labels jsonb)
        INNER JOIN (
            VALUES
            ('instance_down', NULL, TRUE),
            ('instance_down', 'standby_missing', FALSE),
            ('instance_hung', NULL, TRUE),
            ('instance_hung', 'standby_missing', FALSE),
            ('peer_down', 'standby_missing', FALSE),
            ('connections_exhausted', 'connections', TRUE),
            ('writes_refused', 'xid_wraparound', TRUE),
            ('disk_full', 'disk_usage', TRUE),
            ('disk_full', 'disk_filling', TRUE),
            ('job_stale', 'collector_stale', TRUE),
            ('job_failing', 'collector_stale', TRUE)
        ) AS s (rule, rule_name, of_node) ON t.rule = s.rule
        WHERE t.rule NOT LIKE 'job%' OR t.labels ->> 'job' IN ('collect', 'inspect', 'queries')
        GROUP BY 1
        ORDER BY 1
        LIMIT 50
    ),

    open AS MATERIALIZED (
        SELECT s.silence_id, s.starts_at, s.labels, h.rule
        FROM pgops.silence AS s
        LEFT JOIN heeded AS h ON s.labels = h.labels
        WHERE s.created_by = 'pgops watch' AND s.ends_at > clock_timestamp()
    ),

    kept AS (
        UPDATE pgops.silence AS s
        SET
            ends_at = CASE
                WHEN o.rule IS NOT NULL THEN clock_timestamp() + interval '5 minutes'
                ELSE greatest(clock_timestamp(), o.starts_at + interval '1 second')
            END
        FROM open AS o
        WHERE
            s.silence_id = o.silence_id
            -- What is of the whole cluster may be another node's as well, and ends by itself.
            AND (o.rule IS NOT NULL OR (o.labels ->> 'cluster' = p_cluster AND o.labels ->> 'node' = p_node))
    ),

    begun AS (
        INSERT INTO pgops.silence (kind, labels, starts_at, ends_at, comment, created_by)
        SELECT
            'silence', h.labels, clock_timestamp(), clock_timestamp() + interval '5 minutes',
            'told by pgops watch on the host of ' || p_node || ': ' || h.rule, 'pgops watch'
        FROM heeded AS h
        WHERE NOT EXISTS (SELECT FROM open AS o WHERE o.labels = h.labels)
    )

    SELECT count(*)::integer FROM heeded;
$$;

REVOKE ALL ON FUNCTION pgops.heed_watch(text, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.heed_watch(text, text, jsonb) TO pgops;
