-- collector: background_writer
-- scope: instance
-- interval: 60
-- metric: buffers_clean unit=count kind=counter category=performance
--   Buffers that the background writer wrote.
-- metric: maxwritten_clean unit=count kind=counter category=performance
--   Times that the background writer stopped because bgwriter_lru_maxpages was reached.
-- metric: buffers_alloc unit=count kind=counter category=performance
--   Buffers allocated.
-- metric: buffers_backend unit=count kind=counter category=performance
--   Buffers that sessions had to write themselves; up to PostgreSQL 16 (for later versions see the collector io).
-- metric: buffers_backend_fsync unit=count kind=counter category=performance
--   Times that sessions had to call fsync themselves; up to PostgreSQL 16.
SELECT
    b.buffers_clean,
    b.maxwritten_clean,
    b.buffers_alloc,
    (to_jsonb(b) ->> 'buffers_backend')::bigint AS buffers_backend,
    (to_jsonb(b) ->> 'buffers_backend_fsync')::bigint AS buffers_backend_fsync,
    b.stats_reset AS counted_since
FROM pg_stat_bgwriter AS b
