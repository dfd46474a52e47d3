-- collector: table_activity
-- scope: database
-- interval: 300
-- timeout: 20
-- metric: table_seq_scans kind=counter
--   Sequential scans. If many on a large table, an index may be missing. Metrics table_* cover the 50 largest tables
--   of a database (compared by powers of two, so that the set is stable); table_live_tuples and table_dead_tuples
--   also cover all others, with part "remainder".
-- metric: table_seq_tuples_read kind=counter
--   Live rows that sequential scans have read.
-- metric: table_index_scans kind=counter
--   Scans of any of the table's indexes.
-- metric: table_index_tuples_fetched kind=counter
--   Live rows fetched by index scans.
-- metric: table_tuples_inserted kind=counter
--   Rows inserted. No value on a standby.
-- metric: table_tuples_updated kind=counter
--   Rows updated, HOT updates included.
-- metric: table_tuples_hot_updated kind=counter
--   HOT updates: rows updated without a new index entry. If they are few compared to all updates, an index on a
--   column that changes, or a fillfactor of 100, makes updates expensive.
-- metric: table_tuples_deleted kind=counter
--   Rows deleted.
-- metric: table_live_tuples
--   Rows, as counted by the statistics; no value on a standby, or after a crash until the next ANALYZE.
-- metric: table_dead_tuples
--   Dead rows, as counted by the statistics, which wait for a VACUUM.
-- metric: table_tuples_since_analyze
--   Rows changed since the last ANALYZE. If many, plans are based on old statistics.
-- metric: table_vacuums kind=counter category=availability
--   Times that the table was vacuumed, by hand or by autovacuum.
-- metric: table_analyzes kind=counter category=availability
--   Times that it was analyzed, by hand or by autovacuum.
-- metric: table_blocks_hit kind=counter
--   Blocks of the table, its TOAST and the indexes of both that were found in shared_buffers.
-- metric: table_blocks_read kind=counter
--   Blocks of them read from the operating system; shows which tables cause disk reads.
-- metric: table_last_vacuum unit=s kind=gauge category=availability
--   Time of the last manual VACUUM, as Unix time; no value if never, or if statistics were lost.
-- metric: table_last_autovacuum unit=s kind=gauge category=availability
--   Time of its last vacuum by autovacuum, as Unix time.
-- metric: table_last_analyze unit=s kind=gauge category=availability
--   Time of the last manual ANALYZE, as Unix time.
-- metric: table_last_autoanalyze unit=s kind=gauge category=availability
--   Time of its last analyze by autovacuum, as Unix time.
WITH candidate AS MATERIALIZED (
    SELECT
        n.nspname,
        c.relname,
        c.oid,
        c.reltoastrelid,
        c.reltuples,
        -- By powers of two: tables of similar size must not change places with every VACUUM, since each new set of
        -- series is stored as a new shape.
        floor(ln(1 + c.relpages + coalesce(t.relpages, 0)) / ln(2)) AS size
    FROM pg_class AS c
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    LEFT JOIN pg_class AS t ON c.reltoastrelid = t.oid
    WHERE
        c.relkind IN ('r', 'm')
        AND c.relpersistence <> 't'
        AND n.nspname <> 'information_schema'
        AND n.nspname !~ '^pg_'
        AND current_setting('track_counts')::boolean
),

chosen AS MATERIALIZED (
    SELECT c.*
    FROM candidate AS c
    ORDER BY c.size DESC, c.oid ASC
    LIMIT 50
),

-- The table itself and its TOAST, and then the indexes of both.
heap AS (
    SELECT
        c.oid,
        h.relation
    FROM chosen AS c
    CROSS JOIN LATERAL (VALUES (c.oid), (c.reltoastrelid)) AS h (relation)
),

blocks AS (
    SELECT
        p.oid,
        sum(pg_stat_get_blocks_hit(p.relation)) AS hit,
        sum(pg_stat_get_blocks_fetched(p.relation)) AS fetched
    FROM (
        SELECT
            h.oid,
            h.relation
        FROM heap AS h
        UNION ALL
        SELECT
            h.oid,
            i.indexrelid
        FROM heap AS h
        INNER JOIN pg_index AS i ON h.relation = i.indrelid
    ) AS p
    GROUP BY p.oid
),

counted AS (
    SELECT
        c.*,
        coalesce(i.scans, 0) AS index_scans,
        coalesce(i.fetched, 0) + pg_stat_get_tuples_fetched(c.oid) AS index_tuples_fetched,
        pg_stat_get_tuples_inserted(c.oid) AS inserted,
        pg_stat_get_tuples_deleted(c.oid) AS deleted,
        pg_stat_get_live_tuples(c.oid) AS live,
        pg_stat_get_dead_tuples(c.oid) AS dead,
        b.hit,
        b.fetched - b.hit AS read,
        NOT pg_is_in_recovery() AS writes
    FROM chosen AS c
    CROSS JOIN
        LATERAL (
            SELECT
                sum(pg_stat_get_numscans(x.indexrelid)) AS scans,
                sum(pg_stat_get_tuples_fetched(x.indexrelid)) AS fetched
            FROM pg_index AS x
            WHERE x.indrelid = c.oid
        ) AS i
    LEFT JOIN blocks AS b ON c.oid = b.oid
),

