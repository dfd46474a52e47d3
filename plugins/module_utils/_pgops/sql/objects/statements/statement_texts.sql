-- object: function pgops.statement_texts(bigint[], integer)
-- requires: statements_extension, cut_text
CREATE OR REPLACE FUNCTION pgops.statement_texts(p_queryids bigint[], p_bytes integer)
RETURNS jsonb
LANGUAGE plpgsql
SECURITY INVOKER
SET search_path = pg_catalog, pg_temp
SET work_mem = '32MB'
AS $$
-- The texts of some statements as pg_stat_statements has them, not redacted, cut after p_bytes, and the bytes of all
-- that it has: {"bytes": 12345, "texts": {"QUERYID": "SELECT ..."}}. The server reads its file of all texts for it, and
-- makes rows of all of them, in a temporary file if they are more than work_mem: no condition spares it that. So only
-- ask for texts that are not known yet, and seldom if they are many.
DECLARE
    place text;
    shown jsonb;
BEGIN
    SELECT e.schema_name INTO place FROM pgops.statements_extension() AS e;
    IF NOT FOUND THEN
        RETURN '{"bytes": 0, "texts": {}}';
    END IF;
    EXECUTE format(
        'SELECT jsonb_build_object('
        '    ''bytes'', coalesce(sum(octet_length(s.query)), 0),'
        '    ''texts'', coalesce(jsonb_object_agg(s.queryid, pgops.cut_text(s.query, $2))'
        '        FILTER (WHERE s.queryid = ANY ($1) AND s.query IS NOT NULL), ''{}''))'
        'FROM %I.pg_stat_statements(true) AS s',
        place
    ) INTO shown USING p_queryids, p_bytes;
    RETURN shown;
END
$$;

REVOKE ALL ON FUNCTION pgops.statement_texts(bigint[], integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.statement_texts(bigint[], integer) TO pgops;
