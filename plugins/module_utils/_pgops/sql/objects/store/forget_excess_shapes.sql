-- object: function pgops.forget_excess_shapes()
-- requires: fair_level
CREATE OR REPLACE FUNCTION pgops.forget_excess_shapes()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Deletes shapes, and series that are in no other, if they take more than a quarter of max_size_mb; returns how many
-- series. What of a database was used least recently goes first, and of those databases only that have more than their
-- share: tables that come and go make new shapes without end, and should not cost another database its history.
DECLARE
    -- Measured, with their indexes: 93 and 225, and more for long names.
    place_bytes constant bigint := 100;
    series_bytes constant bigint := 300;
    room constant bigint := (
        SELECT s.value::bigint * 1048576 / 4 FROM pgops.setting AS s WHERE s.name = 'max_size_mb'
    );
    forgotten integer;
BEGIN
    IF place_bytes * coalesce((SELECT sum(h.size) FROM pgops.shape AS h), 0)
        + series_bytes * (SELECT count(*) FROM pgops.series) <= room
    THEN
        RETURN 0;
    END IF;
    WITH owned AS MATERIALIZED (
        SELECT
            h.shape_id,
            h.node_id,
            h.last_used_on,
            -- The newest of a series' shapes goes last, and the series with it.
            place_bytes * h.size + series_bytes * count(*) FILTER (WHERE n.shape_id = h.shape_id) AS bytes,
            -- Of shapes of the whole instance, no database has more than others.
            CASE WHEN min(s.database_name) = max(s.database_name) THEN min(s.database_name) ELSE '' END AS database_name
        FROM pgops.shape AS h
        INNER JOIN pgops.shape_series AS p ON p.shape_id = h.shape_id
        INNER JOIN pgops.series AS s ON s.series_id = p.series_id
        INNER JOIN (
            SELECT o.series_id, max(o.shape_id) AS shape_id FROM pgops.shape_series AS o
            GROUP BY o.series_id
        ) AS n ON n.series_id = p.series_id
        GROUP BY h.shape_id
    ),

    ranked AS (
        SELECT
            o.shape_id,
            sum(o.bytes) OVER (
                PARTITION BY o.node_id, o.database_name
                ORDER BY
                    o.last_used_on DESC,
                    -- The newest partition alone has such rounds.
                    EXISTS (
                        SELECT FROM pgops.round AS r
                        WHERE r.shape_id = o.shape_id AND r.collected_at > now() - interval '2 hours'
                    ) DESC,
                    o.shape_id DESC
            ) AS bytes
        FROM owned AS o
    )

    DELETE FROM pgops.shape AS h
    USING
        ranked AS k,
        (
            SELECT pgops.fair_level(array_agg(t.bytes), room) AS most
            FROM (
                SELECT sum(o.bytes)::bigint AS bytes FROM owned AS o
                GROUP BY o.node_id, o.database_name
            ) AS t
        ) AS f
    WHERE h.shape_id = k.shape_id AND k.bytes > f.most;
    DELETE FROM pgops.series AS s
    WHERE NOT EXISTS (SELECT FROM pgops.shape_series AS p WHERE p.series_id = s.series_id);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END
$$;

REVOKE ALL ON FUNCTION pgops.forget_excess_shapes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.forget_excess_shapes() TO pgops;
