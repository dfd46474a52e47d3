-- object: function pgops.derive_metrics(timestamp with time zone)
-- requires: collector_lateness, counter_shares, disk_forecasts, lags_not_shrinking, slots_unused, standby_surplus
CREATE OR REPLACE FUNCTION pgops.derive_metrics(p_at timestamptz)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- What rules need that no single look at a server can tell, made of the samples up to p_at and stored as samples of that
-- moment, for all nodes that were seen within a week; returns how many. Of each node also that it has been done, as of
-- a collector of the name "derived": so what is no longer found can be told from what is not known.
DECLARE
    part record;
    stored integer := 0;
    names constant text[] := (SELECT c.metrics FROM pgops.collector AS c WHERE c.collector = 'derived');
BEGIN
    FOR part IN
        WITH found (node_id, metric_name, labels, derived) AS MATERIALIZED (
            SELECT l.node_id, 'collector_late_ratio', l.labels, l.derived FROM pgops.collector_lateness(p_at) AS l
            UNION ALL
            SELECT s.node_id, s.metric_name, s.labels, s.derived FROM pgops.counter_shares(p_at) AS s
            UNION ALL
            SELECT f.node_id, 'disk_full_in_seconds', f.labels, f.derived FROM pgops.disk_forecasts(p_at) AS f
            UNION ALL
            SELECT g.node_id, 'replication_lag_not_shrinking_bytes', g.labels, g.derived
            FROM pgops.lags_not_shrinking(p_at) AS g
            UNION ALL
            SELECT u.node_id, 'slot_unused', u.labels, u.derived FROM pgops.slots_unused(p_at) AS u
            UNION ALL
            SELECT b.node_id, 'standby_surplus', b.labels, b.derived FROM pgops.standby_surplus(p_at) AS b
            UNION ALL
            SELECT n.node_id, 'collector_errors', '{"collector": "derived"}', 0
            FROM pgops.node AS n WHERE n.last_seen_at > p_at - interval '7 days'
        )

        SELECT
            d.node_id,
            jsonb_agg(pgops.labels_of(d.labels) || jsonb_build_object('metric', d.metric_name)
                ORDER BY d.metric_name, d.labels) AS series,
            array_agg(d.derived ORDER BY d.metric_name, d.labels) AS sampled
        FROM found AS d
        WHERE d.derived IS NOT NULL
        GROUP BY d.node_id
    LOOP
        PERFORM pgops.store_fitted(
            part.node_id, names || 'collector_errors'::text, 'derived', p_at, part.series, part.sampled
        );
        stored := stored + cardinality(part.sampled);
    END LOOP;
    RETURN stored;
END
$$;

REVOKE ALL ON FUNCTION pgops.derive_metrics(timestamp with time zone) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.derive_metrics(timestamp with time zone) TO pgops;
