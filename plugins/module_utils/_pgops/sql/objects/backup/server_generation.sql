-- object: function pgops.server_generation()
CREATE OR REPLACE FUNCTION pgops.server_generation()
RETURNS text
LANGUAGE sql
STABLE
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- The generation of the repository that this server archives into.
SELECT s.system_identifier::text || '-' || current_setting('server_version_num')::integer / 10000
FROM pg_control_system() AS s
$$;

REVOKE ALL ON FUNCTION pgops.server_generation() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.server_generation() TO pgops, pgops_reader;
