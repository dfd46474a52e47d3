-- object: function pgops.collect_database_metrics()
-- requires: store_fitted, primary_node_id, server_epoch, labels_of
CREATE OR REPLACE FUNCTION pgops.collect_database_metrics()
RETURNS integer
LANGUAGE plpgsql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '100ms'
AS $$
-- Runs the instance's collectors and those of this database, as the caller; returns how many samples it stored. One
-- that fails loses only its own samples, and is counted in collector_errors. The caller may set a statement_timeout:
-- it counts from the start of the calling statement, and undoes all of it.
DECLARE
    collector record;
    part record;
    stored integer := 0;
    of_this_one integer;
    this_node_id integer := pgops.primary_node_id();
    epoch text := pgops.server_epoch();
    ran jsonb := '[]';
    errors double precision[] := '{}';
BEGIN
    FOR collector IN
        SELECT c.collector, c.metrics FROM pgops.installed_collectors AS c
        WHERE c.called
        ORDER BY 1
    LOOP
        of_this_one := 0;
        ran := ran || jsonb_build_object(
            'metric', 'collector_errors', 'other', jsonb_build_object('collector', collector.collector)
        );
        BEGIN
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
                PERFORM pgops.store_fitted(
                    this_node_id, collector.metrics, concat_ws(' ', epoch, part.counted_since), clock_timestamp(),
                    part.series, part.sampled
                );
                of_this_one := of_this_one + cardinality(part.sampled);
            END LOOP;
            stored := stored + of_this_one;
            errors := errors || 0.0::double precision;
        EXCEPTION WHEN OTHERS THEN
            errors := errors || 1.0::double precision;
            RAISE WARNING 'collector %: % [SQLSTATE %]', collector.collector, sqlerrm, sqlstate;
        END;
    END LOOP;
    IF errors <> '{}' THEN
        PERFORM pgops.store_fitted(
            this_node_id, '{collector_errors}', concat_ws(' ', epoch, '-'), clock_timestamp(), ran, errors
        );
    END IF;
    RETURN stored + cardinality(errors);
END
$$;

REVOKE ALL ON FUNCTION pgops.collect_database_metrics() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.collect_database_metrics() TO pgops;
