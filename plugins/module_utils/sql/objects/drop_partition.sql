-- object: function pgops.drop_partition(date)
-- requires: expired_partitions
CREATE OR REPLACE FUNCTION pgops.drop_partition(p_day date)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Drops the partitions of one expired day. One day a call, so that the caller commits after each.
DECLARE
    parent text;
BEGIN
    IF p_day NOT IN (SELECT e.expired FROM pgops.expired_partitions() AS e (expired)) THEN
        RETURN false;
    END IF;
    FOREACH parent IN ARRAY ARRAY['round', 'query_usage'] LOOP
        EXECUTE format('DROP TABLE IF EXISTS pgops.%I', parent || '_' || to_char(p_day, 'YYYYMMDD'));
    END LOOP;
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION pgops.drop_partition(date) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.drop_partition(date) TO pgops;
