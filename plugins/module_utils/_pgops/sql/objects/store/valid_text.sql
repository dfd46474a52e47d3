-- object: function pgops.valid_text(text)
CREATE OR REPLACE FUNCTION pgops.valid_text(p_text text)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE
STRICT
SET search_path = pg_catalog, pg_temp
AS $$
-- A text that the server shows, NULL if its bytes are not valid in this database's encoding: names of databases and
-- roles, and the statements of sessions in other databases, are shown in the encoding in which they were written.
BEGIN
    PERFORM convert_to(p_text, getdatabaseencoding());
    RETURN p_text;
EXCEPTION WHEN character_not_in_repertoire OR untranslatable_character THEN
    RETURN NULL;
END
$$;

REVOKE ALL ON FUNCTION pgops.valid_text(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.valid_text(text) TO pgops;
