-- object: function pgops.standby_surplus(timestamp with time zone)
-- requires: samples_between
CREATE OR REPLACE FUNCTION pgops.standby_surplus(p_at timestamptz)
RETURNS TABLE (node_id integer, labels jsonb, derived double precision)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- How many more standbys stream in the cluster than are expected, negative if some are missing; a series of the primary.
-- Those that stream from a standby count where its agent reports. No value where nobody said how many are expected, or
-- the primary does not report.
    WITH connected AS MATERIALIZED (
        SELECT DISTINCT ON (v.node_id) v.node_id, v.sample
        FROM pgops.samples_between('{standbys_connected}', p_at - interval '150 seconds', p_at) AS v
        ORDER BY v.node_id, v.collected_at DESC
    )

    SELECT n.node_id, '{}'::jsonb, (SELECT sum(c.sample) FROM connected AS c) - e.value::float8
    FROM pgops.setting AS e
    CROSS JOIN pgops.node AS n
    WHERE
        e.name = 'expected_standbys' AND n.is_primary
        AND EXISTS (SELECT FROM connected AS c WHERE c.node_id = n.node_id);
$$;

REVOKE ALL ON FUNCTION pgops.standby_surplus(timestamp with time zone) FROM PUBLIC;
