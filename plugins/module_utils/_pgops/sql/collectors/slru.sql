-- collector: slru
-- scope: instance
-- interval: 60
-- metric: slru_blocks_hit unit=count kind=counter category=performance
--   Pages of the small caches (of transactions, subtransactions, multixacts and others) that were found in memory.
-- metric: slru_blocks_read unit=count kind=counter category=performance
--   Pages of them read from disk. If many, there are long transactions with many subtransactions or multixacts; from
--   PostgreSQL 17 the caches can be made larger (subtransaction_buffers and others).
-- metric: slru_blocks_written unit=count kind=counter category=performance
--   Pages of them written to disk.
SELECT
    -- PostgreSQL before 17 has other names.
    CASE s.name
        WHEN 'CommitTs' THEN 'commit_timestamp'
        WHEN 'MultiXactMember' THEN 'multixact_member'
        WHEN 'MultiXactOffset' THEN 'multixact_offset'
        WHEN 'Notify' THEN 'notify'
        WHEN 'Serial' THEN 'serializable'
        WHEN 'Subtrans' THEN 'subtransaction'
        WHEN 'Xact' THEN 'transaction'
        ELSE s.name
    END AS slru,
    s.blks_hit AS slru_blocks_hit,
    s.blks_read AS slru_blocks_read,
    s.blks_written AS slru_blocks_written,
    s.stats_reset AS counted_since
FROM pg_stat_slru AS s
