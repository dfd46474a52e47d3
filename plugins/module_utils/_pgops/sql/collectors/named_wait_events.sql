-- collector: named_wait_events
-- scope: instance
-- interval: 60
-- metric: sessions_in_wait_event unit=count category=performance
--   Sessions of waiting_sessions that wait at this moment for one of the events that most often slow a server down,
--   or for any other, with event "other". One sample a minute: use the average of an hour or more.
WITH known (wait_event_type, wait_event) AS (
    VALUES
    ('Client', 'ClientRead'), ('Client', 'ClientWrite'),
    ('IO', 'BufFileRead'), ('IO', 'BufFileWrite'), ('IO', 'DataFileExtend'), ('IO', 'DataFileRead'),
    ('IO', 'DataFileWrite'), ('IO', 'SLRURead'), ('IO', 'WALSync'), ('IO', 'WALWrite'),
    ('IPC', 'ExecuteGather'), ('IPC', 'MessageQueueSend'), ('IPC', 'SyncRep'),
    ('Lock', 'advisory'), ('Lock', 'extend'), ('Lock', 'relation'), ('Lock', 'transactionid'), ('Lock', 'tuple'),
    ('LWLock', 'BufferMapping'), ('LWLock', 'LockManager'),
    ('LWLock', 'MultiXactMemberSLRU'), ('LWLock', 'MultiXactOffsetSLRU'), ('LWLock', 'ProcArray'),
    ('LWLock', 'SubtransSLRU'), ('LWLock', 'WALInsert'), ('LWLock', 'WALWrite'), ('LWLock', 'XidGen'),
    ('Timeout', 'PgSleep'), ('Timeout', 'VacuumDelay')
    UNION ALL
    -- The locks of buffers' contents.
    SELECT
        b.wait_event_type,
        b.wait_event
    FROM
        (
            VALUES
            ('LWLock', 'BufferContent', FALSE),
            ('Buffer', 'BufferShared', TRUE), ('Buffer', 'BufferShareExclusive', TRUE),
            ('Buffer', 'BufferExclusive', TRUE)
        ) AS b (wait_event_type, wait_event, since_19)
    WHERE b.since_19 = (current_setting('server_version_num')::integer >= 190000)
),

waiting AS (
    SELECT
        k.wait_event_type,
        coalesce(k.wait_event, 'other') AS wait_event
    FROM pg_stat_activity AS a
    -- PostgreSQL 17 spells some of them differently, as WalSync.
    LEFT JOIN known AS k ON a.wait_event_type = k.wait_event_type AND lower(a.wait_event) = lower(k.wait_event)
    WHERE
        a.state = 'active'
        AND a.backend_type IN ('client backend', 'parallel worker')
        AND a.pid <> pg_backend_pid()
        AND a.wait_event IS NOT NULL
)

SELECT
    k.wait_event_type,
    k.wait_event,
    count(w.wait_event) AS sessions_in_wait_event
FROM (
    SELECT * FROM known
    UNION ALL
    VALUES (NULL, 'other')
) AS k
LEFT JOIN waiting AS w
    ON k.wait_event = w.wait_event AND k.wait_event_type IS NOT DISTINCT FROM w.wait_event_type
GROUP BY k.wait_event_type, k.wait_event
