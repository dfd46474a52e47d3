-- object: function pgops.create_round_class(smallint)
CREATE OR REPLACE FUNCTION pgops.create_round_class(p_keep_days smallint)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Creates the partition for all rounds with this retention in days, if it does not exist.
DECLARE
    partition_name constant text := 'round_' || p_keep_days;
BEGIN
    IF EXISTS (SELECT FROM pgops.round_class AS c WHERE c.keep_days = p_keep_days) THEN
        RETURN;
    END IF;
    -- Not an advisory lock, which anybody who may connect could take.
    LOCK TABLE ONLY pgops.round_class IN SHARE UPDATE EXCLUSIVE MODE;
    IF EXISTS (SELECT FROM pgops.round_class AS c WHERE c.keep_days = p_keep_days) THEN
        RETURN;
    END IF;
    EXECUTE format('CREATE TABLE pgops.%I (LIKE pgops.round INCLUDING ALL) PARTITION BY RANGE (collected_at)',
                   partition_name);
    EXECUTE format('ALTER TABLE pgops.round ATTACH PARTITION pgops.%I FOR VALUES IN (%L)', partition_name, p_keep_days);
    INSERT INTO pgops.round_class (keep_days) VALUES (p_keep_days);
END
$$;

REVOKE ALL ON FUNCTION pgops.create_round_class(smallint) FROM PUBLIC;
