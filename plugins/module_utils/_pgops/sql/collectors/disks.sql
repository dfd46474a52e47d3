-- collector: disks
-- scope: instance
-- interval: 60
-- timeout: 5
-- rights: host
-- metric: disk_size_mb unit=MB kind=gauge category=capacity
--   Size of the file system of the data directory, the WAL, a tablespace, the log or the repository, including the
--   space reserved for root. Those on one file system have the same label mount.
-- metric: disk_free_mb unit=MB kind=gauge category=capacity
--   Free space of that file system for users other than root. The server stops if it has no space for WAL.
-- metric: disk_used_percent unit=% kind=gauge category=capacity direction=above warning=80 critical=90
--   Used share of the file system, as in df (space reserved for root counts neither as used nor as free).
-- metric: disk_inodes_used_percent unit=% kind=gauge category=capacity direction=above warning=80 critical=90
--   Used share of its inodes. At 100 no file can be created, however much space is free. No value if it has no such
--   limit.
SELECT
    -- Only the paths: no SQL shows free space, so the agent reads their file systems.
    'data' AS disk,
    NULL AS tablespace,
    current_setting('data_directory') AS path
UNION ALL
SELECT
    'wal' AS disk,
    NULL AS tablespace,
    current_setting('data_directory') || '/pg_wal' AS path
UNION ALL
SELECT
    'log' AS disk,
    NULL AS tablespace,
    current_setting('log_directory') AS path
WHERE current_setting('logging_collector')::boolean AND current_setting('log_directory') LIKE '/%'
UNION ALL
SELECT
    'tablespace' AS disk,
    t.spcname AS tablespace,
    l.path
FROM (
    SELECT
        s.spcname::text AS spcname,
        -- Of one that cannot be read it would be an error of all.
        CASE
            WHEN strpos(current_setting('pgops.unreadable', TRUE), ',' || s.oid || ',') > 0 THEN NULL
            ELSE s.oid
        END AS oid
    FROM pg_tablespace AS s
) AS t
CROSS JOIN LATERAL pg_tablespace_location(t.oid) AS l (path)
-- Empty for those of the data directory, relative for those created in it (allow_in_place_tablespaces).
WHERE l.path LIKE '/%'
