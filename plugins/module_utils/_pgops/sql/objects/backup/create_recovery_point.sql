-- object: function pgops.create_recovery_point(text, text)
-- requires: check_backup_request, server_generation
CREATE OR REPLACE FUNCTION pgops.create_recovery_point(p_recovery_name text, p_description text DEFAULT NULL)
RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Writes a restore point of this name into the WAL, and returns its recovery_id. The job `catalogue` completes the row
-- in recovery_points once the WAL is archived. The point stays in the WAL if the transaction is rolled back.
DECLARE
    point pg_lsn;
    point_timeline bigint;
    point_id uuid;
BEGIN
    PERFORM pgops.check_backup_request();
    IF coalesce(p_recovery_name, '') = '' OR octet_length(p_recovery_name) > 63 OR p_recovery_name ~ '[[:cntrl:]]' THEN
        RAISE EXCEPTION '% cannot be the name of a recovery point', coalesce(quote_literal(p_recovery_name), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use 1 to 63 bytes without control characters.';
    END IF;
    IF octet_length(p_description) > 4000 THEN
        RAISE EXCEPTION 'the description is longer than 4000 bytes' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF EXISTS (SELECT FROM pgops.recovery_point AS r WHERE r.recovery_name = p_recovery_name) THEN
        RAISE WARNING 'there is a recovery point % already', quote_literal(p_recovery_name)
            USING HINT = 'A recovery to this name stops at the first one after its backup. Use the LSN for another.';
    END IF;
    point := pg_create_restore_point(p_recovery_name);
    point_timeline := ('x' || substr(pg_walfile_name(point), 1, 8))::bit(32)::bigint;
    INSERT INTO pgops.recovery_point (
        recovery_name, description, generation, timeline, target_lsn, target_time, base_backup_id, created_by
    )
    SELECT
        p_recovery_name, p_description, pgops.server_generation(), point_timeline, point, clock_timestamp(),
        (
            SELECT b.backup_id FROM pgops.backup AS b
            WHERE b.generation = pgops.server_generation() AND b.status = 'completed' AND b.damage IS NULL
                AND b.timeline <= point_timeline AND b.stop_lsn <= point
            ORDER BY b.timeline DESC, b.stop_lsn DESC
            LIMIT 1
        ),
        session_user
    RETURNING recovery_id INTO point_id;
    -- The points themselves stay in the WAL.
    DELETE FROM pgops.recovery_point AS r
    WHERE r.recovery_id IN (
        SELECT o.recovery_id FROM pgops.recovery_point AS o ORDER BY o.created_at DESC, o.recovery_id OFFSET 1000
    );
    RETURN point_id;
END
$$;

REVOKE ALL ON FUNCTION pgops.create_recovery_point(text, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.create_recovery_point(text, text) TO pgops_operator;
