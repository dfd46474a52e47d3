-- object: function pgops.collect_database_metrics()
-- requires: define_shape, store_round, primary_node_id, server_epoch
CREATE OR REPLACE FUNCTION pgops.collect_database_metrics()
RETURNS integer
LANGUAGE plpgsql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- Runs the instance's collectors and those of this database, as the caller; returns how many samples it stored.
DECLARE
    collector record;
    series jsonb;
    sampled double precision[];
    shape_fingerprint bytea;
    stored integer := 0;
    this_node_id integer := pgops.primary_node_id();
BEGIN
    FOR collector IN SELECT c.collector, c.metrics FROM pgops.installed_collectors AS c ORDER BY 1 LOOP
        EXECUTE format(
            $collect$
            SELECT
                jsonb_agg(v.labels || jsonb_build_object('metric', v.metric) ORDER BY v.metric, v.labels),
                array_agg(v.metric_value ORDER BY v.metric, v.labels)
            FROM (
                SELECT
                    m.metric,
                    (r.item ->> m.metric)::double precision AS metric_value,
                    pgops.labels_of(r.item - $1) AS labels
                FROM pgops.%I() AS r (item)
                CROSS JOIN unnest($1) AS m (metric)
                WHERE r.item ->> m.metric IS NOT NULL
            ) AS v
            $collect$, 'collector_' || collector.collector
        ) INTO series, sampled USING collector.metrics;
        CONTINUE WHEN series IS NULL;
        shape_fingerprint := sha256(convert_to(series::text, 'UTF8'));
        IF NOT pgops.store_round(
            this_node_id, shape_fingerprint, pgops.server_epoch(), clock_timestamp(), sampled
        ) THEN
            PERFORM pgops.define_shape(this_node_id, shape_fingerprint, '[]', series);
            PERFORM pgops.store_round(
                this_node_id, shape_fingerprint, pgops.server_epoch(), clock_timestamp(), sampled
            );
        END IF;
        stored := stored + cardinality(sampled);
    END LOOP;
    RETURN stored;
END
$$;

REVOKE ALL ON FUNCTION pgops.collect_database_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.collect_database_metrics() TO pgops;
