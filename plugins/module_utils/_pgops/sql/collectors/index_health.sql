-- collector: index_health
-- scope: database
-- interval: 3600
-- timeout: 30
-- role: primary
-- metric: invalid_indexes category=availability direction=above warning=0
--   Invalid indexes, left by a failed CREATE INDEX or REINDEX CONCURRENTLY. They slow writes down and serve no query:
--   drop or reindex them. Indexes being built now are left out.
-- metric: invalid_index category=availability
--   1 for each invalid index, at most the 20 largest.
-- metric: unused_indexes category=performance direction=above warning=0
--   Indexes that no query has scanned since the statistics were reset, at least 7 days ago; never unique ones or
--   those of constraints. A partitioned index counts once, with its partitions. A new index counts as well. Check
--   every standby before you drop one: its scans are counted there. No value if the statistics are younger: they are
--   lost in a crash, and a restored database starts without any.
-- metric: unused_indexes_bytes unit=bytes kind=gauge category=capacity
--   Disk space of all unused indexes, as of their last VACUUM or ANALYZE.
-- metric: unused_index_bytes unit=bytes kind=gauge category=capacity
--   Disk space of an unused index, with its partitions; the 20 largest.
-- metric: duplicate_indexes category=performance direction=above warning=0
--   Indexes with the same table, method, columns, expressions, operator classes, collations, order, options and
--   predicate as another one. All but one of each set can be dropped, but never one that is unique or serves a
--   constraint.
-- metric: duplicate_indexes_bytes unit=bytes kind=gauge category=capacity
--   Disk space of all duplicate indexes, as of their last VACUUM or ANALYZE.
-- metric: duplicate_index_bytes unit=bytes kind=gauge category=capacity
--   Disk space of a duplicate index; the 20 largest.
WITH here AS (
    SELECT d.oid FROM pg_database AS d
    WHERE d.datname = current_database()
),

-- CREATE INDEX CONCURRENTLY shows its progress; REINDEX and DROP INDEX CONCURRENTLY lock the index.
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
        -- An index of a partitioned table is invalid as long as a partition lacks it, and costs nothing.
        AND x.relkind = 'i'
        AND x.relpersistence <> 't'
        AND NOT EXISTS (
            SELECT 1 FROM in_work AS w
            WHERE w.oid = x.oid
        )
),

-- The indexes of partitions, added up for the partitioned index that they are part of.
partitions AS (
    SELECT
        pg_partition_root(x.oid) AS root,
        sum(pg_stat_get_numscans(x.oid))::bigint AS scans,
        sum(x.relpages)::bigint AS pages
    FROM pg_class AS x
    WHERE x.relkind = 'i' AND x.relispartition
    GROUP BY root
),

present AS (
    SELECT
        n.nspname,
        c.relname AS table_name,
        x.relname AS index_name,
        x.oid,
        -- A part of a partitioned index cannot be dropped alone.
        x.relispartition
        OR i.indisunique OR i.indisprimary OR i.indisexclusion OR i.indisreplident OR i.indisclustered
        OR EXISTS (
            SELECT 1 FROM pg_constraint AS k
            WHERE k.conindid = x.oid
        ) AS needed,
        coalesce(p.scans, pg_stat_get_numscans(x.oid)) AS scans,
        coalesce(p.pages, x.relpages) * current_setting('block_size')::bigint AS bytes,
        concat_ws(
            ' ', i.indrelid, x.relam, i.indnkeyatts, i.indkey, i.indclass, i.indcollation, i.indoption,
            coalesce(x.reloptions::text, '-'),
            -- Before PostgreSQL 17 these contain their position in the statement.
            regexp_replace(coalesce(i.indexprs::text, '-'), ':location -?[0-9]+', '', 'g'),
            regexp_replace(coalesce(i.indpred::text, '-'), ':location -?[0-9]+', '', 'g')
        ) AS form
    FROM pg_index AS i
    INNER JOIN pg_class AS x ON i.indexrelid = x.oid
    INNER JOIN pg_class AS c ON i.indrelid = c.oid
    INNER JOIN pg_namespace AS n ON x.relnamespace = n.oid
    LEFT JOIN partitions AS p ON x.oid = p.root
    WHERE
        i.indisvalid
        -- Without partitions it takes no space.
        AND (x.relkind = 'i' OR p.root IS NOT NULL)
        AND x.relpersistence <> 't'
        AND n.nspname <> 'information_schema'
        AND n.nspname !~ '^pg_'
),

