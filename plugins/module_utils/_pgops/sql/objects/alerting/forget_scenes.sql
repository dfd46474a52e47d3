-- object: function pgops.forget_scenes()
CREATE OR REPLACE FUNCTION pgops.forget_scenes()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Deletes the scenes whose alerts are all gone, and the oldest ones if all of them take more than a 32nd of
-- max_size_mb: anybody can cause an alert each minute. Returns how many.
DECLARE
    forgotten integer;
    room constant bigint := coalesce(
        (SELECT s.value::bigint FROM pgops.setting AS s WHERE s.name = 'max_size_mb'), 10240
    ) * 1048576 / 32;
BEGIN
    WITH sized AS MATERIALIZED (
        SELECT
            c.scene_id,
            -- As they are stored, with the rest of the row, indexes and the alerts that have it.
            sum(pg_column_size(c.parts) + 300 + 120 * u.alerts) OVER (ORDER BY c.taken_at DESC, c.scene_id DESC) AS bytes,
            u.alerts
        FROM pgops.scene AS c
        CROSS JOIN LATERAL (
            SELECT count(*) AS alerts FROM pgops.alert_scene AS s WHERE s.scene_id = c.scene_id
        ) AS u
    )

    DELETE FROM pgops.scene AS c
    USING sized AS z
    WHERE c.scene_id = z.scene_id AND (z.alerts = 0 OR z.bytes > room);
    GET DIAGNOSTICS forgotten = ROW_COUNT;
    RETURN forgotten;
END
$$;

REVOKE ALL ON FUNCTION pgops.forget_scenes() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.forget_scenes() TO pgops;
