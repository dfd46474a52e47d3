-- object: function pgops.heed_watch(text, text, jsonb)
CREATE OR REPLACE FUNCTION pgops.heed_watch(p_cluster text, p_node text, p_alerts jsonb)
RETURNS integer
LANGUAGE sql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Silences what `pgops watch` on a node's host has told people already: p_alerts are its alerts, an array of
-- {"rule": ..., "labels": {...}}, with "since" and "until" (Unix times) of those that have ended. A silence lasts for
-- three minutes from now unless this is called again, or for three after the end: what fires then is told. Returns how
-- many it knows of.
    WITH heeded AS MATERIALIZED (
        SELECT
            jsonb_strip_nulls(jsonb_build_object(
                'cluster', p_cluster, 'node', CASE WHEN s.of_node THEN p_node END, 'rule_name', s.rule_name,
                'mount', CASE WHEN t.rule = 'disk_full' THEN t.labels ->> 'mount' END
            )) AS labels,
            min(t.rule) AS rule,
            min(coalesce(to_timestamp(t.since) - interval '2 minutes', statement_timestamp())) AS begins_at,
            coalesce(to_timestamp(t.until), statement_timestamp()) + interval '3 minutes' AS ends_at
        FROM jsonb_to_recordset(p_alerts) AS t (
            rule text, labels jsonb, since double precision, until double precision
        )
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
        WHERE
            (t.rule NOT LIKE 'job%' OR t.labels ->> 'job' IN ('collect', 'inspect', 'queries'))
            -- A clock that was set may say that it ended before it began, or will have.
            AND (t.until IS NULL OR (t.since < t.until AND to_timestamp(t.until) <= statement_timestamp()))
        GROUP BY 1, 4
        ORDER BY 4 DESC, 1
        LIMIT 100
    ),

    kept AS (
        UPDATE pgops.silence AS s
        SET ends_at = h.ends_at
        FROM heeded AS h
        WHERE
            s.created_by = 'pgops watch' AND s.labels = h.labels
            AND s.ends_at > statement_timestamp() AND s.ends_at < h.ends_at
    ),

    begun AS (
        INSERT INTO pgops.silence (kind, labels, starts_at, ends_at, comment, created_by)
        SELECT
            'silence', h.labels, h.begins_at, h.ends_at,
            'told by pgops watch on the host of ' || p_node || ': ' || h.rule, 'pgops watch'
        FROM heeded AS h
        WHERE NOT EXISTS (
            SELECT FROM pgops.silence AS s
            WHERE
                s.created_by = 'pgops watch' AND s.labels = h.labels
                AND s.starts_at < h.ends_at AND s.ends_at > h.begins_at
        )
    )

    SELECT count(*)::integer FROM heeded;
$$;

REVOKE ALL ON FUNCTION pgops.heed_watch(text, text, jsonb) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.heed_watch(text, text, jsonb) TO pgops;
