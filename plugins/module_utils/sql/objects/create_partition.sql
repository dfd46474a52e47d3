-- object: function pgops.create_partition(date)
CREATE OR REPLACE FUNCTION pgops.create_partition(p_day date)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Makes the partitions of one day in UTC; says whether it had to.
DECLARE
    parent text;
    partition_name text;
    made boolean := false;
BEGIN
    FOR parent IN
        SELECT c.relname FROM pg_class AS c
        WHERE c.relnamespace = 'pgops'::regnamespace AND c.relname IN ('round', 'query_usage')
        ORDER BY c.relname
    LOOP
        partition_name := parent || '_' || to_char(p_day, 'YYYYMMDD');
        CONTINUE WHEN to_regclass(format('pgops.%I', partition_name)) IS NOT NULL;
        PERFORM pg_advisory_xact_lock(hashtext('pgops.' || parent), to_char(p_day, 'YYYYMMDD')::integer);
        CONTINUE WHEN to_regclass(format('pgops.%I', partition_name)) IS NOT NULL;
        -- Attached, not created in place: ATTACH does not lock readers and writers of the other days out.
        EXECUTE format('CREATE TABLE pgops.%I (LIKE pgops.%I INCLUDING ALL)', partition_name, parent);
        EXECUTE format('ALTER TABLE pgops.%I ATTACH PARTITION pgops.%I FOR VALUES FROM (%L) TO (%L)',
                       parent, partition_name, p_day, p_day + 1);
        made := true;
    END LOOP;
    RETURN made;
END
$$;

REVOKE ALL ON FUNCTION pgops.create_partition(date) FROM PUBLIC;
