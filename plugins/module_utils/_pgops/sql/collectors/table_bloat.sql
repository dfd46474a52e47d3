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
            coalesce(bool_and(a.stored AND d.is_fixed AND t.stanullfrac = 0), TRUE) AS fixed,
            -- As if columns were NULL independently of each other.
            1 - coalesce(min(a.stored::integer) * exp(sum(ln(greatest(1 - coalesce(t.stanullfrac, 0), 1e-9)))), 1)
                AS null_share,
            array_agg(CASE WHEN a.stored THEN 1 - t.stanullfrac::float8 ELSE 0 END ORDER BY a.attnum)
            || 1.0::float8 AS shares,
            array_agg(CASE WHEN a.stored THEN d.width ELSE 0 END ORDER BY a.attnum) || 0::float8 AS widths,
            array_agg(
                CASE a.attalign WHEN 'd' THEN 8 WHEN 'i' THEN 4 WHEN 's' THEN 2 ELSE 1 END ORDER BY a.attnum
            ) || 8 AS aligns,
            array_agg(a.attlen > 0 ORDER BY a.attnum) || TRUE AS always_aligned,
            array_agg(d.spread ORDER BY a.attnum)
            || ARRAY[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]::float8[] AS spreads
        FROM (
            SELECT
                x.*,
                -- A dropped or virtual column is NULL in each row written since.
                NOT x.attisdropped AND x.attgenerated <> 'v' AS stored
            FROM pg_attribute AS x
        ) AS a
        LEFT JOIN pg_statistic AS t ON a.attrelid = t.starelid AND a.attnum = t.staattnum AND NOT t.stainherit
        LEFT JOIN pg_type AS y ON a.atttypid = y.oid
        LEFT JOIN pg_type AS e ON y.typelem = e.oid
        -- A sample of the column's values as texts, of types whose width is that of the text, or of the value.
        LEFT JOIN LATERAL (
            SELECT
                (CASE
                    WHEN t.stakind1 = 1 THEN t.stavalues1
                    WHEN t.stakind2 = 1 THEN t.stavalues2
                    WHEN t.stakind3 = 1 THEN t.stavalues3
                    WHEN t.stakind4 = 1 THEN t.stavalues4
                    WHEN t.stakind5 = 1 THEN t.stavalues5
                END)::text::text[] AS common,
                CASE
                    WHEN t.stakind1 = 1 THEN t.stanumbers1
                    WHEN t.stakind2 = 1 THEN t.stanumbers2
                    WHEN t.stakind3 = 1 THEN t.stanumbers3
                    WHEN t.stakind4 = 1 THEN t.stanumbers4
                    WHEN t.stakind5 = 1 THEN t.stanumbers5
                END AS shares,
                (CASE
                    WHEN t.stakind1 = 2 THEN t.stavalues1
                    WHEN t.stakind2 = 2 THEN t.stavalues2
                    WHEN t.stakind3 = 2 THEN t.stavalues3
                    WHEN t.stakind4 = 2 THEN t.stavalues4
                    WHEN t.stakind5 = 2 THEN t.stavalues5
                END)::text::text[] AS bounds
            WHERE
                a.attlen = -1
                AND (
                    y.typoutput IN (
                        'textout'::regproc, 'varcharout'::regproc, 'bpcharout'::regproc, 'byteaout'::regproc,
                        'numeric_out'::regproc, 'inet_out'::regproc, 'jsonb_out'::regproc
                    )
                    -- Arrays of numbers of one length.
                    OR (y.typoutput = 'array_out'::regproc AND e.typcategory = 'N' AND e.typlen > 0)
                )
        ) AS v ON TRUE
        CROSS JOIN
            LATERAL (
                -- How the column's widths are spread, on which the space for alignment depends: the share of each
                -- remainder by 8, first of values with a header of a byte, which are not aligned, then of all others.
                WITH sampled AS MATERIALIZED (
                    SELECT
                        i.share,
                        CASE
                            WHEN y.typoutput = 'array_out'::regproc
                                THEN 21 + (1 + length(i.item) - length(replace(i.item, ',', ''))) * e.typlen
                            WHEN y.typoutput = 'byteaout'::regproc THEN (length(i.item) - 2) / 2 + 1
                            WHEN y.typoutput = 'numeric_out'::regproc THEN pg_column_size(i.item::numeric) - 3
                            WHEN y.typoutput = 'inet_out'::regproc THEN pg_column_size(i.item::inet) - 3
                            WHEN y.typoutput = 'jsonb_out'::regproc THEN pg_column_size(i.item::jsonb) - 3
                            ELSE octet_length(i.item) + 1
                        END AS width
                    FROM (
                        SELECT
                            m.item,
                            m.share
                        FROM unnest(v.common, v.shares) AS m (item, share)
                        UNION ALL
                        SELECT
                            b.item,
                            greatest(
                                1
                                - t.stanullfrac
                                - coalesce((SELECT sum(s.share) FROM unnest(v.shares) AS s (share)), 0),
                                0
                            ) / count(*) OVER () AS share
                        FROM unnest(v.bounds) AS b (item)
                    ) AS i
                ),

                sized AS MATERIALIZED (
                    SELECT
                        s.share,
                        s.width <= 127 AND a.attstorage <> 'p' AS is_short,
                        CASE WHEN s.width <= 127 AND a.attstorage <> 'p' THEN s.width ELSE s.width + 3 END AS width
                    FROM sampled AS s
                ),

                known AS MATERIALIZED (
                    SELECT
                        sum(z.share) AS share,
                        min(z.width) = max(z.width) AS is_fixed,
                        sum(z.share * z.width) / nullif(sum(z.share), 0) AS width
                    FROM sized AS z
                    -- The widest values are in no sample, and compressed ones are not what they are in the table.
                    HAVING abs(sum(z.share * z.width) / nullif(sum(z.share), 0) - t.stawidth) <= 1 + t.stawidth / 10
                )

                SELECT
                    a.attlen > 0 OR coalesce((SELECT n.is_fixed FROM known AS n), FALSE) AS is_fixed,
                    CASE
                        WHEN a.attlen > 0 THEN a.attlen
                        -- What ANALYZE computes is cut to a whole number.
                        ELSE least(
                            greatest(coalesce((SELECT n.width FROM known AS n), t.stawidth + 0.5), t.stawidth),
                            t.stawidth + 1
                        )
                    END::float8 AS width,
                    (
                        SELECT array_agg(w.share ORDER BY w.place)
                        FROM (
                            SELECT
                                g.place,
                                CASE
                                    WHEN a.attlen > 0 THEN (g.place = mod(a.attlen, 8))::integer::float8
                                    WHEN n.share > 0 THEN coalesce(sum(z.share) / n.share, 0)::float8
                                    WHEN a.attstorage <> 'p' AND t.stawidth <= 127
                                        THEN (g.place < 8)::integer / 8.0::float8
                                    ELSE (g.place >= 8)::integer / 8.0::float8
                                END AS share
                            FROM generate_series(0, 15) AS g (place)
                            LEFT JOIN known AS n ON TRUE
                            LEFT JOIN sized AS z
                                ON g.place = mod(z.width, 8) + CASE WHEN z.is_short THEN 0 ELSE 8 END
                            GROUP BY g.place, n.share
                        ) AS w
                    ) AS spread
            ) AS d
        WHERE a.attrelid = c.oid AND a.attnum > 0 AND c.place <= 500
    ) AS h
),