known AS (
    SELECT
        c.*,
        -- ANALYZE has seen rows, but none are counted: the statistics were lost.
        c.writes
        AND NOT (c.reltuples > 0 AND c.live = 0 AND c.dead = 0 AND c.inserted = 0 AND c.deleted = 0) AS counts_rows
    FROM counted AS c
),

-- Two functions for each of thousands of tables, the others only if these do not decide it.
other AS MATERIALIZED (
    SELECT
        c.oid,
        c.reltuples,
        pg_stat_get_live_tuples(c.oid) AS live,
        pg_stat_get_dead_tuples(c.oid) AS dead
    FROM candidate AS c
    WHERE c.oid NOT IN (SELECT l.oid FROM chosen AS l)
),

other_known AS (
    SELECT
        o.live,
        o.dead,
        NOT pg_is_in_recovery() AND CASE
            WHEN o.reltuples > 0 AND o.live = 0 AND o.dead = 0
                THEN pg_stat_get_tuples_inserted(o.oid) <> 0 OR pg_stat_get_tuples_deleted(o.oid) <> 0
            ELSE TRUE
        END AS counts_rows
    FROM other AS o
),

origin AS (
    SELECT pg_stat_get_db_stat_reset_time(d.oid) AS counted_since
    FROM pg_database AS d
    WHERE d.datname = current_database()
)

SELECT
    current_database() AS database,
    k.nspname AS schema,
    k.relname AS table,
    NULL AS part,
    k.oid AS identity,
    o.counted_since,
    pg_stat_get_numscans(k.oid) AS table_seq_scans,
    pg_stat_get_tuples_returned(k.oid) AS table_seq_tuples_read,
    k.index_scans AS table_index_scans,
    k.index_tuples_fetched AS table_index_tuples_fetched,
    CASE WHEN k.writes THEN k.inserted END AS table_tuples_inserted,
    CASE WHEN k.writes THEN pg_stat_get_tuples_updated(k.oid) END AS table_tuples_updated,
    CASE WHEN k.writes THEN pg_stat_get_tuples_hot_updated(k.oid) END AS table_tuples_hot_updated,
    CASE WHEN k.writes THEN k.deleted END AS table_tuples_deleted,
    CASE WHEN k.counts_rows THEN k.live END AS table_live_tuples,
    CASE WHEN k.counts_rows THEN k.dead END AS table_dead_tuples,
    CASE WHEN k.writes THEN pg_stat_get_mod_since_analyze(k.oid) END AS table_tuples_since_analyze,
    CASE
        WHEN k.writes THEN pg_stat_get_vacuum_count(k.oid) + pg_stat_get_autovacuum_count(k.oid)
    END AS table_vacuums,
    CASE
        WHEN k.writes THEN pg_stat_get_analyze_count(k.oid) + pg_stat_get_autoanalyze_count(k.oid)
    END AS table_analyzes,
    k.hit AS table_blocks_hit,
    k.read AS table_blocks_read,
    extract(EPOCH FROM pg_stat_get_last_vacuum_time(k.oid)) AS table_last_vacuum,
    extract(EPOCH FROM pg_stat_get_last_autovacuum_time(k.oid)) AS table_last_autovacuum,
    extract(EPOCH FROM pg_stat_get_last_analyze_time(k.oid)) AS table_last_analyze,
    extract(EPOCH FROM pg_stat_get_last_autoanalyze_time(k.oid)) AS table_last_autoanalyze
FROM known AS k
CROSS JOIN origin AS o
-- No counters for all others: their sum would fall if a table is dropped or becomes one of the largest.
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    'remainder' AS part,
    NULL AS identity,
    NULL AS counted_since,
    NULL AS table_seq_scans,
    NULL AS table_seq_tuples_read,
    NULL AS table_index_scans,
    NULL AS table_index_tuples_fetched,
    NULL AS table_tuples_inserted,
    NULL AS table_tuples_updated,
    NULL AS table_tuples_hot_updated,
    NULL AS table_tuples_deleted,
    sum(k.live) FILTER (WHERE k.counts_rows) AS table_live_tuples,
    sum(k.dead) FILTER (WHERE k.counts_rows) AS table_dead_tuples,
    NULL AS table_tuples_since_analyze,
    NULL AS table_vacuums,
    NULL AS table_analyzes,
    NULL AS table_blocks_hit,
    NULL AS table_blocks_read,
    NULL AS table_last_vacuum,
    NULL AS table_last_autovacuum,
    NULL AS table_last_analyze,
    NULL AS table_last_autoanalyze
FROM other_known AS k
HAVING count(*) > 0
