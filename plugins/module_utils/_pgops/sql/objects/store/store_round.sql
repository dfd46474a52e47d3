-- object: function pgops.store_round(integer, bytea, text, timestamp with time zone, double precision[])
-- requires: create_partition, create_round_class
CREATE OR REPLACE FUNCTION pgops.store_round(
    p_node_id integer, p_fingerprint bytea, p_origin text, p_collected_at timestamptz,
    p_values double precision[]
)
RETURNS boolean
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Stores one round. false: the shape is not known yet; define it, then retry. A round that exists already (delivered
-- twice) is left as it is.
DECLARE
    known pgops.shape;
    epoch pgops.epoch;
    hour constant timestamptz := date_trunc('hour', p_collected_at);
BEGIN
    SELECT s.* INTO known FROM pgops.shape AS s
    WHERE s.node_id = p_node_id AND s.fingerprint = p_fingerprint;
    IF NOT FOUND THEN
        RETURN false;
    END IF;
    IF cardinality(p_values) <> known.size THEN
        RAISE EXCEPTION 'a round of % values does not fit a shape of %', cardinality(p_values), known.size
            USING ERRCODE = 'data_exception';
    END IF;
    -- A clock far ahead would create partitions that no retention ever reaches.
    IF p_collected_at > now() + interval '1 day' THEN
        RAISE EXCEPTION 'a round of % is in the future', p_collected_at
            USING ERRCODE = 'datetime_field_overflow', HINT = 'Correct the clock of the host that sent it.';
    END IF;
    -- A round older than its retention would be dropped by the next run, and spoil the rollups of its hour.
    IF p_collected_at < (SELECT c.gone_before FROM pgops.round_class AS c WHERE c.keep_days = known.keep_days) THEN
        RAISE EXCEPTION 'a round of % is older than the retention of its samples', p_collected_at
            USING ERRCODE = 'datetime_field_overflow';
    END IF;
    IF known.last_used_on < current_date THEN
        UPDATE pgops.shape AS s SET last_used_on = current_date WHERE s.shape_id = known.shape_id;
    END IF;
    SELECT e.* INTO epoch FROM pgops.epoch AS e
    WHERE e.node_id = p_node_id AND e.origin = p_origin AND e.last_used_on >= current_date;
    IF NOT FOUND THEN
        INSERT INTO pgops.epoch AS e (node_id, origin, last_used_on) VALUES (p_node_id, p_origin, current_date)
        ON CONFLICT (node_id, origin) DO UPDATE SET last_used_on = greatest(e.last_used_on, excluded.last_used_on)
        RETURNING e.* INTO epoch;
    END IF;
    -- After a late round the next hour is rolled up anew as well: its first increase started before it.
    INSERT INTO pgops.rollup_due (node_id, started_at)
    SELECT p_node_id, hour
    UNION ALL
    SELECT p_node_id, hour + interval '1 hour' WHERE hour + interval '1 hour' < date_trunc('hour', now())
    ON CONFLICT DO NOTHING;
    PERFORM pgops.create_round_class(known.keep_days);
    PERFORM pgops.create_partition('round_' || known.keep_days, p_collected_at::date);
    INSERT INTO pgops.round (shape_id, epoch_id, collected_at, keep_days, sample_values)
    VALUES (known.shape_id, epoch.epoch_id, p_collected_at, known.keep_days, p_values)
    ON CONFLICT (shape_id, collected_at, keep_days) DO NOTHING;
    RETURN true;
END
$$;

REVOKE ALL ON FUNCTION pgops.store_round(
    integer, bytea, text, timestamp with time zone, double precision[]
) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.store_round(
    integer, bytea, text, timestamp with time zone, double precision[]
) TO pgops;
