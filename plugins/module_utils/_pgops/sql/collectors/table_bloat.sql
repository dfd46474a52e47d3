-- collector: table_bloat
-- scope: database
-- interval: 3600
-- timeout: 30
-- role: primary
-- rights: all_data
-- metric: table_bloat_mb unit=MB category=capacity
--   Space that VACUUM FULL would free, estimated from statistics, without TOAST; the 20 tables with most, and all
--   others together with part "remainder". Tables of 1 MB or more, as of the last VACUUM or ANALYZE. Part of it will
--   be reused: act if it grows.
-- metric: table_bloat_percent unit=% category=capacity direction=above warning=50
--   The same as a share of the size of the table.
-- metric: bloat_unknown_tables category=capacity
--   Tables of 1 MB or more without an estimate, by reason: never_analyzed, not_counted (the server lost the time of
--   the last ANALYZE), stale (changed too much since), no_statistics (of a column), beyond (only the 500 largest are
--   estimated); and toast: TOAST of 1 MB or more, which has no statistics. pgstattuple measures them.
WITH setting AS MATERIALIZED (
    SELECT
        current_setting('block_size')::integer AS page,
        1048576 / current_setting('block_size')::integer AS least
),

candidate AS MATERIALIZED (
    SELECT
        c.oid,
        c.relname,
        c.relnamespace,
        c.relpages,
        c.reltuples,
        coalesce((
            SELECT p.option_value FROM pg_options_to_table(c.reloptions) AS p
            WHERE p.option_name = 'fillfactor'
        )::integer, 100) AS fill,
        row_number() OVER (ORDER BY c.relpages DESC, c.oid ASC) AS place
    FROM pg_class AS c
    CROSS JOIN setting AS s
    WHERE
        c.relkind IN ('r', 'm')
        AND c.relpersistence <> 't'
        AND c.relpages >= s.least
        -- The statistics themselves are never analyzed.
        AND c.oid <> 'pg_statistic'::regclass
),

judged AS MATERIALIZED (
    SELECT
        c.*,
        h.*,
        CASE
            WHEN c.place > 500 THEN 'beyond'
            WHEN h.known = 0 AND h.unknown > 0 AND l.seen_at IS NULL THEN 'never_analyzed'
            WHEN l.seen_at IS NULL OR NOT current_setting('track_counts')::boolean THEN 'not_counted'
            -- Twice the number of changes that starts autovacuum's ANALYZE by default.
            WHEN pg_stat_get_mod_since_analyze(c.oid) > 100 + 0.2 * c.reltuples THEN 'stale'
            WHEN h.unknown > 0 THEN 'no_statistics'
        END AS reason
    FROM candidate AS c
    CROSS JOIN
        LATERAL (
            SELECT coalesce(pg_stat_get_last_analyze_time(c.oid), pg_stat_get_last_autoanalyze_time(c.oid)) AS seen_at
        ) AS l
    CROSS JOIN LATERAL (
        -- The columns in their order, and the end of the row.
        SELECT
            count(*) AS columns,
            count(t.starelid) AS known,
            count(*) FILTER (WHERE a.stored AND t.starelid IS NULL) AS unknown,
            coalesce(bool_and(a.stored AND a.attlen > 0 AND t.stanullfrac = 0), TRUE) AS fixed,
            -- As if columns were NULL independently of each other.
            1 - coalesce(min(a.stored::integer) * exp(sum(ln(greatest(1 - coalesce(t.stanullfrac, 0), 1e-9)))), 1)
                AS null_share,
            array_agg(CASE WHEN a.stored THEN 1 - t.stanullfrac::float8 ELSE 0 END ORDER BY a.attnum)
            || 1.0::float8 AS shares,
            array_agg(greatest(a.attlen::integer, 0) ORDER BY a.attnum) || 8 AS lengths,
            array_agg(
                CASE WHEN a.attlen > 0 THEN a.attlen WHEN a.stored THEN t.stawidth ELSE 0 END ORDER BY a.attnum
            ) || 0 AS widths,
            array_agg(
                CASE
                    -- Values of up to 126 bytes have a short header, and are not aligned.
                    WHEN a.attlen = -1 AND a.attstorage <> 'p' AND t.stawidth <= 127 THEN 1
                    WHEN a.attalign = 'd' THEN 8
                    WHEN a.attalign = 'i' THEN 4
                    WHEN a.attalign = 's' THEN 2
                    ELSE 1
                END ORDER BY a.attnum
            ) || 8 AS aligns
        FROM (
            SELECT
                x.*,
                -- A dropped or virtual column is NULL in each row written since.
                NOT x.attisdropped AND x.attgenerated <> 'v' AS stored
            FROM pg_attribute AS x
        ) AS a
        LEFT JOIN pg_statistic AS t ON a.attrelid = t.starelid AND a.attnum = t.staattnum AND NOT t.stainherit
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND c.place <= 500
    ) AS h
),

