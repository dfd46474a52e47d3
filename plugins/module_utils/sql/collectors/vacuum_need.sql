-- collector: vacuum_need
-- scope: database
-- interval: 300
-- timeout: 20
-- role: primary
-- metric: table_vacuum_due_ratio direction=above warning=2
--   Dead rows by the number that makes autovacuum start (the table's own settings win); above 2 it does not keep up.
--   Of the 20 worst tables.
-- metric: tables_vacuum_due direction=above warning=0
--   Tables with more than twice the dead rows that make autovacuum start.
WITH counted AS (
    SELECT
        n.nspname,
        c.relname,
        c.oid,
        c.relpages,
        pg_stat_get_dead_tuples(c.oid) AS dead,
        coalesce(o.threshold, current_setting('autovacuum_vacuum_threshold')::float8)
        + coalesce(o.scale, current_setting('autovacuum_vacuum_scale_factor')::float8)
        * greatest(c.reltuples, 0) AS wanted,
        -- Since PostgreSQL 18; -1 is no limit.
        nullif(
            coalesce(o.most, current_setting('autovacuum_vacuum_max_threshold', TRUE)::float8), -1
        ) AS most
    FROM pg_class AS c
    INNER JOIN pg_namespace AS n ON c.relnamespace = n.oid
    LEFT JOIN LATERAL (
        SELECT
            max(p.option_value) FILTER (WHERE p.option_name = 'autovacuum_vacuum_threshold')::float8 AS threshold,
            max(p.option_value) FILTER (WHERE p.option_name = 'autovacuum_vacuum_scale_factor')::float8 AS scale,
            max(p.option_value) FILTER (WHERE p.option_name = 'autovacuum_vacuum_max_threshold')::float8 AS most
        FROM pg_options_to_table(c.reloptions) AS p
    ) AS o ON c.reloptions IS NOT NULL
    WHERE
        c.relkind IN ('r', 'm')
        AND c.relpersistence <> 't'
        AND current_setting('track_counts')::boolean
),

rated AS (
    SELECT
        c.nspname,
        c.relname,
        c.oid,
        c.relpages,
        -- least() leaves out a limit that is not there.
        c.dead / greatest(least(c.wanted, c.most), 1) AS ratio
    FROM counted AS c
),

placed AS (
    SELECT
        r.nspname,
        r.relname,
        r.ratio,
        -- In steps, so that the tables named stay the same as long as nothing is due.
        row_number() OVER (
            ORDER BY floor(ln(greatest(r.ratio, 1)) / ln(2)) DESC, r.relpages DESC, r.oid ASC
        ) AS place
    FROM rated AS r
)

SELECT
    current_database() AS database,
    p.nspname AS schema,
    p.relname AS table,
    p.ratio AS table_vacuum_due_ratio,
    NULL::bigint AS tables_vacuum_due
FROM placed AS p
WHERE p.place <= 20
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    NULL AS table_vacuum_due_ratio,
    count(*) FILTER (WHERE p.ratio > 2) AS tables_vacuum_due
FROM placed AS p
HAVING count(*) > 0
