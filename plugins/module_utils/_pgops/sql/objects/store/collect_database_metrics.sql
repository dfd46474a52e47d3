-- object: function pgops.collect_database_metrics()
-- requires: store_fitted, primary_node_id, server_epoch, labels_of, metrics
CREATE OR REPLACE FUNCTION pgops.collect_database_metrics()
RETURNS integer
LANGUAGE plpgsql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
SET lock_timeout = '100ms'
AS $$
-- Runs the instance's collectors and those of this database, as the caller; returns how many samples it stored. One
-- that fails loses only its own samples, and is counted in collector_errors; so are rows that nothing tells apart, which
-- are left out (rounds.py does the same). The caller may set a statement_timeout:
-- it counts from the start of the calling statement, and undoes all of it.
DECLARE
    collector record;
    part record;
    stored integer := 0;
    of_this_one integer;
    left_out integer;
    this_node_id integer := pgops.primary_node_id();
    this_database oid := (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database());
    epoch text := pgops.server_epoch();
    ran jsonb := '[]';
    errors double precision[] := '{}';
BEGIN
    FOR collector IN
        SELECT c.collector, c.metrics, CASE c.scope WHEN 'database' THEN this_database END AS inside
        FROM pgops.installed_collectors AS c
        WHERE c.called
        ORDER BY 1
    LOOP
        of_this_one := 0;
        left_out := 0;
        ran := ran || jsonb_build_object(
            'metric', 'collector_errors', 'other', jsonb_build_object('collector', collector.collector)
        );
        BEGIN
            FOR part IN EXECUTE format(
                $collect$
                WITH returned AS MATERIALIZED (
                    SELECT
                        f.item,
                        pgops.labels_of(f.item - ARRAY['counted_since', 'identity'] - $1) AS labels,
                        concat_ws('/', $2, pgops.readable(f.item ->> 'identity')) AS identity
                    FROM pgops.%I() AS f (item)
                ),

                measured AS (
                    SELECT
                        m.metric_name,
                        (r.item ->> m.metric_name)::double precision AS metric_value,
                        r.labels,
                        coalesce(r.item ->> 'counted_since', '-') AS counted_since,
                        CASE m.kind WHEN 'counter' THEN r.identity ELSE '' END AS identity
                    FROM returned AS r
                    CROSS JOIN pgops.metrics AS m
                    WHERE m.metric_name = ANY ($1) AND r.item ->> m.metric_name IS NOT NULL
                ),

                told_apart AS (
                    SELECT
                        d.*,
                        d.labels || jsonb_build_object('metric', d.metric_name)
                        || CASE d.identity WHEN '' THEN '{}' ELSE jsonb_build_object('identity', d.identity) END
                            AS series,
                        count(*) OVER (
                            PARTITION BY
                                d.metric_name,
                                d.identity,
                                d.labels -> 'other',
                                CASE d.identity WHEN '' THEN d.labels -> 'database' END,
                                CASE WHEN d.identity !~ '/' THEN d.labels - ARRAY['database', 'other'] END
                        ) = 1 AS is_single
                    FROM measured AS d
                )

                SELECT
                    t.counted_since,
                    jsonb_agg(t.series ORDER BY t.metric_name, t.series) FILTER (WHERE t.is_single) AS series,
                    array_agg(t.metric_value ORDER BY t.metric_name, t.series) FILTER (WHERE t.is_single) AS sampled,
                    count(*) FILTER (WHERE NOT t.is_single) AS repeated
                FROM told_apart AS t
                GROUP BY t.counted_since
                $collect$, 'collector_' || collector.collector
            ) USING collector.metrics, collector.inside LOOP
                left_out := left_out + part.repeated;
                CONTINUE WHEN part.sampled IS NULL;
                PERFORM pgops.store_fitted(
                    this_node_id, collector.metrics, concat_ws(' ', epoch, part.counted_since), clock_timestamp(),
                    part.series, part.sampled
                );
                of_this_one := of_this_one + cardinality(part.sampled);
            END LOOP;
            stored := stored + of_this_one;
            errors := errors || (left_out > 0)::integer::double precision;
            IF left_out > 0 THEN
                RAISE WARNING 'collector %: % samples were left out, as several rows have the same labels',
                    collector.collector, left_out;
            END IF;
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
