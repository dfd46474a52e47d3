-- object: function pgops.readable(text)
CREATE OR REPLACE FUNCTION pgops.readable(p_name text)
RETURNS text
LANGUAGE sql
IMMUTABLE
STRICT
SET search_path = pg_catalog, pg_temp
AS $$
-- A name that the server shows as it is stored here: names of databases and roles are shown in the encoding in which
-- they were written, which may not be this database's. A byte that is not UTF-8 becomes \xe4, and in a name that has
-- one, or looks as if it had, each backslash becomes two, so that no two names become the same (encoding.py does the
-- same).
    WITH given AS (
        SELECT encode(replace(p_name, '\', '\\')::bytea, 'hex') AS digits
    ),

    -- Runs of ASCII, characters of several bytes, and single bytes that are neither.
    part AS (
        SELECT m.digits[1] AS digits, m.place, m.digits[1] ~ '^[89a-f].$' AS is_byte
        FROM given AS g
        CROSS JOIN regexp_matches(
            g.digits,
            '(?:[0-7].)+|c[2-9a-f][89ab].|d.[89ab].|e0[ab].[89ab].|e[1-9a-cef](?:[89ab].){2}|ed[89].[89ab].'
            '|f0[9ab].(?:[89ab].){2}|f[1-3](?:[89ab].){3}|f48.(?:[89ab].){2}|..',
            'g'
        ) WITH ORDINALITY AS m (digits, place)
    )

    SELECT
        CASE
            WHEN
                g.digits ~ '^(?:..)*5c78(?:3[89]|6[1-6])(?:3[0-9]|6[1-6])'
                OR EXISTS (SELECT FROM part AS p WHERE p.is_byte)
                THEN (
                    SELECT string_agg(
                        CASE
                            WHEN p.is_byte THEN '\x' || p.digits
                            ELSE replace(convert_from(decode(p.digits, 'hex'), 'UTF8'), '\', '\\')
                        END, '' ORDER BY p.place
                    )
                    FROM part AS p
                )
            ELSE p_name
        END
    FROM given AS g;
$$;

REVOKE ALL ON FUNCTION pgops.readable(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.readable(text) TO pgops, pgops_reader;
