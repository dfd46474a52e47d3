-- object: function pgops.drop_partition(date)
-- requires: expired_partitions
CREATE OR REPLACE FUNCTION pgops.drop_partition(p_day date)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Drops the partition of one expired day. One day a call, so that the caller commits after each.
BEGIN
    IF p_day NOT IN (SELECT e.expired FROM pgops.expired_partitions() AS e (expired)) THEN
        RETURN false;
    END IF;
    EXECUTE format('DROP TABLE pgops.%I', 'round_' || to_char(p_day, 'YYYYMMDD'));
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION pgops.drop_partition(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.drop_partition(date) TO pgops;
