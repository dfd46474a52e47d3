-- object: function pgops.maintain_partitions(integer)
-- requires: create_partition
CREATE OR REPLACE FUNCTION pgops.maintain_partitions(p_days_ahead integer DEFAULT 7)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Creates the partitions of today and the days ahead; returns how many were missing.
BEGIN
    RETURN (
        SELECT count(*) FILTER (WHERE pgops.create_partition(parents.parent, current_date + days.ahead))
        FROM generate_series(0, least(greatest(p_days_ahead, 1), 30)) AS days (ahead)
        CROSS JOIN (
            SELECT unnest(ARRAY['query_usage', 'rollup'])
            UNION ALL
            SELECT 'round_' || c.keep_days FROM pgops.round_class AS c
        ) AS parents (parent)
    );
END
$$;

REVOKE ALL ON FUNCTION pgops.maintain_partitions(integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.maintain_partitions(integer) TO pgops;