-- The mean width of a row's columns, one after the other, up to the next multiple of 8: with what probability the
-- space before a column ends at which remainder by 8, as if widths were independent of each other.
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
                    ARRAY[1, 0, 0, 0, 0, 0, 0, 0]::float8[] AS ends
                UNION ALL
                SELECT
                    w.done + 1 AS done,
                    w.size + j.shares[w.done + 1] * (j.widths[w.done + 1] + m.padding) AS size,
                    m.ends
                FROM walk AS w
                CROSS JOIN
                    LATERAL (
                        WITH moved AS MATERIALIZED (
                            SELECT
                                p.padding,
                                mod(e.place + p.padding + v.place, 8) AS place,
                                w.ends[e.place + 1] * j.spreads[w.done + 1][v.place + 1] AS share
                            FROM generate_series(0, 7) AS e (place)
                            CROSS JOIN generate_series(0, 15) AS v (place)
                            CROSS JOIN
                                LATERAL (
                                    SELECT
                                        CASE
                                            WHEN v.place >= 8 OR j.always_aligned[w.done + 1]
                                                THEN mod(8 - e.place, j.aligns[w.done + 1])
                                            ELSE 0
                                        END AS padding
                                ) AS p
                            WHERE w.ends[e.place + 1] > 0 AND j.spreads[w.done + 1][v.place + 1] > 0
                        )

                        SELECT
                            (SELECT sum(o.share * o.padding) FROM moved AS o) AS padding,
                            (
                                SELECT array_agg(f.share ORDER BY f.place)
                                FROM (
                                    SELECT
                                        g.place,
                                        (1 - j.shares[w.done + 1]) * w.ends[g.place + 1]
                                        + j.shares[w.done + 1] * coalesce(sum(o.share), 0) AS share
                                    FROM generate_series(0, 7) AS g (place)
                                    LEFT JOIN moved AS o ON g.place = o.place
                                    GROUP BY g.place
                                ) AS f
                            ) AS ends
                    ) AS m
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
