-- object: function pgops.create_database_backup(text, boolean, text)
-- requires: check_backup_request, server_generation
CREATE OR REPLACE FUNCTION pgops.create_database_backup(
    p_backup_type text DEFAULT 'full', p_compression boolean DEFAULT TRUE, p_backup_path text DEFAULT NULL
)
RETURNS uuid
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Asks the agent for a backup of the whole instance, and returns its backup_id, under which backup_history tells what
-- became of it. A request of the same type that is not done yet is returned again. p_compression: false for none, true
-- for what is configured. Where backups go is configured: p_backup_path may only name that.
DECLARE
    asked_for uuid;
    known text;
BEGIN
    PERFORM pgops.check_backup_request();
    IF p_backup_type IS NULL OR p_backup_type NOT IN ('full', 'incremental', 'differential') THEN
        RAISE EXCEPTION '% is not a type of backups', coalesce(quote_literal(p_backup_type), 'NULL')
            USING ERRCODE = 'invalid_parameter_value', HINT = 'Use full, incremental or differential.';
    END IF;
    IF p_compression IS NULL THEN
        RAISE EXCEPTION 'p_compression must be true or false' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF p_backup_path IS NOT NULL THEN
        SELECT g.repository INTO known
        FROM pgops.generation AS g
        WHERE g.name = pgops.server_generation();
        IF known IS DISTINCT FROM p_backup_path THEN
            RAISE EXCEPTION 'backups cannot be written to %', quote_literal(p_backup_path)
                USING ERRCODE = 'invalid_parameter_value',
                HINT = coalesce('They go to ' || known || '. ', '') || 'Omit p_backup_path.';
        END IF;
    END IF;
    SELECT b.backup_id INTO asked_for
    FROM pgops.backup AS b
    WHERE b.backup_type = p_backup_type AND b.requested_at IS NOT NULL AND b.status IN ('requested', 'running')
    LIMIT 1;
    IF FOUND THEN
        RETURN asked_for;
    END IF;
    IF (SELECT count(*) >= 10 FROM pgops.backup AS b WHERE b.requested_at > now() - interval '1 hour') THEN
        RAISE EXCEPTION 'ten backups were requested within an hour'
            USING ERRCODE = 'program_limit_exceeded', HINT = 'Ask again later.';
    END IF;
    INSERT INTO pgops.backup (status, backup_type, compressed, requested_at, requested_by)
    VALUES ('requested', p_backup_type, p_compression, clock_timestamp(), session_user)
    ON CONFLICT (backup_type) WHERE status = 'requested' DO NOTHING
    RETURNING backup_id INTO asked_for;
    IF asked_for IS NULL THEN
        SELECT b.backup_id INTO asked_for
        FROM pgops.backup AS b
        WHERE b.backup_type = p_backup_type AND b.status = 'requested';
    END IF;
    RETURN asked_for;
END
$$;

REVOKE ALL ON FUNCTION pgops.create_database_backup(text, boolean, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.create_database_backup(text, boolean, text) TO pgops_operator;
