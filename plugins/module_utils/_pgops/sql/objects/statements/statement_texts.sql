-- object: function pgops.statement_texts(bigint[])
-- requires: statements_extension
CREATE OR REPLACE FUNCTION pgops.statement_texts(p_queryids bigint[])
RETURNS TABLE (queryid bigint, query text)
LANGUAGE plpgsql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
AS $$
-- The texts of some statements as pg_stat_statements has them, not redacted, cut after 10 kB. The server reads its
-- file of all texts for it: only ask for texts that are not known yet.
DECLARE
    place text;
BEGIN
    SELECT e.schema_name INTO place FROM pgops.statements_extension() AS e;
    IF FOUND THEN
        RETURN QUERY EXECUTE format(
            'SELECT DISTINCT ON (s.queryid) s.queryid, left(s.query, 10240) FROM %I.pg_stat_statements(true) AS s '
            'WHERE s.queryid = ANY ($1) AND s.query IS NOT NULL ORDER BY s.queryid',
            place
        ) USING p_queryids;
    END IF;
END
$$;

REVOKE ALL ON FUNCTION pgops.statement_texts(bigint[]) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.statement_texts(bigint[]) TO pgops;
