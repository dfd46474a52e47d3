-- collector: checkpoints
-- scope: instance
-- interval: 60
-- versions: 17-
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
-- metric: restartpoints_timed unit=count kind=counter category=performance
--   Restartpoints of a standby started by checkpoint_timeout.
-- metric: restartpoints_requested unit=count kind=counter category=performance
--   Restartpoints started for another reason.
-- metric: restartpoints_done unit=count kind=counter category=performance
--   Restartpoints that were completed.
SELECT
    c.num_timed AS checkpoints_timed,
    c.num_requested AS checkpoints_requested,
    c.write_time AS checkpoint_write_time_ms,
    c.sync_time AS checkpoint_sync_time_ms,
    c.buffers_written AS buffers_checkpoint,
    c.restartpoints_timed,
    c.restartpoints_req AS restartpoints_requested,
    c.restartpoints_done,
    c.stats_reset AS counted_since
FROM pg_stat_checkpointer AS c
