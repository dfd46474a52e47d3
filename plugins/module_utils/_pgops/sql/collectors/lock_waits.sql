-- collector: lock_waits
-- scope: instance
-- interval: 60
-- versions: 19-
-- metric: lock_waits unit=count kind=counter category=performance
--   Waits for another session's lock that lasted longer than deadlock_timeout, by what was locked: transactionid is a
--   row that another transaction has changed.
-- metric: lock_wait_time_ms unit=ms kind=counter category=performance
--   Time that sessions spent in these waits. A wait is counted when it has ended.
-- metric: lock_fastpath_exceeded unit=count kind=counter category=performance
--   Locks of relations for which a session's own memory had no room, so that it took the shared one. If many,
--   statements touch many tables, partitions and indexes: see max_locks_per_transaction.
SELECT
    l.locktype AS lock_type,
    l.waits AS lock_waits,
    l.wait_time AS lock_wait_time_ms,
    CASE WHEN l.locktype = 'relation' THEN l.fastpath_exceeded END AS lock_fastpath_exceeded,
    l.stats_reset AS counted_since
FROM pg_stat_lock AS l
