-- object: function pgops.create_partition(text, date)
CREATE OR REPLACE FUNCTION pgops.create_partition(p_parent text, p_day date)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Creates the partition of a table that a day in UTC belongs to, which is that day's, or the month's for hours;
-- returns whether it was missing.
DECLARE
    monthly constant boolean := p_parent = 'rollup';
    first_day constant date := date_trunc(CASE WHEN monthly THEN 'month' ELSE 'day' END, p_day);
    end_day constant date := first_day + CASE WHEN monthly THEN interval '1 month' ELSE interval '1 day' END;
    partition_name constant text := p_parent || to_char(first_day, CASE WHEN monthly THEN '_YYYYMM' ELSE '_YYYYMMDD' END);
BEGIN
    IF to_regclass(format('pgops.%I', partition_name)) IS NOT NULL THEN
        RETURN false;
    END IF;
    -- One lock for all days: a session that attaches locks the parent to its end, and may then need another day.
    -- Not an advisory lock, which anybody who may connect could take.
    EXECUTE format('LOCK TABLE ONLY pgops.%I IN SHARE UPDATE EXCLUSIVE MODE', p_parent);
    -- Not to_regclass, which caches that it did not find it.
    IF EXISTS (
        SELECT FROM pg_class AS c
        WHERE c.relnamespace = 'pgops'::regnamespace AND c.relname = partition_name
    ) THEN
        RETURN false;
    END IF;
    -- Attached, not created in place: ATTACH does not block readers and writers of the other days.
    EXECUTE format('CREATE TABLE pgops.%I (LIKE pgops.%I INCLUDING ALL)', partition_name, p_parent);
    EXECUTE format('ALTER TABLE pgops.%I ATTACH PARTITION pgops.%I FOR VALUES FROM (%L) TO (%L)',
                   p_parent, partition_name, first_day, end_day);
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION pgops.create_partition(text, date) FROM PUBLIC;
