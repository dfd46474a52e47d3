-- collector: database_activity
-- scope: instance
-- interval: 60
-- metric: deadlocks unit=count kind=counter category=performance direction=above warning=1 critical=5
--   Deadlocks found since the statistics were reset.
-- metric: cache_hit_ratio unit=% kind=gauge category=performance direction=below warning=95 critical=90
--   Share of block reads served by shared_buffers since the statistics were reset, possibly long ago; for the current
--   share use the rates of blocks_hit and blocks_read. No value if no block was read yet.
-- metric: transactions_committed unit=count kind=counter category=performance
--   Transactions committed, including single statements.
-- metric: transactions_rolled_back unit=count kind=counter category=performance
--   Transactions rolled back, by the client or after an error. If many, statements fail: see the log.
-- metric: blocks_hit unit=count kind=counter category=performance
--   Blocks found in shared_buffers.
-- metric: blocks_read unit=count kind=counter category=performance
--   Blocks read from the operating system, which may have cached them.
-- metric: temp_files unit=count kind=counter category=performance
--   Temporary files created by queries that sort or hash more than work_mem holds.
-- metric: temp_bytes unit=bytes kind=counter category=performance
--   Bytes written to temporary files. If large, find the statements and their plans before you raise work_mem.
-- metric: tuples_returned unit=count kind=counter category=performance
--   Live rows read by sequential scans, and index entries returned by index scans.
-- metric: tuples_fetched unit=count kind=counter category=performance
--   Live rows fetched by index scans.
-- metric: tuples_inserted unit=count kind=counter category=performance
--   Rows inserted.
-- metric: tuples_updated unit=count kind=counter category=performance
--   Rows updated.
-- metric: tuples_deleted unit=count kind=counter category=performance
--   Rows deleted.
-- metric: conflicts unit=count kind=counter category=availability
--   Queries that recovery cancelled on a standby: see max_standby_streaming_delay and hot_standby_feedback.
-- metric: block_read_time_ms unit=ms kind=counter category=performance
--   Time that sessions spent reading blocks; no value if track_io_timing is off.
-- metric: block_write_time_ms unit=ms kind=counter category=performance
--   Time that sessions spent writing blocks; no value if track_io_timing is off.
-- metric: sessions_established unit=count kind=counter category=performance
--   Sessions started. If many start each second, clients connect for each query and need a pool.
-- metric: sessions_abandoned unit=count kind=counter category=availability
--   Sessions whose client disconnected without ending them: clients that crash, networks or firewalls that drop
--   connections.
-- metric: sessions_fatal unit=count kind=counter category=availability
--   Sessions ended by a fatal error.
-- metric: sessions_killed unit=count kind=counter category=availability
--   Sessions ended by an operator, as with pg_terminate_backend().
-- metric: active_time_ms unit=ms kind=counter category=performance
--   Time that sessions spent running statements; its rate is the average number of running statements. Counted when a
--   statement ends.
-- metric: idle_in_transaction_time_ms unit=ms kind=counter category=performance
--   Time that sessions spent idle inside a transaction.
SELECT
    d.datname AS database,
    d.oid AS identity,
    s.deadlocks,
    100.0 * s.blks_hit / nullif(s.blks_hit + s.blks_read, 0) AS cache_hit_ratio,
    s.xact_commit AS transactions_committed,
    s.xact_rollback AS transactions_rolled_back,
    s.blks_hit AS blocks_hit,
    s.blks_read AS blocks_read,
    s.temp_files,
    s.temp_bytes,
    s.tup_returned AS tuples_returned,
    s.tup_fetched AS tuples_fetched,
    s.tup_inserted AS tuples_inserted,
    s.tup_updated AS tuples_updated,
    s.tup_deleted AS tuples_deleted,
    s.conflicts,
    CASE WHEN t.measured THEN s.blk_read_time END AS block_read_time_ms,
    CASE WHEN t.measured THEN s.blk_write_time END AS block_write_time_ms,
    s.sessions AS sessions_established,
    s.sessions_abandoned,
    s.sessions_fatal,
    s.sessions_killed,
    s.active_time AS active_time_ms,
    s.idle_in_transaction_time AS idle_in_transaction_time_ms,
    s.stats_reset AS counted_since
FROM pg_database AS d
INNER JOIN pg_stat_database AS s ON d.oid = s.datid
CROSS JOIN (SELECT current_setting('track_io_timing')::boolean AS measured) AS t
WHERE d.datallowconn OR NOT d.datistemplate
