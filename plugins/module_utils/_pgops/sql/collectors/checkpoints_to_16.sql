-- collector: checkpoints_to_16
-- scope: instance
-- interval: 60
-- versions: -16
-- metric: checkpoints_timed unit=count kind=counter category=performance
--   Checkpoints started by checkpoint_timeout. The server also counts those that it skips when idle.
-- metric: checkpoints_requested unit=count kind=counter category=performance
--   Checkpoints started for another reason, mostly max_wal_size. If these prevail, it is too small.
-- metric: checkpoint_write_time_ms unit=ms kind=counter category=performance
--   Time that checkpoints spent writing, spread over checkpoint_completion_target.
-- metric: checkpoint_sync_time_ms unit=ms kind=counter category=performance
--   Time that checkpoints spent in fsync.
-- metric: buffers_checkpoint unit=count kind=counter category=performance
--   Buffers that checkpoints wrote.
SELECT
    b.checkpoints_timed,
    b.checkpoints_req AS checkpoints_requested,
    b.checkpoint_write_time AS checkpoint_write_time_ms,
    b.checkpoint_sync_time AS checkpoint_sync_time_ms,
    b.buffers_checkpoint,
    b.stats_reset AS counted_since
FROM pg_stat_bgwriter AS b
