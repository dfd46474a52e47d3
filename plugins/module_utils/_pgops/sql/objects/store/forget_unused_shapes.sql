-- object: function pgops.forget_unused_shapes()
-- requires: partitions
CREATE OR REPLACE FUNCTION pgops.forget_unused_shapes()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Deletes shapes, series and epochs that no round and no rollup can refer to any more; returns how many shapes.
DECLARE
    forgotten integer;
    -- Shapes last used before the day of the oldest partition go.
    keep_from constant date := (
        SELECT min(p.first_day) - 1 FROM pgops.partitions AS p WHERE p.kind IN ('round', 'rollup')
    );
BEGIN
    DELETE FROM pgops.shape AS s WHERE s.last_used_on < keep_from;
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    IF forgotten > 0 THEN
        DELETE FROM pgops.series AS s
        WHERE NOT EXISTS (SELECT FROM pgops.shape_series AS p WHERE p.series_id = s.series_id);
    END IF;
    DELETE FROM pgops.epoch AS e WHERE e.last_used_on < keep_from;
    RETURN forgotten;
END
$$;

REVOKE ALL ON FUNCTION pgops.forget_unused_shapes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.forget_unused_shapes() TO pgops;
