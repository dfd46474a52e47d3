-- object: view pgops.store_status
-- Measuring one file costs as much as all the rest, so only those partitions are measured that change, or that no
-- VACUUM has counted yet.
CREATE OR REPLACE VIEW pgops.store_status AS
WITH part AS (
    SELECT
        c.oid,
        c.relkind,
        c.relpages,
        -- For samples their day; for all others the time from which they no longer grow.
        substring(c.relname FROM '^round_[0-9]+_([0-9]{8})') AS day,
        pg_catalog.rpad(
            substring(c.relname FROM '^(?:round_[0-9]+|rollup|query_usage)_([0-9]{6,8})'), 8, '9'
        ) AS until
    FROM pg_catalog.pg_class AS c
    WHERE
        c.relnamespace = pg_catalog.to_regnamespace('pgops')
        AND c.relispartition
        AND c.relkind IN ('r', 'i')
)

SELECT
    (
        SELECT pg_catalog.count(*)
        FROM (
            SELECT s.series_id FROM pgops.series AS s
            ORDER BY s.series_id
            LIMIT 100000
        ) AS few
    ) AS series,
    pg_catalog.count(DISTINCT p.day) FILTER (WHERE p.relkind = 'r') AS partitions,
    pg_catalog.to_date(pg_catalog.min(p.day) FILTER (WHERE p.relkind = 'r'), 'YYYYMMDD') AS oldest_day,
    pg_catalog.to_date(pg_catalog.max(p.day) FILTER (WHERE p.relkind = 'r'), 'YYYYMMDD') AS newest_day,
    coalesce(pg_catalog.sum(
        CASE
            WHEN p.relpages = 0 OR p.until >= pg_catalog.to_char(pg_catalog.now() - '1 day'::interval, 'YYYYMMDD')
                THEN pg_catalog.pg_relation_size(p.oid)
            ELSE p.relpages * pg_catalog.current_setting('block_size')::bigint
        END
    ), 0)::bigint AS store_bytes
FROM part AS p
WHERE p.until IS NOT NULL;

REVOKE ALL ON pgops.store_status FROM PUBLIC;
GRANT SELECT ON pgops.store_status TO pgops, pgops_reader;
