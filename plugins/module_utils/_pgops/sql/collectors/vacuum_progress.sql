-- collector: vacuum_progress
-- scope: instance
-- interval: 60
-- metric: maintenance_running category=performance
--   Sessions that run this operation now, in any database: VACUUM (autovacuum's too), ANALYZE, CREATE INDEX (REINDEX
--   too), CLUSTER (VACUUM FULL and REPACK too), COPY, BASE BACKUP.
-- metric: maintenance_percent unit=% kind=gauge category=performance
--   Progress of the most advanced of them in its current pass; no value if unknown.
-- metric: maintenance_seconds unit=s kind=gauge category=performance
--   Duration of the longest of them. If it hardly advances, it is blocked or throttled.
WITH progress AS (
    SELECT
        v.pid,
        'VACUUM' AS operation,
        v.heap_blks_scanned AS done,
        v.heap_blks_total AS total
    FROM pg_stat_progress_vacuum AS v
    UNION ALL
    SELECT
        a.pid,
        'ANALYZE' AS operation,
        a.sample_blks_scanned AS done,
        a.sample_blks_total AS total
    FROM pg_stat_progress_analyze AS a
    UNION ALL
    SELECT
        i.pid,
        'CREATE INDEX' AS operation,
        CASE WHEN i.blocks_total > 0 THEN i.blocks_done ELSE i.tuples_done END AS done,
        CASE WHEN i.blocks_total > 0 THEN i.blocks_total ELSE i.tuples_total END AS total
    FROM pg_stat_progress_create_index AS i
    UNION ALL
    SELECT
        c.pid,
        'CLUSTER' AS operation,
        c.heap_blks_scanned AS done,
        c.heap_blks_total AS total
    FROM pg_stat_progress_cluster AS c
    UNION ALL
    SELECT
        p.pid,
        'COPY' AS operation,
        p.bytes_processed AS done,
        p.bytes_total AS total
    FROM pg_stat_progress_copy AS p
    UNION ALL
    SELECT
        b.pid,
        'BASE BACKUP' AS operation,
        b.backup_streamed AS done,
        b.backup_total AS total
    FROM pg_stat_progress_basebackup AS b
)

SELECT
    o.operation,
    count(p.pid) AS maintenance_running,
    -- Not least(), which ignores NULL.
    max(
        CASE WHEN p.done > nullif(p.total, 0) THEN 100.0 ELSE 100.0 * p.done / nullif(p.total, 0) END
    ) AS maintenance_percent,
    max(extract(EPOCH FROM clock_timestamp() - coalesce(a.query_start, a.backend_start))) AS maintenance_seconds
FROM (
    VALUES ('VACUUM'), ('ANALYZE'), ('CREATE INDEX'), ('CLUSTER'), ('COPY'), ('BASE BACKUP')
) AS o (operation)
LEFT JOIN progress AS p ON o.operation = p.operation
LEFT JOIN pg_stat_activity AS a ON p.pid = a.pid
GROUP BY o.operation
