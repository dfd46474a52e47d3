-- collector: dumps
-- scope: instance
-- interval: 60
-- role: primary
-- metric: dump_age_seconds unit=s category=availability
--   Time since the newest good dump of a database was completed; it grows while dumps fail or do not run.
-- metric: dump_size_mb unit=MB category=capacity
--   Its size in the repository.
-- metric: dump_duration_seconds unit=s category=performance
--   How long it took.
-- metric: dump_failed unit=count category=availability direction=above warning=0
--   1 if the last dump of a database failed, or was killed.
WITH taken AS (
    SELECT b.* FROM pgops.backup_history AS b
    WHERE b.generation = pgops.server_generation() AND b.database_name IS NOT NULL
),

newest AS (
    SELECT DISTINCT ON (t.database_name) t.* FROM taken AS t
    WHERE t.status = 'completed' AND t.damage IS NULL
    ORDER BY t.database_name ASC, t.timeline DESC, t.wal_start_lsn DESC, t.ended_at DESC
),

ended AS (
    SELECT DISTINCT ON (t.database_name) t.* FROM taken AS t
    WHERE
        t.status = 'completed'
        -- Of one that was dropped nothing fails. The name of one that is of other bytes is escaped.
        OR t.status = 'failed' AND (
            t.database_name LIKE '%\\x%' OR EXISTS (
                SELECT FROM pg_catalog.pg_database AS d
                WHERE d.datname = t.database_name
            )
        )
    ORDER BY t.database_name ASC, t.ended_at DESC
)

SELECT
    e.database_name AS database,
    extract(EPOCH FROM clock_timestamp() - n.completed_at) AS dump_age_seconds,
    n.backup_file_size / 1048576.0 AS dump_size_mb,
    n.duration_seconds AS dump_duration_seconds,
    (e.status = 'failed')::integer AS dump_failed
FROM ended AS e
LEFT JOIN newest AS n ON e.database_name = n.database_name
