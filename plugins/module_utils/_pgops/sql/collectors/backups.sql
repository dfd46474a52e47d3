-- collector: backups
-- scope: instance
-- interval: 60
-- role: primary
-- metric: backup_age_seconds unit=s category=availability
--   Time since the newest good backup of a type was completed; it grows while backups fail or do not run.
-- metric: backup_size_mb unit=MB category=capacity
--   Its size in the repository.
-- metric: backup_duration_seconds unit=s category=performance
--   How long it took.
-- metric: backup_failed unit=count category=availability direction=above warning=0
--   1 if the last backup of any type failed, or was killed.
-- metric: backup_running_seconds unit=s category=performance
--   Time since the running backup began. No value while none runs.
-- metric: backups unit=count category=availability
--   Backups in the repository.
-- metric: repository_size_mb unit=MB category=capacity
--   Size of the WAL, the backups and the dumps in the repository, of this system identifier and major version.
-- metric: repository_seen_age_seconds unit=s category=availability direction=above warning=1800 critical=7200
--   Time since the job catalogue looked at the backups in the repository: older than that is what the others tell.
-- metric: recoverable unit=count category=availability direction=below warning=1 critical=1
--   1 if the cluster can be recovered to its newest archived WAL; 0 without a base backup, however healthy archiving
--   is, and where a segment is missing. The view recovery_status has the obstacle.
-- metric: recovery_window_seconds unit=s category=availability
--   Length of the window from which each moment up to the newest archived WAL can be recovered; 0 if there is none.
-- metric: repository_lost_age_seconds unit=s category=availability direction=below warning=604800 critical=86400
--   Time since backups or WAL were last found to be gone that this collection had not removed: others did it, or the
--   repository was set back in time. No value if that never was. The view recovery_status has what it was.
WITH own AS (
    SELECT s.* FROM pgops.recovery_status AS s
    WHERE s.generation = pgops.server_generation() AND s.backed_up
),

taken AS (
    SELECT b.* FROM pgops.backup_history AS b
    WHERE
        EXISTS (SELECT FROM own)
        AND coalesce(b.generation, pgops.server_generation()) = pgops.server_generation()
        -- Dumps of single databases have a collector of their own.
        AND b.database_name IS NULL
),

newest AS (
    SELECT DISTINCT ON (t.backup_type) t.* FROM taken AS t
    WHERE t.status = 'completed' AND t.damage IS NULL
    ORDER BY t.backup_type ASC, t.timeline DESC, t.wal_end_lsn DESC
)

SELECT
    n.backup_type,
    extract(EPOCH FROM clock_timestamp() - n.completed_at) AS backup_age_seconds,
    n.backup_file_size / 1048576.0 AS backup_size_mb,
    n.duration_seconds AS backup_duration_seconds,
    NULL::integer AS backup_failed,
    NULL::numeric AS backup_running_seconds,
    NULL::bigint AS backups,
    NULL::numeric AS repository_size_mb,
    NULL::numeric AS repository_seen_age_seconds,
    NULL::integer AS recoverable,
    NULL::numeric AS recovery_window_seconds,
    NULL::numeric AS repository_lost_age_seconds
FROM newest AS n
UNION ALL
SELECT
    NULL AS backup_type,
    NULL AS backup_age_seconds,
    NULL AS backup_size_mb,
    NULL AS backup_duration_seconds,
    (
        SELECT (t.status = 'failed')::integer FROM taken AS t
        WHERE t.status IN ('completed', 'failed', 'expired') AND t.ended_at IS NOT NULL
        ORDER BY t.ended_at DESC
        LIMIT 1
    ) AS backup_failed,
    (
        SELECT extract(EPOCH FROM clock_timestamp() - min(t.started_at)) FROM taken AS t
        WHERE t.status = 'running'
    ) AS backup_running_seconds,
    (
        SELECT count(*) FROM taken AS t
        WHERE t.status = 'completed'
    ) AS backups,
    (
        o.backup_bytes + coalesce(o.wal_bytes, 0) + (
            SELECT coalesce(sum(b.backup_file_size), 0) FROM pgops.backup_history AS b
            WHERE b.generation = o.generation AND b.database_name IS NOT NULL AND b.status = 'completed'
        )
    ) / 1048576.0 AS repository_size_mb,
    extract(EPOCH FROM clock_timestamp() - o.backups_seen_at) AS repository_seen_age_seconds,
    o.recoverable::integer AS recoverable,
    CASE
        WHEN o.recoverable
            THEN (
                SELECT extract(EPOCH FROM w.ends_at - w.starts_at) FROM pgops.recovery_windows AS w
                WHERE w.generation = o.generation
                ORDER BY w.timeline DESC, w.start_lsn DESC
                LIMIT 1
            )
        WHEN NOT o.recoverable THEN 0
    END AS recovery_window_seconds,
    extract(EPOCH FROM clock_timestamp() - o.lost_at) AS repository_lost_age_seconds
FROM own AS o
