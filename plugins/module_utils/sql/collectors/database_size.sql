-- collector: database_size
-- scope: instance
-- interval: 600
-- timeout: 30
-- metric: database_size_mb unit=MB kind=gauge category=capacity direction=above warning=1000 critical=5000
--   Disk space of a database (1 MB is 1048576 bytes). Every ten minutes only, since the server looks at each file.
SELECT
    d.datname AS database,
    pg_database_size(d.oid) / 1048576.0 AS database_size_mb
FROM pg_database AS d
WHERE d.datallowconn
