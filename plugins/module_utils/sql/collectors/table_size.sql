-- collector: table_size
-- scope: database
-- interval: 300
-- timeout: 10
-- metric: table_size_mb unit=MB kind=gauge category=capacity direction=above warning=100 critical=500
--   Disk space of a table with its indexes and TOAST (1 MB is 1048576 bytes): the 10 largest tables of each
--   schema, at most 200 of a database, and one series with part "remainder" for all others, estimated. Every
--   five minutes, since it takes the longer the more tables there are.
WITH candidate AS (
    SELECT
        n.nspname,
        c.relname,
        c.oid,
        -- An estimate that costs no file access; exact sizes are measured for the largest only.
        c.relpages + coalesce(t.relpages, 0) AS pages,
        row_number() OVER (
            PARTITION BY n.nspname ORDER BY c.relpages + coalesce(t.relpages, 0) DESC, c.oid
        ) AS place
    FROM pg_class AS c
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    LEFT JOIN pg_class AS t ON c.reltoastrelid = t.oid
    WHERE
        c.relkind IN ('r', 'm')
        AND c.relpersistence <> 't'
        AND n.nspname <> 'information_schema'
        AND n.nspname !~ '^pg_'
),

largest AS (
    SELECT
        nspname,
        relname,
        oid,
        pages
    FROM candidate
    WHERE place <= 10
    ORDER BY pages DESC, oid ASC
    LIMIT 200
),

-- To measure a table takes a lock on it, its indexes and its TOAST, which would queue behind an exclusive one,
-- or before the next.
held AS (
    SELECT l.relation
    FROM pg_locks AS l
    WHERE
        l.locktype = 'relation'
        AND l.mode = 'AccessExclusiveLock'
        AND l.database = (
            SELECT d.oid FROM pg_database AS d
            WHERE d.datname = current_database()
        )
),

with_index AS (
    SELECT h.relation FROM held AS h
    UNION ALL
    SELECT i.indrelid
    FROM pg_index AS i
    WHERE i.indexrelid IN (SELECT h.relation FROM held AS h)
),

untouchable AS (
    SELECT w.relation FROM with_index AS w
    UNION ALL
    SELECT c.oid
    FROM pg_class AS c
    WHERE c.reltoastrelid IN (SELECT w.relation FROM with_index AS w)
),

measured AS (
    SELECT
        l.nspname,
        l.relname,
        CASE
            WHEN l.oid IN (SELECT u.relation FROM untouchable AS u)
                THEN l.pages * current_setting('block_size')::bigint
            ELSE pg_total_relation_size(l.oid)
        END AS bytes
    FROM largest AS l
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
