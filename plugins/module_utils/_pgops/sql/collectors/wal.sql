-- collector: wal
-- scope: instance
-- interval: 60
-- metric: wal_bytes unit=bytes kind=counter category=performance
--   WAL written by this server.
-- metric: wal_records unit=count kind=counter category=performance
--   WAL records written.
-- metric: wal_fpi unit=count kind=counter category=performance
--   Full page images in the WAL. If many, checkpoints are too frequent.
-- metric: wal_fpi_bytes unit=bytes kind=counter category=performance
--   Bytes of the full page images, since PostgreSQL 19: a large share of wal_bytes is what wal_compression and rarer
--   checkpoints save.
-- metric: wal_buffers_full unit=count kind=counter category=performance
--   Times that WAL went to disk because wal_buffers was full.
SELECT
    w.wal_bytes,
    w.wal_records,
    w.wal_fpi,
    (to_jsonb(w) ->> 'wal_fpi_bytes')::numeric AS wal_fpi_bytes,
    w.wal_buffers_full,
    w.stats_reset AS counted_since
FROM pg_stat_wal AS w
