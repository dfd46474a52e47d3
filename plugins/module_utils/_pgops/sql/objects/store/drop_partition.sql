-- object: function pgops.drop_partition(text)
-- requires: expired_partitions
CREATE OR REPLACE FUNCTION pgops.drop_partition(p_partition_name text)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Drops an expired partition, one for each call, so that the caller commits after each.
DECLARE
    doomed pgops.partitions;
BEGIN
    SELECT p.* INTO doomed FROM pgops.partitions AS p
    INNER JOIN pgops.expired_partitions() AS e ON e.partition_name = p.partition_name
    WHERE p.partition_name = p_partition_name;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE IF EXISTS pgops.%I', doomed.partition_name);
    UPDATE pgops.round_class AS c SET gone_before = greatest(c.gone_before, doomed.end_day)
    WHERE doomed.kind = 'round' AND c.keep_days = doomed.keep_days;
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION pgops.drop_partition(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.drop_partition(text) TO pgops;
