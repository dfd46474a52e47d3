-- collector: archiver
-- scope: instance
-- interval: 60
-- metric: archived_segments unit=count kind=counter category=availability
--   WAL files archived.
-- metric: archive_failures unit=count kind=counter category=availability
--   Times that archiving a file failed. The server retries it until it succeeds.
-- metric: archive_failing unit=count category=availability direction=above warning=0
--   1 if the last attempt failed: WAL accumulates in pg_wal until the disk is full, and no backup is complete. See
--   the server's log. No value if this server does not archive.
-- metric: archive_age_seconds unit=s category=availability
--   Time since a file was last archived. On an idle server it grows up to archive_timeout, or without limit.
-- metric: archive_ready_segments unit=count category=availability direction=above warning=10 critical=20
--   Files that wait to be archived. If the number grows, archiving is too slow or fails.
WITH archiving AS (
    SELECT
        current_setting('archive_mode') = 'always'
        OR (current_setting('archive_mode') = 'on' AND NOT pg_is_in_recovery()) AS here
)

SELECT
    a.archived_count AS archived_segments,
    a.failed_count AS archive_failures,
    CASE
        WHEN w.here
            THEN coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), FALSE)::integer
    END AS archive_failing,
    CASE WHEN w.here THEN extract(EPOCH FROM clock_timestamp() - a.last_archived_time) END AS archive_age_seconds,
    CASE WHEN w.here THEN f.ready END AS archive_ready_segments,
    a.stats_reset AS counted_since
FROM pg_stat_archiver AS a
CROSS JOIN archiving AS w
CROSS JOIN (
    SELECT count(*) AS ready
    FROM pg_ls_archive_statusdir() AS s
    WHERE s.name LIKE '%.ready'
) AS f
