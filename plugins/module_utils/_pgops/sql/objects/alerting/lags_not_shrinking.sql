-- object: function pgops.lags_not_shrinking(timestamp with time zone)
-- requires: samples_between
CREATE OR REPLACE FUNCTION pgops.lags_not_shrinking(p_at timestamptz)
RETURNS TABLE (node_id integer, labels jsonb, derived double precision)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- The lag of each standby in bytes where it is not less than some minutes ago, else 0: who catches up needs no help. No
-- value before it has been measured for four minutes.
    SELECT
        v.node_id, v.labels,
        CASE
            WHEN (array_agg(v.sample ORDER BY v.collected_at DESC))[1] >= (array_agg(v.sample ORDER BY v.collected_at))[1]
                THEN (array_agg(v.sample ORDER BY v.collected_at DESC))[1]
            ELSE 0
        END
    FROM pgops.samples_between('{replication_lag_bytes}', p_at - interval '6 minutes', p_at) AS v
    GROUP BY v.node_id, v.labels
    HAVING
        max(v.collected_at) - min(v.collected_at) >= interval '4 minutes'
        AND max(v.collected_at) > p_at - interval '150 seconds';
$$;

REVOKE ALL ON FUNCTION pgops.lags_not_shrinking(timestamp with time zone) FROM PUBLIC;
