-- collector: checksums
-- scope: instance
-- interval: 60
-- metric: checksum_failures unit=count kind=counter category=availability direction=above warning=0 critical=0
--   Blocks read with a wrong checksum, by database; without a database for the shared catalogs. Each one means a
--   damaged disk, memory or file: save the node, fail over, restore. No value if checksums are off.
SELECT
    s.datname AS database,
    s.datid AS identity,
    s.checksum_failures,
    s.stats_reset AS counted_since
FROM pg_stat_database AS s
