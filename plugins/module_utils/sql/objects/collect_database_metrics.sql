-- object: function pgops.collect_database_metrics()
-- requires: define_shape, store_round, primary_node_id, server_epoch, labels_of
CREATE OR REPLACE FUNCTION pgops.collect_database_metrics()
RETURNS integer
LANGUAGE plpgsql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Runs the instance's collectors and those of this database, as the caller; returns how many samples it stored.
DECLARE
    collector record;
    part record;
    shape_fingerprint bytea;
    origin text;
    stored integer := 0;
    this_node_id integer := pgops.primary_node_id();
BEGIN
    FOR collector IN SELECT c.collector, c.metrics FROM pgops.installed_collectors AS c ORDER BY 1 LOOP
        FOR part IN EXECUTE format(
            $collect$
            SELECT
                v.counted_since,
                jsonb_agg(v.labels || jsonb_build_object('metric', v.metric) ORDER BY v.metric, v.labels) AS series,
                array_agg(v.metric_value ORDER BY v.metric, v.labels) AS sampled
            FROM (
                SELECT
                    m.metric,
                    (r.item ->> m.metric)::double precision AS metric_value,
                    pgops.labels_of(r.item - 'counted_since' - $1) AS labels,
                    coalesce(r.item ->> 'counted_since', '-') AS counted_since
                FROM pgops.%I() AS r (item)
                CROSS JOIN unnest($1) AS m (metric)
                WHERE r.item ->> m.metric IS NOT NULL
            ) AS v
            GROUP BY v.counted_since
            $collect$, 'collector_' || collector.collector
        ) USING collector.metrics LOOP
            shape_fingerprint := sha256(convert_to(part.series::text, 'UTF8'));
            origin := concat_ws(' ', pgops.server_epoch(), part.counted_since);
            IF NOT pgops.store_round(
                this_node_id, shape_fingerprint, origin, clock_timestamp(), part.sampled
            ) THEN
                PERFORM pgops.define_shape(this_node_id, shape_fingerprint, '[]', part.series);
                PERFORM pgops.store_round(
                    this_node_id, shape_fingerprint, origin, clock_timestamp(), part.sampled
                );
            END IF;
            stored := stored + cardinality(part.sampled);
        END LOOP;
    END LOOP;
    RETURN stored;
END
$$;

REVOKE ALL ON FUNCTION pgops.collect_database_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.collect_database_metrics() TO pgops;
