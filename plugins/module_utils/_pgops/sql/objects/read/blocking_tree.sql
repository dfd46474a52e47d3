-- object: view pgops.blocking_tree
CREATE OR REPLACE VIEW pgops.blocking_tree AS
-- In a queue for an exclusive lock each session waits for all before it, and a list of all paths would grow
-- exponentially: each session is shown below one of its blockers, and blocked_by lists all of them. Process 0
-- stands for all prepared transactions.
WITH RECURSIVE lock AS MATERIALIZED (
    SELECT
        l.pid,
        l.granted,
        l.mode,
        l.locktype,
        l.database,
        l.relation,
        l.waitstart,
        l.virtualtransaction,
        l.transactionid,
        row(
            l.locktype, l.database, l.relation, l.page, l.tuple, l.virtualxid, l.transactionid, l.classid, l.objid,
            l.objsubid
        )::text AS target
    FROM pg_catalog.pg_locks AS l
),

waiter AS MATERIALIZED (
    SELECT
        l.pid,
        l.mode,
        l.locktype,
        l.target,
        l.waitstart,
        -- A session that waits for a transaction that changed a row holds a lock on that row meanwhile.
        coalesce(l.database, r.database) AS database,
        coalesce(l.relation, r.relation) AS relation,
        array(
            SELECT DISTINCT b.pid
            FROM pg_catalog.unnest(pg_catalog.pg_blocking_pids(l.pid)) AS b (pid)
            ORDER BY b.pid
        ) AS blocked_by
    FROM lock AS l
    LEFT JOIN LATERAL (
        SELECT
            t.database,
            t.relation
        FROM lock AS t
        WHERE t.pid = l.pid AND t.granted AND t.locktype = 'tuple' AND l.relation IS NULL
        ORDER BY t.relation
        LIMIT 1
    ) AS r ON TRUE
    WHERE NOT l.granted
),

-- Below a blocker that does not wait itself, otherwise below the one that has waited longest.
parent AS MATERIALIZED (
    SELECT DISTINCT ON (w.pid)
        w.pid,
        b.pid AS parent
    FROM waiter AS w
    CROSS JOIN LATERAL pg_catalog.unnest(w.blocked_by) AS b (pid)
    LEFT JOIN waiter AS o ON b.pid = o.pid
    ORDER BY w.pid ASC, o.pid IS NOT NULL ASC, o.waitstart ASC, b.pid ASC
),

root AS MATERIALIZED (
    SELECT p.parent AS pid FROM parent AS p
    UNION
    SELECT w.pid FROM waiter AS w
    EXCEPT
    SELECT p.pid FROM parent AS p
),

rooted AS (
    SELECT r.pid FROM root AS r
    UNION
    SELECT p.pid
    FROM rooted AS r
    INNER JOIN parent AS p ON r.pid = p.parent
),

-- A session below no root is part of a deadlock, which the server is about to break, or below one.
climb AS (
    SELECT
        p.pid AS start,
        p.parent AS top,
        ARRAY[p.pid] AS path
    FROM parent AS p
    WHERE p.pid NOT IN (SELECT r.pid FROM rooted AS r)
    UNION ALL
    SELECT
        c.start,
        p.parent AS top,
        c.path || p.pid AS path
    FROM climb AS c
    INNER JOIN parent AS p ON c.top = p.pid
    WHERE pg_catalog.array_position(c.path, c.top) IS NULL
),

tree AS (
    SELECT
        s.pid,
        ARRAY[s.pid] AS path
    FROM (
        SELECT r.pid FROM root AS r
        UNION
        SELECT c.start
        FROM climb AS c
        WHERE c.top = c.start AND c.start = (SELECT pg_catalog.min(m.pid) FROM pg_catalog.unnest(c.path) AS m (pid))
    ) AS s
    UNION ALL
    SELECT
        p.pid,
        t.path || p.pid AS path
    FROM tree AS t
    INNER JOIN parent AS p ON t.pid = p.parent
    WHERE pg_catalog.array_position(t.path, p.pid) IS NULL
),

above AS (
    SELECT
        a.pid,
        pg_catalog.count(*) - 1 AS blocks
    FROM tree AS t
    CROSS JOIN LATERAL pg_catalog.unnest(t.path) AS a (pid)
    GROUP BY a.pid
),

held AS (
    SELECT
        coalesce(l.pid, 0) AS pid,
        pg_catalog.array_agg(DISTINCT l.mode ORDER BY l.mode) AS modes,
        pg_catalog.array_agg(DISTINCT x.gid ORDER BY x.gid) FILTER (WHERE x.gid IS NOT NULL) AS prepared
    FROM lock AS l
    -- A prepared transaction is identified by the lock on its own transaction ID.
    LEFT JOIN lock AS i
        ON
            l.virtualtransaction = i.virtualtransaction
            AND l.pid IS NULL
            AND i.pid IS NULL
            AND i.granted
            AND i.locktype = 'transactionid'
    LEFT JOIN pg_catalog.pg_prepared_xacts AS x ON i.transactionid = x.transaction
    WHERE l.granted AND l.target IN (SELECT w.target FROM waiter AS w)
    GROUP BY coalesce(l.pid, 0)
)

SELECT
    pg_catalog.cardinality(t.path) - 1 AS depth,
    t.path,
    t.pid,
    coalesce(w.blocked_by, ARRAY[]::integer[]) AS blocked_by,
    n.blocks,
    a.usename::text AS usename,
    a.datname::text AS datname,
    a.application_name,
    CASE WHEN t.pid = 0 THEN 'prepared transaction' ELSE a.state END AS state,
    a.wait_event_type,
    a.wait_event,
    w.waitstart AS waits_since,
    pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() - w.waitstart) AS waits_seconds,
    w.locktype AS lock_type,
    w.mode AS lock_mode,
    CASE WHEN w.database IN (0, m.oid) THEN w.relation::regclass::text ELSE w.relation::text END AS relation,
    h.modes AS holds_modes,
    CASE WHEN t.pid = 0 THEN h.prepared END AS prepared,
    a.xact_start,
    a.query
FROM tree AS t
INNER JOIN pg_catalog.pg_database AS m ON m.datname = pg_catalog.current_database()
INNER JOIN above AS n ON t.pid = n.pid
INNER JOIN above AS o ON t.path[1] = o.pid
LEFT JOIN waiter AS w ON t.pid = w.pid
LEFT JOIN held AS h ON t.pid = h.pid
LEFT JOIN pg_catalog.pg_stat_activity AS a ON t.pid = a.pid
ORDER BY o.blocks DESC, t.path ASC;

REVOKE ALL ON pgops.blocking_tree FROM PUBLIC;
GRANT SELECT ON pgops.blocking_tree TO pgops, pgops_reader;
