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
-- Partitions that are older than what they hold is kept for, and those that find no room (early). What is of today, of
-- this month or to come always finds some; then hours come before samples, and what is newer before what is older.
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
            p.end_day <= current_date - CASE
                WHEN p.kind = 'rollup' THEN t.rollup_days
                ELSE coalesce(nullif(p.keep_days, 0), t.usual_days)
            END AS expired
        FROM pgops.partitions AS p
        CROSS JOIN setting AS t
    ),

    summed AS (
        SELECT
            a.*,
            sum(CASE WHEN a.expired THEN 0 ELSE a.size_bytes END)
                OVER (ORDER BY a.past, a.past AND a.kind <> 'rollup', a.first_day DESC) AS bytes_with_better
        FROM aged AS a
    )

    SELECT u.partition_name, u.first_day, NOT u.expired
    FROM summed AS u
    CROSS JOIN setting AS t
    WHERE u.expired OR (u.past AND u.bytes_with_better > t.max_bytes)
    ORDER BY u.first_day, u.partition_name;
$$;

REVOKE ALL ON FUNCTION pgops.expired_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.expired_partitions() TO pgops;
