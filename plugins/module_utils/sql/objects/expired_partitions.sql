-- object: function pgops.expired_partitions()
-- requires: oversized_partitions
CREATE OR REPLACE FUNCTION pgops.expired_partitions()
RETURNS SETOF date
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- The days that are older than the retention, or find no room, and are still there; oldest first.
    SELECT to_date(right(c.relname, 8), 'YYYYMMDD')
    FROM pg_inherits AS i
    INNER JOIN pg_class AS c ON c.oid = i.inhrelid
    WHERE
        c.relnamespace = 'pgops'::regnamespace
        AND c.relname ~ '^(round|query_usage)_[0-9]{8}$'
        AND to_date(right(c.relname, 8), 'YYYYMMDD')
        < current_date - (SELECT s.value::integer FROM pgops.setting AS s WHERE s.name = 'retention_days')
    UNION
    SELECT o.day FROM pgops.oversized_partitions() AS o (day)
    ORDER BY 1;
$$;

REVOKE ALL ON FUNCTION pgops.expired_partitions() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.expired_partitions() TO pgops;
