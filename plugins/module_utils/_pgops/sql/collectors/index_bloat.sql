-- collector: index_bloat
-- scope: database
-- interval: 3600
-- timeout: 30
-- role: primary
-- rights: all_data
-- metric: index_bloat_mb unit=MB category=capacity
--   Space that REINDEX CONCURRENTLY would free, estimated from statistics; the 20 B-tree indexes with most, and all
--   others together with part "remainder". Indexes of 1 MB or more, as of the last VACUUM or ANALYZE. Random inserts
--   leave about a third of an index free: act if it is more, and grows.
-- metric: index_bloat_percent unit=% category=capacity direction=above warning=60
--   The same as a share of the size of the index.
-- metric: bloat_unknown_indexes category=capacity
--   Indexes of 1 MB or more without an estimate, by reason: method (not a B-tree), duplicates (equal keys share an
--   entry, and their number is not known well enough), partial (with NULLs, whose number is not known), wide_keys
--   (which may be compressed), never_analyzed, not_counted (the server lost the time of the last ANALYZE), stale
--   (changed too much since), no_statistics (of a column or expression), beyond (only the 500 largest are estimated).
--   pgstatindex measures them.
WITH setting AS MATERIALIZED (
    SELECT
        current_setting('block_size')::integer AS page,
        1048576 / current_setting('block_size')::integer AS least
),

candidate AS MATERIALIZED (
    SELECT
        x.oid,
        x.relname,
        x.relnamespace,
        x.relpages,
        x.reltuples,
        x.relam,
        x.reloptions,
        c.relname AS table_name,
        greatest(c.reltuples, 1) AS table_rows,
        i.indrelid,
        i.indkey,
        i.indclass,
        i.indisunique,
        i.indnatts > i.indnkeyatts AS includes,
        i.indpred IS NOT NULL AS is_partial,
        row_number() OVER (ORDER BY x.relpages DESC, x.oid ASC) AS place
    FROM pg_class AS x
    CROSS JOIN setting AS s
    INNER JOIN pg_index AS i ON x.oid = i.indexrelid
    INNER JOIN pg_class AS c ON i.indrelid = c.oid
    WHERE
        x.relkind = 'i'
        AND x.relpersistence <> 't'
        AND x.relpages >= s.least
        -- TOAST and the statistics themselves are never analyzed.
        AND c.relkind IN ('r', 'm')
        AND c.oid <> 'pg_statistic'::regclass
),

