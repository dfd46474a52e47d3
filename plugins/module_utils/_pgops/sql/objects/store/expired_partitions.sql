-- object: function pgops.expired_partitions()
-- requires: partitions
CREATE OR REPLACE FUNCTION pgops.expired_partitions()
RETURNS TABLE (partition_name text, first_day date, early boolean)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Partitions older than their retention, and those for which there is no space (early), in the order in which they
-- are to be dropped. There is always space for today, this month and the future; then for the samples of a week, then
-- for hours, then for older samples. Samples that are not rolled up yet are kept until they are: for a week, or if
-- there is no space for three hours.
    WITH setting AS (
        SELECT
            max(s.value::integer) FILTER (WHERE s.name = 'retention_days') AS usual_days,
            max(s.value::integer) FILTER (WHERE s.name = 'rollup_days') AS rollup_days,
            max(s.value::bigint) FILTER (WHERE s.name = 'max_size_mb') * 1048576 AS max_bytes
        FROM pgops.setting AS s
    ),

    aged AS (
        SELECT
            p.*,
            p.end_day <= current_date AS past,
            CASE
                WHEN p.end_day > current_date OR (p.kind <> 'rollup' AND p.end_day > current_date - 7) THEN 0
                WHEN p.kind = 'rollup' THEN 1
                ELSE 2
            END AS worth,
            p.kind = 'round' AND EXISTS (
                SELECT FROM pgops.rollup_due AS d
                WHERE d.started_at >= p.first_day AND d.started_at < p.end_day
            ) AS is_due,
            CASE
                WHEN p.kind = 'rollup' THEN t.rollup_days
                ELSE coalesce(nullif(p.keep_days, 0), t.usual_days)
            END AS kept_days
        FROM pgops.partitions AS p
        CROSS JOIN setting AS t
    ),

    judged AS (
        SELECT
            a.*,
            a.end_day <= current_date - a.kept_days - CASE WHEN a.is_due THEN 7 ELSE 0 END AS expired,
            a.past AND NOT (a.is_due AND a.end_day > now() - interval '3 hours') AS may_go_early
        FROM aged AS a
    ),

    -- All else that is stored: names of series, texts, and the like, which have bounds of their own.
    other AS (
        SELECT sum(pg_total_relation_size(c.oid)) AS bytes
        FROM pg_class AS c
        WHERE c.relnamespace = to_regnamespace('pgops') AND c.relkind = 'r' AND NOT c.relispartition
    ),

    summed AS (
        SELECT
            j.*,
            o.bytes + sum(CASE WHEN j.expired THEN 0 ELSE j.size_bytes END)
                OVER (ORDER BY j.worth ASC, j.past ASC, j.first_day DESC) AS bytes_with_better
        FROM judged AS j
        CROSS JOIN other AS o
    )

    SELECT u.partition_name, u.first_day, NOT u.expired
    FROM summed AS u
    CROSS JOIN setting AS t
    WHERE u.expired OR (u.may_go_early AND u.bytes_with_better > t.max_bytes)
    ORDER BY NOT u.expired, u.worth DESC, u.first_day, u.partition_name;
$$;

REVOKE ALL ON FUNCTION pgops.expired_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.expired_partitions() TO pgops;
