-- object: function pgops.oversized_partitions()
CREATE OR REPLACE FUNCTION pgops.oversized_partitions()
RETURNS SETOF date
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- The oldest days within the retention that together with all newer ones take more than the store may; never today
-- and what is to come.
    SELECT d.day
    FROM (
        SELECT
            s.day,
            sum(sum(s.bytes)) OVER (ORDER BY s.day DESC) AS bytes_with_newer
        FROM (
            SELECT
                to_date(right(c.relname, 8), 'YYYYMMDD') AS day,
                pg_total_relation_size(c.oid) AS bytes
            FROM pg_inherits AS i
            INNER JOIN pg_class AS c ON c.oid = i.inhrelid
            WHERE
                c.relnamespace = 'pgops'::regnamespace
                AND c.relname ~ '^(round|query_usage)_[0-9]{8}$'
        ) AS s
        GROUP BY s.day
    ) AS d
    WHERE
        d.day < current_date
        AND d.day
        >= current_date - (SELECT s.value::integer FROM pgops.setting AS s WHERE s.name = 'retention_days')
        AND d.bytes_with_newer
        > (SELECT s.value::bigint * 1048576 FROM pgops.setting AS s WHERE s.name = 'max_size_mb')
    ORDER BY 1;
$$;

REVOKE ALL ON FUNCTION pgops.oversized_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.oversized_partitions() TO pgops;
