-- collector: vacuum_need
-- scope: database
-- interval: 300
-- timeout: 20
-- role: primary
-- metric: table_vacuum_due_ratio direction=above warning=2
--   Dead rows as a multiple of the number that starts autovacuum (the table's own settings apply). Above 2 it does
--   not keep up. TOAST counts for its table if it is worse. Metrics table_*_due_ratio cover the 20 worst tables, and
--   the highest of all others with part "remainder". No value if the server lost its counters and has counted nothing
--   since.
-- metric: tables_vacuum_due direction=above warning=0
--   Tables with more than twice the dead rows that start autovacuum.
-- metric: table_insert_vacuum_due_ratio direction=above warning=2
--   Rows inserted since the last vacuum, as a multiple of the number that starts autovacuum for inserts (which
--   freezes rows in time and keeps index-only scans fast); those of TOAST if they are worse. No value if that is
--   switched off.
-- metric: tables_insert_vacuum_due direction=above warning=0
--   Tables with more than twice the inserts that start autovacuum.
-- metric: table_analyze_due_ratio direction=above warning=2
--   Rows changed since the last ANALYZE, as a multiple of the number that starts autovacuum's ANALYZE. Above 2 plans
--   are based on old statistics.
-- metric: tables_analyze_due direction=above warning=0
--   Tables with more than twice the changes that start autovacuum's ANALYZE.
WITH setting AS MATERIALIZED (
    SELECT
        current_setting('autovacuum_vacuum_threshold')::float8 AS vacuum_base,
        current_setting('autovacuum_vacuum_scale_factor')::float8 AS vacuum_scale,
        -- Since PostgreSQL 18; -1 is no limit.
        current_setting('autovacuum_vacuum_max_threshold', TRUE)::float8 AS vacuum_most,
        -- -1 is never.
        current_setting('autovacuum_vacuum_insert_threshold')::float8 AS insert_base,
        current_setting('autovacuum_vacuum_insert_scale_factor')::float8 AS insert_scale,
        current_setting('autovacuum_analyze_threshold')::float8 AS analyze_base,
        current_setting('autovacuum_analyze_scale_factor')::float8 AS analyze_scale
),

counted AS MATERIALIZED (
    SELECT
        c.*,
        pg_stat_get_dead_tuples(c.oid) AS dead,
        pg_stat_get_ins_since_vacuum(c.oid) AS inserted,
        pg_stat_get_mod_since_analyze(c.oid) AS changed
    -- PostgreSQL 18 and newer have this column, which is used; before, the name below only finds this one.
    FROM (SELECT 0 AS relallfrozen) AS older
    CROSS JOIN LATERAL (
        SELECT
            c.oid,
            coalesce(o.oid, c.oid) AS owner,
            c.relkind,
            c.relpages,
            greatest(c.reltuples, 0) AS live,
            1 - least(relallfrozen, c.relpages)::float8 / greatest(c.relpages, 1) AS unfrozen, -- noqa: RF02,RF03
            CASE
                WHEN coalesce(c.reloptions, o.reloptions) IS NOT NULL THEN (
                    SELECT jsonb_object_agg(p.option_name, p.option_value)
                    -- Settings of a table also apply to its TOAST, unless that has its own.
                    FROM pg_options_to_table(coalesce(c.reloptions, o.reloptions)) AS p
                )
            END AS own
        FROM pg_class AS c
        LEFT JOIN (
            SELECT
                r.oid,
                r.reltoastrelid,
                r.reloptions
            FROM pg_class AS r
            WHERE r.reltoastrelid <> 0
        ) AS o ON c.oid = o.reltoastrelid
        WHERE
            c.relkind IN ('r', 'm', 't')
            AND c.relpersistence <> 't'
            AND current_setting('track_counts')::boolean
    ) AS c
),

known AS (
    SELECT
        c.*,
        coalesce((c.own ->> 'autovacuum_vacuum_threshold')::float8, s.vacuum_base)
        + coalesce((c.own ->> 'autovacuum_vacuum_scale_factor')::float8, s.vacuum_scale) * c.live AS vacuum_at,
        nullif(coalesce((c.own ->> 'autovacuum_vacuum_max_threshold')::float8, s.vacuum_most), -1) AS vacuum_most,
        nullif(coalesce((c.own ->> 'autovacuum_vacuum_insert_threshold')::float8, s.insert_base), -1)
        + coalesce((c.own ->> 'autovacuum_vacuum_insert_scale_factor')::float8, s.insert_scale)
        * c.live * c.unfrozen AS insert_at,
        coalesce((c.own ->> 'autovacuum_analyze_threshold')::float8, s.analyze_base)
        + coalesce((c.own ->> 'autovacuum_analyze_scale_factor')::float8, s.analyze_scale) * c.live AS analyze_at
    FROM counted AS c
    CROSS JOIN setting AS s
    -- ANALYZE has seen rows, but none are counted: the statistics were lost.
    WHERE
        c.live = 0 OR c.dead > 0 OR c.inserted > 0 OR c.changed > 0 OR pg_stat_get_live_tuples(c.oid) > 0
),

rated AS MATERIALIZED (
    SELECT
        k.owner AS oid,
        sum(k.relpages) AS relpages,
        -- least() ignores a limit that does not exist.
        max(k.dead / greatest(least(k.vacuum_at, k.vacuum_most), 1)) AS vacuum,
        -- greatest() would make 1 of NULL.
        max(CASE WHEN k.insert_at IS NOT NULL THEN k.inserted / greatest(k.insert_at, 1) END) AS inserts,
        -- The server analyzes all tables except the statistics themselves, and TOAST.
        max(k.changed / greatest(k.analyze_at, 1)) FILTER (
            WHERE k.oid <> 'pg_statistic'::regclass AND k.relkind <> 't'
        ) AS changes
    FROM known AS k
    GROUP BY k.owner
),

worst AS MATERIALIZED (
    SELECT r.*
    FROM rated AS r
    -- In steps, so that the same tables are shown as long as nothing is due.
    ORDER BY floor(ln(greatest(r.vacuum, r.inserts, r.changes, 1)) / ln(2)) DESC, r.relpages DESC, r.oid ASC
    LIMIT 20
)

SELECT
    current_database() AS database,
    n.nspname AS schema,
    c.relname AS table,
    NULL AS part,
    w.vacuum AS table_vacuum_due_ratio,
    w.inserts AS table_insert_vacuum_due_ratio,
    w.changes AS table_analyze_due_ratio,
    NULL::bigint AS tables_vacuum_due,
    NULL::bigint AS tables_insert_vacuum_due,
    NULL::bigint AS tables_analyze_due
FROM worst AS w
INNER JOIN pg_class AS c ON w.oid = c.oid
INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    'remainder' AS part,
    max(r.vacuum) AS table_vacuum_due_ratio,
    max(r.inserts) AS table_insert_vacuum_due_ratio,
    max(r.changes) AS table_analyze_due_ratio,
    NULL AS tables_vacuum_due,
    NULL AS tables_insert_vacuum_due,
    NULL AS tables_analyze_due
FROM rated AS r
WHERE r.oid NOT IN (SELECT w.oid FROM worst AS w)
HAVING count(*) > 0
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    NULL AS part,
    NULL AS table_vacuum_due_ratio,
    NULL AS table_insert_vacuum_due_ratio,
    NULL AS table_analyze_due_ratio,
    count(*) FILTER (WHERE r.vacuum > 2) AS tables_vacuum_due,
    count(*) FILTER (WHERE r.inserts > 2) AS tables_insert_vacuum_due,
    count(*) FILTER (WHERE r.changes > 2) AS tables_analyze_due
FROM rated AS r
HAVING count(*) > 0
