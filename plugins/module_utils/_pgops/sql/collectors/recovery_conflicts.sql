-- collector: recovery_conflicts
-- scope: instance
-- interval: 60
-- role: standby
-- metric: recovery_conflicts unit=count kind=counter category=availability
--   Queries that recovery cancelled, by reason. snapshot: rows that they still needed were vacuumed
--   (hot_standby_feedback prevents that); lock: DDL, or the truncation at the end of a VACUUM; for both,
--   max_standby_streaming_delay is the time they get. tablespace: it was dropped; bufferpin: recovery needed a buffer
--   that they used; deadlock: with recovery; active_logicalslot (16 and newer): its slot was invalidated.
WITH kind (reason) AS (
    VALUES ('tablespace'), ('lock'), ('snapshot'), ('bufferpin'), ('deadlock'), ('active_logicalslot')
)

SELECT
    c.datname AS database,
    c.datid AS identity,
    k.reason,
    (to_jsonb(c) ->> concat('confl_', k.reason))::bigint AS recovery_conflicts,
    pg_stat_get_db_stat_reset_time(c.datid) AS counted_since
FROM pg_stat_database_conflicts AS c
INNER JOIN pg_database AS d ON c.datid = d.oid
CROSS JOIN kind AS k
WHERE d.datallowconn OR NOT d.datistemplate
