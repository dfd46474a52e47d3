-- object: view pgops.partitions
CREATE OR REPLACE VIEW pgops.partitions AS
SELECT
    d.partition_name,
    d.kind,
    d.keep_days,
    d.first_day,
    CASE
        WHEN d.kind = 'rollup' THEN (d.first_day + '1 month'::interval)::date
        ELSE d.first_day + 1
    END AS end_day,
    pg_catalog.pg_total_relation_size(d.oid) AS size_bytes
FROM (
    SELECT
        c.oid,
        c.relname::text AS partition_name,
        p.parts[1] AS kind,
        p.parts[2]::smallint AS keep_days,
        pg_catalog.to_date(pg_catalog.rpad(p.parts[3], 8, '01'), 'YYYYMMDD') AS first_day
    FROM pg_catalog.pg_inherits AS i
    INNER JOIN pg_catalog.pg_class AS c ON i.inhrelid = c.oid
    INNER JOIN pg_catalog.pg_namespace AS n ON c.relnamespace = n.oid
    CROSS JOIN
        LATERAL (
            SELECT pg_catalog.regexp_match(
                c.relname, '^(round|query_usage|rollup)(?:_([0-9]{1,5}))?_([0-9]{6}|[0-9]{8})$'
            ) AS parts
        ) AS p
    WHERE n.nspname = 'pgops' AND c.relkind = 'r' AND p.parts IS NOT NULL
) AS d;

REVOKE ALL ON pgops.partitions FROM PUBLIC;
GRANT SELECT ON pgops.partitions TO pgops, pgops_reader;
