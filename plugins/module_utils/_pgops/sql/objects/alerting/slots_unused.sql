-- object: function pgops.slots_unused(timestamp with time zone)
-- requires: samples_between
CREATE OR REPLACE FUNCTION pgops.slots_unused(p_at timestamptz)
RETURNS TABLE (node_id integer, labels jsonb, derived double precision)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- 1 for a replication slot that nobody uses, else 0. On a standby only of those that somebody has used within a day:
-- what is kept there for a failover (synchronized slots, Patroni's) is unused by intent.
    SELECT v.node_id, v.labels, (array_agg(1 - v.sample ORDER BY v.collected_at DESC))[1]
    FROM pgops.samples_between('{slot_active}', p_at - interval '1 day', p_at) AS v
    INNER JOIN pgops.node AS n ON n.node_id = v.node_id
    GROUP BY v.node_id, v.labels, n.is_primary
    HAVING max(v.collected_at) > p_at - interval '150 seconds' AND (n.is_primary OR max(v.sample) = 1);
$$;

REVOKE ALL ON FUNCTION pgops.slots_unused(timestamp with time zone) FROM PUBLIC;
