-- object: view pgops.real_time_performance
-- requires: latest_values, readable
-- Sessions are shown by the caller's own rights: what a caller without pg_read_all_stats cannot see is NULL.
CREATE OR REPLACE VIEW pgops.real_time_performance AS
SELECT
    CASE WHEN pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') THEN (
        SELECT pg_catalog.count(*) FROM pg_catalog.pg_stat_activity AS a
        WHERE a.state = 'active' AND a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid()
    ) END AS active_connections,
    (
        SELECT pg_catalog.count(DISTINCT l.pid) FROM pg_catalog.pg_locks AS l
        WHERE NOT l.granted)
        AS blocked_connections,
    100.0 * d.blks_hit / nullif(d.blks_hit + d.blks_read, 0) AS cache_hit_ratio,
    -- As last collected, since measuring reads the size of each file of all databases; otherwise measured now.
    coalesce(z.size_mb, CASE WHEN pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') THEN (
        SELECT pg_catalog.sum(pg_catalog.pg_database_size(b.oid)) / 1048576.0 FROM pg_catalog.pg_database AS b
    ) END) / 1024.0 AS database_size_gb,
    -- Running statements, the last one of each session, and others that are in slow_query_log.
    greatest(
        CASE WHEN pg_catalog.pg_has_role('pg_read_all_stats', 'USAGE') THEN (
            SELECT
                pg_catalog.max(1000 * pg_catalog.date_part(
                    'epoch',
                    CASE WHEN a.state = 'active' THEN pg_catalog.clock_timestamp() ELSE a.state_change END
                    - a.query_start
                ))
            FROM pg_catalog.pg_stat_activity AS a
            WHERE
                a.backend_type = 'client backend' AND a.pid <> pg_catalog.pg_backend_pid()
                AND (a.state = 'active' OR a.state_change > pg_catalog.clock_timestamp() - interval '5 minutes')
        ) END,
        (
            SELECT pg_catalog.max(q.execution_time_ms) FROM pgops.slow_query AS q
            WHERE
                q.last_seen_at > pg_catalog.statement_timestamp() - interval '5 minutes'
                AND NOT pg_catalog.pg_is_in_recovery()
                AND q.node_id = (
                    SELECT n.node_id FROM pgops.node AS n
                    WHERE n.is_primary
                    ORDER BY n.last_seen_at DESC
                    LIMIT 1
                )
        )
    ) AS slowest_query_5min,
    d.deadlocks AS total_deadlocks,
    d.temp_bytes / 1048576.0 AS temp_files_mb,
    pg_catalog.clock_timestamp() AS last_updated
FROM (
    SELECT
        pg_catalog.sum(s.blks_hit) AS blks_hit,
        pg_catalog.sum(s.blks_read) AS blks_read,
        pg_catalog.sum(s.deadlocks) AS deadlocks,
        pg_catalog.sum(s.temp_bytes) AS temp_bytes
    FROM pg_catalog.pg_stat_database AS s
) AS d
CROSS JOIN (
    SELECT pg_catalog.sum(v.metric_value) AS size_mb
    FROM pgops.latest_values(ARRAY['database_size_mb'], interval '1 day') AS v
    INNER JOIN pg_catalog.pg_database AS b ON v.database_name = pgops.readable(b.datname)
    WHERE
        v.node_id = (
            SELECT n.node_id FROM pgops.node AS n
            WHERE n.is_primary
            ORDER BY n.last_seen_at DESC
            LIMIT 1
        )
) AS z;

REVOKE ALL ON pgops.real_time_performance FROM PUBLIC;
GRANT SELECT ON pgops.real_time_performance TO pgops, pgops_reader;
