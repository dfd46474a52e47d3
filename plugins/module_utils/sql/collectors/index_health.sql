-- collector: index_health
-- scope: database
-- interval: 3600
-- timeout: 30
-- role: primary
-- metric: invalid_indexes category=availability direction=above warning=1
--   Indexes that a failed CREATE INDEX or REINDEX CONCURRENTLY has left invalid: they cost writes and serve no query.
--   Drop or reindex them. Those being built now are left out.
-- metric: invalid_index category=availability
--   1 for each invalid index, at most the 20 largest.
WITH here AS (
    SELECT d.oid FROM pg_database AS d
    WHERE d.datname = current_database()
),

-- CREATE INDEX CONCURRENTLY shows its progress; REINDEX and DROP INDEX CONCURRENTLY hold a lock on the index.
in_work AS (
    SELECT p.index_relid AS oid FROM pg_stat_progress_create_index AS p
    WHERE p.datid = (SELECT h.oid FROM here AS h)
    UNION ALL
    SELECT l.relation FROM pg_locks AS l
    WHERE
        l.locktype = 'relation'
        AND l.mode = 'ShareUpdateExclusiveLock'
        AND l.database = (SELECT h.oid FROM here AS h)
),

invalid AS (
    SELECT
        n.nspname,
        c.relname AS table_name,
        x.relname AS index_name,
        row_number() OVER (ORDER BY x.relpages DESC, x.oid ASC) AS place
    FROM pg_index AS i
    INNER JOIN pg_class AS x ON i.indexrelid = x.oid
    INNER JOIN pg_class AS c ON i.indrelid = c.oid
    INNER JOIN pg_namespace AS n ON x.relnamespace = n.oid
    WHERE
        NOT i.indisvalid
        AND x.relpersistence <> 't'
        AND NOT EXISTS (SELECT 1 FROM in_work AS w WHERE w.oid = x.oid)
)

SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    NULL AS index,
    (SELECT count(*) FROM invalid AS v) AS invalid_indexes,
    NULL::integer AS invalid_index
UNION ALL
SELECT
    current_database() AS database,
    v.nspname AS schema,
    v.table_name AS table,
    v.index_name AS index,
    NULL AS invalid_indexes,
    1 AS invalid_index
FROM invalid AS v
WHERE v.place <= 20
