-- object: function pgops.record_sample()
-- requires: define_shape, store_round, primary_node_id
CREATE OR REPLACE FUNCTION pgops.record_sample()
RETURNS trigger
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Carries out an INSERT into system_metrics: one sample, as a round of one value.
DECLARE
    target_node_id integer := coalesce(
        (SELECT n.node_id FROM pgops.node AS n WHERE n.node = new.node), pgops.primary_node_id()
    );
    series jsonb := jsonb_build_array(jsonb_strip_nulls(jsonb_build_object(
        'metric', new.metric_name, 'database', new.database_name, 'schema', new.schema_name,
        'table', new.table_name, 'index', new.index_name, 'other', new.additional_info
    )));
    shape_fingerprint bytea := sha256(convert_to(series::text, 'UTF8'));
    used_shape_id integer;
    taken_at timestamptz := coalesce(new.collected_at, clock_timestamp());
BEGIN
    IF new.metric_name IS NULL OR new.metric_value IS NULL THEN
        RAISE EXCEPTION 'a sample needs metric_name and metric_value'
            USING ERRCODE = 'not_null_violation';
    END IF;
    used_shape_id := pgops.define_shape(
        target_node_id,
        shape_fingerprint,
        jsonb_build_array(jsonb_build_object(
            'metric_name', new.metric_name,
            'category', coalesce(new.metric_category, 'performance'),
            'unit', coalesce(new.metric_unit, 'count'),
            'kind', coalesce(new.metric_kind, 'gauge'),
            'direction', new.threshold_direction,
            'warning', new.warning_threshold,
            'critical', new.critical_threshold
        )),
        series
    );
    -- A series has one value at a time; a second one of the same instant is stored a microsecond later, even if
    -- it comes from another session whose transaction is still open. Not an advisory lock, which anybody who may
    -- connect could take.
    PERFORM FROM pgops.shape AS s WHERE s.shape_id = used_shape_id FOR NO KEY UPDATE;
    WHILE EXISTS (
        SELECT FROM pgops.round AS r WHERE r.shape_id = used_shape_id AND r.collected_at = taken_at
    ) LOOP
        taken_at := taken_at + interval '1 microsecond';
    END LOOP;
    PERFORM pgops.store_round(
        target_node_id, shape_fingerprint, 'inserted', taken_at, ARRAY[new.metric_value]
    );
    new.collected_at := taken_at;
    RETURN new;
END
$$;

REVOKE ALL ON FUNCTION pgops.record_sample() FROM PUBLIC;
