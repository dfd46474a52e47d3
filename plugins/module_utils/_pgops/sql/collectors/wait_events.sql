-- collector: wait_events
-- scope: instance
-- interval: 10
-- metric: waiting_sessions unit=count category=performance
--   Client sessions and their parallel workers that run a statement, by the type of their wait event. 'none' uses the
--   CPU, Lock waits for another session, LWLock for internal structures of the server, IO for the disk, IPC for
--   another process, Client for the network, Buffer (before PostgreSQL 19: BufferPin) for another user of a page in
--   memory. Without the collector's own session.
WITH kinds (wait_event_type) AS (
    VALUES
    ('none'), ('Activity'), ('Client'), ('Extension'), ('IO'), ('IPC'), ('Lock'), ('LWLock'), ('Timeout'), ('other'),
    -- Since PostgreSQL 19 with the locks of buffers' contents, which were an LWLock.
    (CASE WHEN current_setting('server_version_num')::integer >= 190000 THEN 'Buffer' ELSE 'BufferPin' END)
),

sessions AS (
    SELECT
        a.pid,
        coalesce(a.wait_event_type, 'none') AS wait_event_type
    FROM pg_stat_activity AS a
    WHERE
        a.state = 'active'
        AND a.backend_type IN ('client backend', 'parallel worker')
        AND a.pid <> pg_backend_pid()
)

SELECT
    k.wait_event_type,
    count(s.pid) AS waiting_sessions
FROM kinds AS k
LEFT JOIN sessions AS s
    ON
        k.wait_event_type = s.wait_event_type
        OR (k.wait_event_type = 'other' AND s.wait_event_type NOT IN (SELECT o.wait_event_type FROM kinds AS o))
GROUP BY k.wait_event_type