-- Unknown if the statistics are younger than a week, or nothing is counted. Since PostgreSQL 15 a database whose
-- statistics were never reset does not show their age: an older VACUUM, ANALYZE or index scan in them proves it.
origin AS (
    SELECT
        current_setting('track_counts')::boolean
        AND coalesce(
            coalesce(
                pg_stat_get_db_stat_reset_time(h.oid),
                least(
                    (
                        SELECT
                            min(
                                least(
                                    pg_stat_get_last_vacuum_time(c.oid), pg_stat_get_last_autovacuum_time(c.oid),
                                    pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)
                                )
                            )
                        FROM pg_class AS c
                        WHERE c.relkind IN ('r', 'm') AND NOT c.relisshared
                    ),
                    (
                        SELECT min(s.scanned)
                        FROM (
                            SELECT last_idx_scan AS scanned -- noqa: RF03
                            FROM pg_stat_all_indexes
                            -- Statistics of shared objects do not belong to this database.
                            WHERE
                                schemaname = 'pg_catalog'
                                AND relid NOT IN (
                                    SELECT c.oid FROM pg_class AS c
                                    WHERE c.relisshared
                                )
                        ) AS s
                    )
                )
            ) < now() - interval '7 days', FALSE
        ) AS known
    FROM here AS h
    -- PostgreSQL 16 and later have such a column, which is used; before, the name above only finds this one.
    CROSS JOIN (SELECT NULL::timestamptz AS last_idx_scan) AS older
),

unused AS (
    SELECT
        p.*,
        row_number() OVER (ORDER BY p.bytes DESC, p.oid ASC) AS place
    FROM present AS p
    WHERE p.scans = 0 AND NOT p.needed AND (SELECT o.known FROM origin AS o)
),

ranked AS (
    SELECT
        p.*,
        row_number() OVER (PARTITION BY p.form ORDER BY p.needed DESC, p.oid ASC) > 1 AND NOT p.needed AS spare
    FROM present AS p
),

duplicate AS (
    SELECT
        r.*,
        row_number() OVER (ORDER BY r.bytes DESC, r.oid ASC) AS place
    FROM ranked AS r
    WHERE r.spare
)

SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    NULL AS index,
    (SELECT count(*) FROM invalid) AS invalid_indexes,
    NULL::integer AS invalid_index,
    CASE WHEN (SELECT o.known FROM origin AS o) THEN (SELECT count(*) FROM unused) END AS unused_indexes,
    CASE
        WHEN (SELECT o.known FROM origin AS o) THEN (SELECT coalesce(sum(u.bytes), 0) FROM unused AS u)
    END AS unused_indexes_bytes,
    NULL::bigint AS unused_index_bytes,
    (SELECT count(*) FROM duplicate) AS duplicate_indexes,
    (SELECT coalesce(sum(d.bytes), 0) FROM duplicate AS d) AS duplicate_indexes_bytes,
    NULL::bigint AS duplicate_index_bytes
UNION ALL
SELECT
    current_database() AS database,
    v.nspname AS schema,
    v.table_name AS table,
    v.index_name AS index,
    NULL AS invalid_indexes,
    1 AS invalid_index,
    NULL AS unused_indexes,
    NULL AS unused_indexes_bytes,
    NULL AS unused_index_bytes,
    NULL AS duplicate_indexes,
    NULL AS duplicate_indexes_bytes,
    NULL AS duplicate_index_bytes
FROM invalid AS v
WHERE v.place <= 20
UNION ALL
SELECT
    current_database() AS database,
    u.nspname AS schema,
    u.table_name AS table,
    u.index_name AS index,
    NULL AS invalid_indexes,
    NULL AS invalid_index,
    NULL AS unused_indexes,
    NULL AS unused_indexes_bytes,
    u.bytes AS unused_index_bytes,
    NULL AS duplicate_indexes,
    NULL AS duplicate_indexes_bytes,
    NULL AS duplicate_index_bytes
FROM unused AS u
WHERE u.place <= 20
UNION ALL
SELECT
    current_database() AS database,
    d.nspname AS schema,
    d.table_name AS table,
    d.index_name AS index,
    NULL AS invalid_indexes,
    NULL AS invalid_index,
    NULL AS unused_indexes,
    NULL AS unused_indexes_bytes,
    NULL AS unused_index_bytes,
    NULL AS duplicate_indexes,
    NULL AS duplicate_indexes_bytes,
    d.bytes AS duplicate_index_bytes
FROM duplicate AS d
WHERE d.place <= 20