described AS MATERIALIZED (
    SELECT
        c.*,
        h.*,
        o.fill,
        coalesce(
            pg_stat_get_last_analyze_time(c.indrelid), pg_stat_get_last_autoanalyze_time(c.indrelid)
        ) AS analyzed,
        -- The condition under which PostgreSQL stores equal keys in one entry.
        o.may_merge AND h.may_merge AND NOT c.indisunique AND NOT c.includes AS is_merging
    FROM candidate AS c
    CROSS JOIN
        LATERAL (
            SELECT
                coalesce(max(p.option_value) FILTER (WHERE p.option_name = 'fillfactor')::integer, 90) AS fill,
                coalesce(
                    bool_and(p.option_value::boolean) FILTER (WHERE p.option_name = 'deduplicate_items'), TRUE
                ) AS may_merge
            FROM pg_options_to_table(c.reloptions) AS p
            WHERE p.option_name IN ('fillfactor', 'deduplicate_items')
        ) AS o
    CROSS JOIN LATERAL (
        -- The columns in their order, and the end of the entry.
        SELECT
            count(t.starelid) AS known,
            -- The only type that is stored as another one, name, counts as unknown.
            count(*) FILTER (WHERE t.starelid IS NULL OR a.attlen < -1) AS unknown,
            bool_and(d.is_fixed AND t.stanullfrac = 0) AS fixed,
            bool_or(t.stanullfrac > 0) AS with_nulls,
            -- Together, they leave no space for rows in an entry of equal keys.
            bool_or(a.attlen = -1 AND t.stawidth > 256) OR sum(t.stawidth) > 500 AS is_wide,
            -- As if columns were NULL independently of each other.
            1 - exp(sum(ln(greatest(1 - t.stanullfrac, 1e-9)))) AS null_share,
            -- Lower and upper bound of the distinct keys of the table.
            max(u.keys) AS least_keys,
            CASE WHEN bool_and(u.keys > 0) THEN exp(least(sum(ln(u.keys + 1)), 100)) END AS most_keys,
            bool_and(
                EXISTS (
                    SELECT 1
                    FROM pg_opclass AS k
                    INNER JOIN pg_amproc AS f ON k.opcfamily = f.amprocfamily
                    WHERE
                        k.oid = c.indclass[a.attnum - 1]
                        AND f.amproclefttype = k.opcintype
                        AND f.amprocrighttype = k.opcintype
                        AND f.amprocnum = 4
                )
                AND NOT EXISTS (
                    SELECT 1 FROM pg_collation AS l
                    WHERE l.oid = a.attcollation AND NOT l.collisdeterministic
                )
            ) AS may_merge,
            array_agg(1 - t.stanullfrac::float8 ORDER BY a.attnum) || 1.0::float8 AS shares,
            array_agg(d.width ORDER BY a.attnum) || 0::float8 AS widths,
            array_agg(
                CASE a.attalign WHEN 'd' THEN 8 WHEN 'i' THEN 4 WHEN 's' THEN 2 ELSE 1 END ORDER BY a.attnum
            ) || 8 AS aligns,
            array_agg(a.attlen > 0 ORDER BY a.attnum) || TRUE AS always_aligned,
            array_agg(d.spread ORDER BY a.attnum)
            || ARRAY[1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]::float8[] AS spreads
        FROM pg_attribute AS a
        -- The statistics of an expression are those of the index.
        LEFT JOIN pg_statistic AS t
            ON
                t.starelid = CASE WHEN c.indkey[a.attnum - 1] = 0 THEN c.oid ELSE c.indrelid END
                AND t.staattnum = CASE WHEN c.indkey[a.attnum - 1] = 0 THEN a.attnum ELSE c.indkey[a.attnum - 1] END
                AND NOT t.stainherit
        LEFT JOIN pg_type AS y ON a.atttypid = y.oid
        LEFT JOIN pg_type AS e ON y.typelem = e.oid
        CROSS JOIN
            LATERAL (
                SELECT CASE WHEN t.stadistinct < 0 THEN -t.stadistinct * c.table_rows ELSE t.stadistinct END AS keys
            ) AS u
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

judged AS MATERIALIZED (
    SELECT
        d.*,
        CASE
            WHEN d.relam <> (
                SELECT m.oid FROM pg_am AS m
                WHERE m.amname = 'btree'
            ) THEN 'method'
            WHEN d.place > 500 THEN 'beyond'
            WHEN d.known = 0 AND d.analyzed IS NULL THEN 'never_analyzed'
            WHEN d.analyzed IS NULL OR NOT current_setting('track_counts')::boolean THEN 'not_counted'
            -- Twice the number of changes that starts autovacuum's ANALYZE by default.
            WHEN pg_stat_get_mod_since_analyze(d.indrelid) > 100 + 0.2 * d.table_rows THEN 'stale'
            WHEN d.unknown > 0 THEN 'no_statistics'
            WHEN d.is_wide THEN 'wide_keys'
            WHEN d.is_partial AND d.with_nulls THEN 'partial'
            -- Even a unique index may contain many NULLs. If nearly all keys are distinct, or very few, an error in
            -- their number hardly matters.
            WHEN d.indisunique AND d.with_nulls THEN 'duplicates'
            WHEN
                d.is_merging
                AND (d.with_nulls OR d.least_keys < 0.9 * d.table_rows)
                AND coalesce(d.reltuples / d.most_keys < 500, TRUE)
                THEN 'duplicates'
        END AS reason
    FROM described AS d
),

-- The mean width of an entry's columns, one after the other, up to the next multiple of 8: with what probability the
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
        j.table_name,
        j.oid,
        j.relpages,
        s.page,
        greatest(j.relpages - (1 + l.leaves + CASE WHEN l.leaves > 1 THEN ceil(l.leaves / f.fanout) ELSE 0 END), 0)
            AS spare
    FROM judged AS j
    INNER JOIN measured AS m ON j.oid = m.oid
    CROSS JOIN setting AS s
    CROSS JOIN
        LATERAL (
            SELECT
            -- An entry has a header of 8 bytes, or 16 with NULLs, and a pointer of 4. A page has a header of 24
            -- and an end of 16; a leaf is left at its fillfactor, an inner page at 70 %.
                8 + 8 * j.null_share + m.size AS entry,
                s.page - 40 - s.page * (100 - j.fill) / 100 AS leaf,
                s.page / 10 / 8 * 8 - 4 AS largest,
                j.is_merging AND j.reltuples / j.most_keys >= 500 AS is_merged
        ) AS e
    CROSS JOIN
        LATERAL (
            -- An entry of equal keys has the key, and 6 bytes for each row, up to a tenth of a page.
            SELECT
                floor((s.page - 40) * 0.7 / (e.entry + 4)) - 1 AS fanout,
                CASE WHEN e.is_merged THEN greatest(floor((e.largest - e.entry) / 6), 1) ELSE 1 END AS rows_an_entry,
                4 + CASE WHEN e.is_merged THEN ceil(e.largest / 8.0) * 8 ELSE e.entry END AS bytes
        ) AS f
    CROSS JOIN LATERAL (
        SELECT
            ceil(
                j.reltuples / f.rows_an_entry
                / greatest(
                    CASE
                        -- The first key of the next leaf takes little space without its rows.
                        WHEN e.is_merged THEN ceil(e.leaf / f.bytes)
                        WHEN j.fixed THEN floor(e.leaf / f.bytes)
                        -- The unused end is half an entry on average.
                        ELSE e.leaf / f.bytes - 0.5
                    END, 1
                )
            ) AS leaves
    ) AS l
),

worst AS MATERIALIZED (
    SELECT e.*
    FROM estimated AS e
    -- By powers of two: indexes with similar values must not change places each time.
    ORDER BY floor(ln(1 + e.spare) / ln(2)) DESC, e.oid ASC
    LIMIT 20
)

SELECT
    current_database() AS database,
    n.nspname AS schema,
    w.table_name AS table,
    w.relname AS index,
    NULL AS part,
    NULL AS reason,
    w.spare * w.page / 1048576 AS index_bloat_mb,
    100 * w.spare / w.relpages AS index_bloat_percent,
    NULL::bigint AS bloat_unknown_indexes
FROM worst AS w
INNER JOIN pg_namespace AS n ON w.relnamespace = n.oid
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    NULL AS index,
    'remainder' AS part,
    NULL AS reason,
    sum(e.spare) * max(e.page) / 1048576 AS index_bloat_mb,
    100 * sum(e.spare) / sum(e.relpages) AS index_bloat_percent,
    NULL AS bloat_unknown_indexes
FROM estimated AS e
WHERE e.oid NOT IN (SELECT w.oid FROM worst AS w)
HAVING count(*) > 0
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    NULL AS index,
    NULL AS part,
    r.reason,
    NULL AS index_bloat_mb,
    NULL AS index_bloat_percent,
    count(j.reason) AS bloat_unknown_indexes
FROM
    unnest(
        ARRAY[
            'method', 'duplicates', 'partial', 'wide_keys', 'never_analyzed', 'not_counted', 'stale', 'no_statistics',
            'beyond'
        ]
    ) AS r (reason)
LEFT JOIN judged AS j ON r.reason = j.reason
GROUP BY r.reason
