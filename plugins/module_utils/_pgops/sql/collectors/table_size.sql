-- collector: table_size
-- scope: database
-- interval: 300
-- timeout: 10
-- metric: table_size_mb unit=MB kind=gauge category=capacity direction=above warning=100 critical=500
--   Disk space of a table with its indexes and TOAST (1 MB is 1048576 bytes): the 10 largest tables of each schema,
--   at most 200 of a database, pg_largeobject if used, and all others, including the system catalogues, together with
--   part "remainder", as of their last VACUUM or ANALYZE. The partitions of a table count as that table. No value for
--   a table of which a part is in a tablespace that the server cannot read. Every five minutes, since its cost grows
--   with the number of tables.
WITH indexed AS MATERIALIZED (
    SELECT
        i.indrelid,
        sum(x.relpages) AS pages
    FROM pg_index AS i
    INNER JOIN pg_class AS x ON i.indexrelid = x.oid
    WHERE x.relkind = 'i'
    GROUP BY i.indrelid
),

toast AS (
    SELECT
        t.oid,
        t.relpages + coalesce(i.pages, 0) AS pages
    FROM pg_class AS t
    LEFT JOIN indexed AS i ON t.oid = i.indrelid
    WHERE t.relkind = 't'
),

-- An estimate without file access; exact sizes are only measured for the largest.
estimated AS (
    SELECT
        c.oid,
        CASE WHEN c.relispartition THEN coalesce(pg_partition_root(c.oid)::oid, c.oid) ELSE c.oid END AS root,
        c.relpages + coalesce(t.pages, 0) + coalesce(i.pages, 0) AS pages
    FROM pg_class AS c
    LEFT JOIN toast AS t ON c.reltoastrelid = t.oid
    LEFT JOIN indexed AS i ON c.oid = i.indrelid
    WHERE
        c.relkind IN ('r', 'm')
        AND c.relpersistence <> 't'
        AND NOT c.relisshared
),

-- A partitioned table is as large as its partitions, in whatever schemas they are.
whole AS (
    SELECT
        c.oid,
        c.relname,
        c.relnamespace,
        CASE
            WHEN n.nspname ~ '^pg_' THEN c.oid = 'pg_largeobject'::regclass AND c.relpages > 0
            ELSE n.nspname <> 'information_schema'
        END AS named,
        e.pages
    FROM (
        SELECT
            p.root,
            sum(p.pages) AS pages
        FROM estimated AS p
        GROUP BY p.root
    ) AS e
    INNER JOIN pg_class AS c ON e.root = c.oid
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
),

candidate AS (
    SELECT
        w.*,
        row_number() OVER (PARTITION BY w.relnamespace, w.named ORDER BY w.pages DESC, w.oid ASC) AS place
    FROM whole AS w
),

largest AS (
    SELECT
        n.nspname,
        c.relname,
        c.oid,
        c.pages
    FROM candidate AS c
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    WHERE c.named AND c.place <= 10
    ORDER BY c.pages DESC, c.oid ASC
    LIMIT 200
),

-- Measuring a table takes a lock on it, its indexes and its TOAST, which would queue behind an exclusive one, or
-- block the next. In a tablespace that cannot be read it is an error of all, or 0.
held AS (
    SELECT
        l.relation,
        FALSE AS unreadable
    FROM pg_locks AS l
    WHERE
        l.locktype = 'relation'
        AND l.mode = 'AccessExclusiveLock'
        AND l.database = (
            SELECT d.oid FROM pg_database AS d
            WHERE d.datname = current_database()
        )
    UNION ALL
    SELECT
        c.oid AS relation,
        TRUE AS unreadable
    FROM pg_class AS c
    WHERE
        c.reltablespace <> 0
        AND strpos(current_setting('pgops.unreadable', TRUE), ',' || c.reltablespace || ',') > 0
),

with_index AS (
    SELECT
        h.relation,
        h.unreadable
    FROM held AS h
    UNION ALL
    SELECT
        i.indrelid,
        h.unreadable
    FROM held AS h
    INNER JOIN pg_index AS i ON h.relation = i.indexrelid
),

untouchable AS (
    SELECT
        w.relation,
        w.unreadable
    FROM with_index AS w
    UNION ALL
    SELECT
        c.oid,
        w.unreadable
    FROM with_index AS w
    INNER JOIN pg_class AS c ON w.relation = c.reltoastrelid
),

unreadable AS (
    SELECT u.relation FROM untouchable AS u
    WHERE u.unreadable
),

part AS (
    SELECT
        l.oid,
        l.nspname,
        l.relname,
        CASE
            WHEN e.oid IN (SELECT u.relation FROM unreadable AS u) THEN NULL
            WHEN e.oid IN (SELECT u.relation FROM untouchable AS u)
                THEN e.pages * current_setting('block_size')::bigint
            ELSE pg_total_relation_size(e.oid)
        END AS bytes
    FROM largest AS l
    INNER JOIN estimated AS e ON l.oid = e.root
),

measured AS (
    SELECT
        p.nspname,
        p.relname,
        CASE WHEN count(p.bytes) = count(*) THEN sum(p.bytes) END AS bytes
    FROM part AS p
    GROUP BY p.oid, p.nspname, p.relname
)

SELECT
    current_database() AS database,
    m.nspname AS schema,
    m.relname AS table,
    NULL AS part,
    m.bytes / 1048576.0 AS table_size_mb
FROM measured AS m
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    'remainder' AS part,
    coalesce(sum(c.pages), 0) * current_setting('block_size')::bigint / 1048576.0 AS table_size_mb
FROM candidate AS c
WHERE c.oid NOT IN (SELECT l.oid FROM largest AS l)
