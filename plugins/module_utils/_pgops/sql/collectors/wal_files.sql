-- collector: wal_files
-- scope: instance
-- interval: 300
-- metric: wal_size_mb unit=MB kind=gauge category=capacity
--   Disk space of pg_wal (1 MB is 1048576 bytes). It grows with slots, a failing archive_command and wal_keep_size.
-- metric: wal_files unit=count kind=gauge category=capacity
--   Files in pg_wal.
SELECT
    coalesce(sum(w.size), 0) / 1048576.0 AS wal_size_mb,
    count(*) AS wal_files
FROM pg_ls_waldir() AS w
