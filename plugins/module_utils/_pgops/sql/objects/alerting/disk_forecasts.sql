-- object: function pgops.disk_forecasts(timestamp with time zone)
-- requires: samples_between
CREATE OR REPLACE FUNCTION pgops.disk_forecasts(p_at timestamptz)
RETURNS TABLE (node_id integer, labels jsonb, derived double precision)
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- In how many seconds each disk is full if it fills as it did in the last hour, by least squares; at most 30 days, which
-- also stand for one that does not fill. No value before there are ten samples over a quarter of an hour.
    SELECT
        f.node_id, f.labels,
        CASE WHEN f.slope < 0 THEN least(greatest(f.free_mb, 0) / -f.slope, 30 * 86400) ELSE 30 * 86400 END
    FROM (
        SELECT
            v.node_id, v.labels,
            regr_slope(v.sample, extract(EPOCH FROM v.collected_at - p_at)::float8) AS slope,
            (array_agg(v.sample ORDER BY v.collected_at DESC))[1] AS free_mb
        FROM pgops.samples_between('{disk_free_mb}', p_at - interval '1 hour', p_at) AS v
        GROUP BY v.node_id, v.labels
        HAVING
            count(*) >= 10
            AND max(v.collected_at) - min(v.collected_at) >= interval '15 minutes'
            AND max(v.collected_at) > p_at - interval '150 seconds'
    ) AS f;
$$;

REVOKE ALL ON FUNCTION pgops.disk_forecasts(timestamp with time zone) FROM PUBLIC;
