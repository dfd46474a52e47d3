-- collector: freeze_need
-- scope: database
-- interval: 900
-- timeout: 20
-- role: primary
-- metric: table_xid_freeze_lag_percent unit=% category=availability direction=above warning=110 critical=125
--   Age of a table's oldest unfrozen transaction ID, including TOAST, as a share of the age at which autovacuum
--   freezes the table, even if autovacuum is off (the table's own settings apply if they are lower). Well above 100,
--   autovacuum does not keep up or is blocked. The 20 worst tables, in steps of ten; the highest of all others with
--   part "remainder", and of temporary tables with part "temporary". Only its own session can vacuum a temporary
--   table: end that session, which a pool may keep for weeks.
-- metric: table_multixact_freeze_lag_percent unit=% category=availability direction=above warning=110
--   The same for multixacts. The server freezes earlier if their members take much space.
-- metric: tables_freeze_due category=availability
--   Tables above 100 in one of the two, including temporary ones; autovacuum must freeze the others. They hold back
--   the ages of their database.
WITH setting AS MATERIALIZED (
    SELECT
        current_setting('autovacuum_freeze_max_age')::float8 AS freeze_at,
        current_setting('autovacuum_multixact_freeze_max_age')::float8 AS multixact_freeze_at
),

aged AS MATERIALIZED (
    SELECT
        c.oid,
        c.relname,
        c.relnamespace,
        c.relpages,
        c.relpersistence = 't' AS temporary,
        -- NULL in tables of an access method that needs no freezing.
        age(nullif(c.relfrozenxid, '0'::xid)) AS xid_age,
        mxid_age(nullif(c.relminmxid, '0'::xid)) AS multixact_age,
        age(t.relfrozenxid) AS toast_xid_age,
        mxid_age(t.relminmxid) AS toast_multixact_age,
        CASE
            WHEN c.reloptions IS NOT NULL THEN (
                SELECT jsonb_object_agg(p.option_name, p.option_value) FROM pg_options_to_table(c.reloptions) AS p
            )
        END AS own,
        CASE
            WHEN coalesce(t.reloptions, c.reloptions) IS NOT NULL THEN (
                SELECT jsonb_object_agg(p.option_name, p.option_value)
                -- Settings of a table also apply to its TOAST, unless that has its own.
                FROM pg_options_to_table(coalesce(t.reloptions, c.reloptions)) AS p
            )
        END AS toast_own
    FROM pg_class AS c
    LEFT JOIN pg_class AS t ON c.reltoastrelid = t.oid
    WHERE c.relkind IN ('r', 'm')
),

limited AS (
    SELECT
        a.*,
        least((a.own ->> 'autovacuum_freeze_max_age')::float8, s.freeze_at) AS freeze_at,
        least((a.toast_own ->> 'autovacuum_freeze_max_age')::float8, s.freeze_at) AS toast_freeze_at,
        least(
            (a.own ->> 'autovacuum_multixact_freeze_max_age')::float8, s.multixact_freeze_at
        ) AS multixact_freeze_at,
        least(
            (a.toast_own ->> 'autovacuum_multixact_freeze_max_age')::float8, s.multixact_freeze_at
        ) AS toast_multixact_freeze_at
    FROM aged AS a
    CROSS JOIN setting AS s
),

rated AS MATERIALIZED (
    SELECT
        l.oid,
        l.relname,
        l.relnamespace,
        l.relpages,
        l.temporary,
        -- A table's own limit may be 0.
        100 * greatest(
            l.xid_age / greatest(l.freeze_at, 1), l.toast_xid_age / greatest(l.toast_freeze_at, 1)
        ) AS xid,
        100 * greatest(
            l.multixact_age / greatest(l.multixact_freeze_at, 1),
            l.toast_multixact_age / greatest(l.toast_multixact_freeze_at, 1)
        ) AS multixact
    FROM limited AS l
),

worst AS MATERIALIZED (
    SELECT r.*
    FROM rated AS r
    WHERE NOT r.temporary
    ORDER BY floor(greatest(r.xid, r.multixact) / 10) DESC NULLS LAST, r.relpages DESC, r.oid ASC
    LIMIT 20
)

SELECT
    current_database() AS database,
    n.nspname AS schema,
    w.relname AS table,
    NULL AS part,
    w.xid AS table_xid_freeze_lag_percent,
    w.multixact AS table_multixact_freeze_lag_percent,
    NULL::bigint AS tables_freeze_due
FROM worst AS w
INNER JOIN pg_namespace AS n ON w.relnamespace = n.oid
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    'remainder' AS part,
    max(r.xid) AS table_xid_freeze_lag_percent,
    max(r.multixact) AS table_multixact_freeze_lag_percent,
    NULL AS tables_freeze_due
FROM rated AS r
WHERE NOT r.temporary AND r.oid NOT IN (SELECT w.oid FROM worst AS w)
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    'temporary' AS part,
    max(r.xid) AS table_xid_freeze_lag_percent,
    max(r.multixact) AS table_multixact_freeze_lag_percent,
    NULL AS tables_freeze_due
FROM rated AS r
WHERE r.temporary
HAVING count(*) > 0
UNION ALL
SELECT
    current_database() AS database,
    NULL AS schema,
    NULL AS table,
    NULL AS part,
    NULL AS table_xid_freeze_lag_percent,
    NULL AS table_multixact_freeze_lag_percent,
    count(*) FILTER (WHERE r.xid > 100 OR r.multixact > 100) AS tables_freeze_due
FROM rated AS r
