-- object: function pgops.cut_text(text, integer)
CREATE OR REPLACE FUNCTION pgops.cut_text(p_text text, p_bytes integer)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE
STRICT
SET search_path = pg_catalog, pg_temp
AS $$
-- A text cut after p_bytes, or up to three bytes before, at the end of a character; a character takes up to four bytes.
DECLARE
    bytes bytea;
    kept integer := p_bytes;
BEGIN
    IF octet_length(p_text) <= p_bytes THEN
        RETURN p_text;
    END IF;
    bytes := convert_to(left(p_text, p_bytes + 1), 'UTF8');
    -- The first byte that is left out must begin a character.
    WHILE get_byte(bytes, kept) & 192 = 128 LOOP
        kept := kept - 1;
    END LOOP;
    RETURN convert_from(substring(bytes FROM 1 FOR kept), 'UTF8');
END
$$;

REVOKE ALL ON FUNCTION pgops.cut_text(text, integer) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.cut_text(text, integer) TO pgops;
