-- object: function pgops.check_backup_request()
CREATE OR REPLACE FUNCTION pgops.check_backup_request()
RETURNS void
LANGUAGE plpgsql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Refuses what nobody would carry out.
BEGIN
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'this server is a standby and cannot take requests'
            USING ERRCODE = 'read_only_sql_transaction', HINT = 'Ask the primary.';
    END IF;
    IF NOT EXISTS (SELECT FROM pgops.setting AS s WHERE s.name = 'backup' AND s.value = 'true') THEN
        RAISE EXCEPTION 'this cluster is not backed up by pgops.fleet'
            USING ERRCODE = 'object_not_in_prerequisite_state',
            HINT = 'Set pgops_backup to true in the inventory and run site.yml.';
    END IF;
END
$$;

REVOKE ALL ON FUNCTION pgops.check_backup_request() FROM PUBLIC;
