-- collector: database_size
-- scope: instance
-- interval: 600
-- timeout: 30
-- metric: database_size_mb unit=MB kind=gauge category=capacity direction=above warning=1000 critical=5000
--   Disk space of a database (1 MB is 1048576 bytes). Every ten minutes, since the server reads the size of each
--   file. It lacks what is in a tablespace that the server cannot read, and has no value if that is the database's
--   own.
SELECT
    d.datname AS database,
    -- The size of a database that was dropped meanwhile is an error, but not the privilege, which reads the same
    -- entry of the session's cache at the same moment.
    -- And 0 is not a size, but that its files cannot be read.
    CASE WHEN has_database_privilege(d.oid, 'CONNECT') IS NOT NULL THEN nullif(pg_database_size(d.oid), 0) END
    / 1048576.0 AS database_size_mb
FROM pg_database AS d
