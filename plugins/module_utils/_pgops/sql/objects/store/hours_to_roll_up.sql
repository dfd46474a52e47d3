-- object: function pgops.hours_to_roll_up()
CREATE OR REPLACE FUNCTION pgops.hours_to_roll_up()
RETURNS TABLE (node_id integer, started_at timestamptz)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- The complete hours that are to be rolled up, oldest first. The last one waits two minutes for rounds on their way.
    SELECT d.node_id, d.started_at FROM pgops.rollup_due AS d
    WHERE d.started_at <= now() - interval '62 minutes'
    ORDER BY d.started_at, d.node_id;
$$;

REVOKE ALL ON FUNCTION pgops.hours_to_roll_up() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.hours_to_roll_up() TO pgops;
