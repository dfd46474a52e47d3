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
    -- Measured: a place with its two indexes and its share of a series.
    place_bytes constant integer := 200;
    room constant bigint := (
        SELECT s.value::bigint * 1048576 / 4 / place_bytes FROM pgops.setting AS s WHERE s.name = 'max_size_mb'
    );
    forgotten integer;
BEGIN
    IF (SELECT sum(h.size) FROM pgops.shape AS h) <= room THEN
        RETURN 0;
    END IF;
    WITH owned AS MATERIALIZED (
        SELECT
            h.shape_id,
            h.node_id,
            h.size,
            h.last_used_on,
            -- Of shapes of the whole instance, no database has more than others.
            CASE WHEN min(s.database_name) = max(s.database_name) THEN min(s.database_name) ELSE '' END AS database_name
        FROM pgops.shape AS h
        INNER JOIN pgops.shape_series AS p ON p.shape_id = h.shape_id
        INNER JOIN pgops.series AS s ON s.series_id = p.series_id
        GROUP BY h.shape_id
    ),

    ranked AS (
        SELECT
            o.shape_id,
            sum(o.size) OVER (
                PARTITION BY o.node_id, o.database_name
                ORDER BY
                    o.last_used_on DESC,
                    -- The newest partition alone has such rounds.
                    EXISTS (
                        SELECT FROM pgops.round AS r
                        WHERE r.shape_id = o.shape_id AND r.collected_at > now() - interval '2 hours'
                    ) DESC,
                    o.shape_id DESC
            ) AS places
        FROM owned AS o
    )

    DELETE FROM pgops.shape AS h
    USING
        ranked AS k,
        (
            SELECT pgops.fair_level(array_agg(t.places), room) AS most
            FROM (
                SELECT sum(o.size)::bigint AS places FROM owned AS o
                GROUP BY o.node_id, o.database_name
            ) AS t
        ) AS f
    WHERE h.shape_id = k.shape_id AND k.places > f.most;
    DELETE FROM pgops.series AS s
    WHERE NOT EXISTS (SELECT FROM pgops.shape_series AS p WHERE p.series_id = s.series_id);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END
$$;

REVOKE ALL ON FUNCTION pgops.forget_excess_shapes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.forget_excess_shapes() TO pgops;
