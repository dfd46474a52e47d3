-- collector: io
-- scope: instance
-- interval: 60
-- versions: 16-
-- metric: io_reads unit=count kind=counter category=performance
--   Read operations, by kind of process, object and context (vacuum and bulk operations reuse a few buffers).
-- metric: io_read_bytes unit=bytes kind=counter category=performance
--   Bytes read.
-- metric: io_read_time_ms unit=ms kind=counter category=performance
--   Time of these reads; no value if track_io_timing (for WAL track_wal_io_timing) is off.
-- metric: io_writes unit=count kind=counter category=performance
--   Write operations. Those of client backends on relations should have been done by the checkpointer and the
--   background writer.
-- metric: io_write_bytes unit=bytes kind=counter category=performance
--   Bytes written.
-- metric: io_write_time_ms unit=ms kind=counter category=performance
--   Time of these writes; no value if it is not measured.
-- metric: io_extends unit=count kind=counter category=performance
--   Operations that extended relations.
-- metric: io_hits unit=count kind=counter category=performance
--   Blocks found in shared or local buffers.
-- metric: io_evictions unit=count kind=counter category=performance
--   Buffers reused for another block. If many, shared_buffers is too small.
-- metric: io_fsyncs unit=count kind=counter category=performance
--   Calls of fsync. Those of client backends should have been done by the checkpointer.
WITH counted AS (
    SELECT
        i.backend_type,
        i.object,
        i.context,
        i.reads,
        i.writes,
        i.extends,
        i.hits,
        i.evictions,
        i.fsyncs,
        i.stats_reset,
        -- PostgreSQL 18 counts bytes; before, each operation was one block.
        (to_jsonb(i) ->> 'op_bytes')::numeric AS op_bytes,
        (to_jsonb(i) ->> 'read_bytes')::numeric AS read_bytes,
        (to_jsonb(i) ->> 'write_bytes')::numeric AS write_bytes,
        CASE WHEN t.measured THEN i.read_time END AS read_time,
        CASE WHEN t.measured THEN i.write_time END AS write_time
    FROM pg_stat_io AS i
    CROSS JOIN LATERAL (
        SELECT
            current_setting(
                CASE i.object WHEN 'wal' THEN 'track_wal_io_timing' ELSE 'track_io_timing' END
            )::boolean AS measured
    ) AS t
)

SELECT
    c.backend_type,
    c.object,
    c.context,
    c.reads AS io_reads,
    coalesce(c.read_bytes, c.reads * c.op_bytes) AS io_read_bytes,
    c.read_time AS io_read_time_ms,
    c.writes AS io_writes,
    coalesce(c.write_bytes, c.writes * c.op_bytes) AS io_write_bytes,
    c.write_time AS io_write_time_ms,
    c.extends AS io_extends,
    c.hits AS io_hits,
    c.evictions AS io_evictions,
    c.fsyncs AS io_fsyncs,
    c.stats_reset AS counted_since
FROM counted AS c
-- Most combinations are never used: a series that appears with its first value costs nothing before.
WHERE greatest(c.reads, c.writes, c.extends, c.hits, c.fsyncs) > 0
