-- object: function pgops.create_partition(date)
CREATE OR REPLACE FUNCTION pgops.create_partition(p_day date)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Makes the partition of one day in UTC; says whether it had to.
DECLARE
    partition_name text := 'round_' || to_char(p_day, 'YYYYMMDD');
BEGIN
    IF to_regclass(format('pgops.%I', partition_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('pgops.round'), to_char(p_day, 'YYYYMMDD')::integer);
    IF to_regclass(format('pgops.%I', partition_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- Attached, not created in place: ATTACH does not lock readers and writers of the other days out.
    EXECUTE format('CREATE TABLE pgops.%I (LIKE pgops.round INCLUDING ALL)', partition_name);
    EXECUTE format('ALTER TABLE pgops.round ATTACH PARTITION pgops.%I FOR VALUES FROM (%L) TO (%L)',
                   partition_name, p_day, p_day + 1);
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION pgops.create_partition(date) FROM PUBLIC;
