-- collector: index_activity
-- scope: database
-- interval: 300
-- timeout: 20
-- metric: index_scans kind=counter
--   Scans of the index. Metrics index_* cover the 50 largest indexes of a database (compared by powers of two, so
--   that the set is stable).
-- metric: index_tuples_read kind=counter
--   Index entries returned by scans.
-- metric: index_tuples_fetched kind=counter
--   Live rows fetched by plain scans of the index.
-- metric: index_blocks_hit kind=counter
--   Blocks of the index that were found in shared_buffers.
-- metric: index_blocks_read kind=counter
--   Blocks of the index read from the operating system.
-- metric: index_size_mb unit=MB kind=gauge category=capacity
--   Disk space of the index (1 MB is 1048576 bytes); all others together with part "remainder", estimated. An index
--   that is locked exclusively is estimated as well, from its size at the last VACUUM or ANALYZE. No value for one in
--   a tablespace that the server cannot read.
WITH candidate AS MATERIALIZED (
    SELECT
        n.nspname,
        c.relname,
        c.oid,
        c.relpages,
        c.reltablespace
    FROM pg_class AS c
    -- An index is in its table's schema.
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    WHERE
        c.relkind = 'i'
        AND c.relpersistence <> 't'
        AND n.nspname <> 'information_schema'
        AND n.nspname !~ '^pg_'
),

largest AS MATERIALIZED (
    SELECT c.*
    FROM candidate AS c
    -- By powers of two: indexes of similar size must not change places with every VACUUM.
    ORDER BY floor(ln(1 + c.relpages) / ln(2)) DESC, c.oid ASC
    LIMIT 50
),

-- Measuring an index takes a lock on it, which would queue behind an exclusive one, granted or requested.
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

chosen AS (
    SELECT
        c.nspname,
        t.relname AS table_name,
        c.relname AS index_name,
        c.oid,
        i.indisunique OR i.indisprimary OR i.indisexclusion AS is_unique,
        current_setting('track_counts')::boolean AS counts,
        CASE
            WHEN c.oid IN (SELECT h.relation FROM held AS h)
                THEN c.relpages * current_setting('block_size')::bigint
            -- Of a tablespace that cannot be read it would be an error of all, or 0.
            WHEN strpos(current_setting('pgops.unreadable', TRUE), ',' || c.reltablespace || ',') > 0 THEN NULL
            ELSE pg_relation_size(c.oid)
        END AS bytes
    FROM largest AS c
    INNER JOIN pg_index AS i ON c.oid = i.indexrelid
    INNER JOIN pg_class AS t ON i.indrelid = t.oid
)

SELECT
    current_database() AS database,
    c.nspname AS schema,
    c.table_name AS table,
    c.index_name AS index,
    CASE WHEN c.is_unique THEN 'unique' END AS uniqueness,
    NULL AS part,
    c.oid AS identity,
    pg_stat_get_db_stat_reset_time(d.oid) AS counted_since,
    CASE WHEN c.counts THEN pg_stat_get_numscans(c.oid) END AS index_scans,
    CASE WHEN c.counts THEN pg_stat_get_tuples_returned(c.oid) END AS index_tuples_read,
    CASE WHEN c.counts THEN pg_stat_get_tuples_fetched(c.oid) END AS index_tuples_fetched,
    CASE WHEN c.counts THEN pg_stat_get_blocks_hit(c.oid) END AS index_blocks_hit,
    CASE
        WHEN c.counts THEN pg_stat_get_blocks_fetched(c.oid) - pg_stat_get_blocks_hit(c.oid)
    END AS index_blocks_read,
    c.bytes / 1048576.0 AS index_size_mb
FROM chosen AS c
INNER JOIN pg_database AS d ON current_database() = d.datname
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    NULL AS index,
    NULL AS uniqueness,
    'remainder' AS part,
    NULL AS identity,
    NULL AS counted_since,
    NULL AS index_scans,
    NULL AS index_tuples_read,
    NULL AS index_tuples_fetched,
    NULL AS index_blocks_hit,
    NULL AS index_blocks_read,
    sum(c.relpages) * current_setting('block_size')::bigint / 1048576.0 AS index_size_mb
FROM candidate AS c
WHERE c.oid NOT IN (SELECT l.oid FROM largest AS l)
HAVING count(*) > 0
