-- object: function pgops.statements_extension()
CREATE OR REPLACE FUNCTION pgops.statements_extension()
RETURNS TABLE (schema_name text, columns text[], has_info boolean)
LANGUAGE sql
STABLE
SET search_path = pg_catalog, pg_temp
AS $$
-- The schema of this database's extension pg_stat_statements, and the columns of its version; no row without it.
    SELECT
        n.nspname::text,
        p.proargnames,
        EXISTS (
            SELECT FROM pg_proc AS i
            WHERE i.pronamespace = n.oid AND i.proname = 'pg_stat_statements_info'
        )
    FROM pg_extension AS e
    INNER JOIN pg_depend AS d
        ON
            d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
            AND d.classid = 'pg_proc'::regclass AND d.deptype = 'e'
    INNER JOIN pg_proc AS p ON p.oid = d.objid
    INNER JOIN pg_namespace AS n ON n.oid = p.pronamespace
    WHERE e.extname = 'pg_stat_statements' AND p.proname = 'pg_stat_statements';
$$;

REVOKE ALL ON FUNCTION pgops.statements_extension() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.statements_extension() TO pgops;