-- The mean width of a row's columns, one after the other, up to the next multiple of 8: what precedes a column ends
-- at a multiple of `grain` plus `phase`, which is exact as long as all have one length; after others it is anywhere.
measured AS (
    SELECT
        j.oid,
        w.size
    FROM judged AS j
    CROSS JOIN
        LATERAL (
            WITH RECURSIVE walk AS (
                SELECT
                    0 AS done,
                    0::float8 AS size,
                    8 AS grain,
                    0 AS phase
                UNION ALL
                SELECT
                    e.done,
                    e.size,
                    e.grain,
                    mod(e.phase, e.grain) AS phase
                FROM walk AS w
                CROSS JOIN
                    LATERAL (
                        SELECT
                            j.shares[w.done + 1] AS share,
                            j.lengths[w.done + 1] AS length,
                            j.widths[w.done + 1] AS width,
                            j.aligns[w.done + 1] AS align
                    ) AS n
                CROSS JOIN
                    LATERAL (
                        SELECT
                            mod(
                                least(n.align, w.grain) - mod(w.phase, least(n.align, w.grain)),
                                least(n.align, w.grain)
                            )
                                AS certain,
                            greatest(n.align - w.grain, 0) / 2.0::float8 AS likely
                    ) AS p
                CROSS JOIN
                    LATERAL (
                        SELECT
                            CASE WHEN n.length = 0 THEN 1 ELSE greatest(w.grain, n.align) END AS grain,
                            CASE WHEN n.align > w.grain THEN 0 ELSE w.phase + p.certain END + n.length AS phase
                    ) AS b
                CROSS JOIN
                    LATERAL (
                        SELECT
                            w.done + 1 AS done,
                            w.size + n.share * (p.certain + p.likely + n.width) AS size,
                            CASE
                                WHEN n.share = 0 THEN w.grain
                                WHEN n.share = 1 THEN b.grain
                                ELSE gcd(gcd(w.grain, b.grain), b.phase - w.phase)
                            END AS grain,
                            CASE WHEN n.share = 0 THEN w.phase ELSE b.phase END AS phase
                    ) AS e
                WHERE w.done < cardinality(j.aligns)
            )

            SELECT x.size
            FROM walk AS x
            WHERE x.done = cardinality(j.aligns)
        ) AS w
    WHERE j.reason IS NULL
),

estimated AS MATERIALIZED (
    SELECT
        j.relname,
        j.relnamespace,
        j.oid,
        j.relpages,
        s.page,
        greatest(j.relpages - ceil(j.reltuples / greatest(r.rows_a_page, 1)), 0) AS spare
    FROM judged AS j
    INNER JOIN measured AS m ON j.oid = m.oid
    CROSS JOIN setting AS s
    CROSS JOIN
        LATERAL (
            SELECT
                -- Behind a page's header of 24 bytes; a row has a pointer of 4 and a header of 23, or with NULLs a
                -- bit more for each column, up to a multiple of 8.
                (s.page - 24 - s.page * (100 - j.fill) / 100)
                / (4 + 24 + j.null_share * (div(23 + div(j.columns + 7, 8) + 7, 8) * 8 - 24) + m.size)::float8
                    AS fitting
        ) AS f
    CROSS JOIN LATERAL (
        -- The unused end of a page: half a row on average, unless all have the same length.
        SELECT CASE WHEN j.fixed THEN floor(f.fitting) ELSE f.fitting - 0.5 END AS rows_a_page
    ) AS r
),

worst AS MATERIALIZED (
    SELECT e.*
    FROM estimated AS e
    -- By powers of two: tables with similar values must not change places each time.
    ORDER BY floor(ln(1 + e.spare) / ln(2)) DESC, e.oid ASC
    LIMIT 20
),

unknown AS (
    SELECT j.reason
    FROM judged AS j
    UNION ALL
    -- Tables never vacuumed or analyzed have no known size. With fewer rows than this a table is below 1 MB.
    SELECT 'never_analyzed' AS reason
    FROM pg_class AS c
    CROSS JOIN setting AS s
    WHERE
        c.relkind IN ('r', 'm')
        AND c.relpersistence <> 't'
        AND c.reltuples < 0
        AND pg_stat_get_live_tuples(c.oid) + pg_stat_get_dead_tuples(c.oid) >= s.least
    UNION ALL
    SELECT 'toast' AS reason
    FROM pg_class AS c
    CROSS JOIN setting AS s
    WHERE c.relkind = 't' AND c.relpersistence <> 't' AND c.relpages >= s.least
)

SELECT
    current_database() AS database,
    n.nspname AS schema,
    w.relname AS table,
    NULL AS part,
    NULL AS reason,
    w.spare * w.page / 1048576 AS table_bloat_mb,
    100 * w.spare / w.relpages AS table_bloat_percent,
    NULL::bigint AS bloat_unknown_tables
FROM worst AS w
INNER JOIN pg_namespace AS n ON w.relnamespace = n.oid
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    'remainder' AS part,
    NULL AS reason,
    sum(e.spare) * max(e.page) / 1048576 AS table_bloat_mb,
    100 * sum(e.spare) / sum(e.relpages) AS table_bloat_percent,
    NULL AS bloat_unknown_tables
FROM estimated AS e
WHERE e.oid NOT IN (SELECT w.oid FROM worst AS w)
HAVING count(*) > 0
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    NULL AS part,
    r.reason,
    NULL AS table_bloat_mb,
    NULL AS table_bloat_percent,
    count(u.reason) AS bloat_unknown_tables
FROM unnest(ARRAY['never_analyzed', 'not_counted', 'stale', 'no_statistics', 'beyond', 'toast']) AS r (reason)
LEFT JOIN unknown AS u ON r.reason = u.reason
GROUP BY r.reason
