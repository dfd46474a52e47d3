-- collector: database_activity
-- scope: instance
-- interval: 60
-- metric: deadlocks unit=count kind=counter category=performance direction=above warning=1 critical=5
--   Deadlocks found since the statistics were reset.
-- metric: cache_hit_ratio unit=% kind=gauge category=performance direction=below warning=95 critical=90
--   Share of block reads that shared_buffers served since the statistics were reset; 100 where none was read.
SELECT
    d.datname AS database,
    s.deadlocks,
    coalesce(100.0 * s.blks_hit / nullif(s.blks_hit + s.blks_read, 0), 100) AS cache_hit_ratio
FROM pg_database AS d
INNER JOIN pg_stat_database AS s ON d.oid = s.datid
WHERE d.datallowconn
