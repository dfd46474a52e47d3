-- object: function pgops.redacted(text)
CREATE OR REPLACE FUNCTION pgops.redacted(p_query text)
RETURNS text
LANGUAGE plpgsql
IMMUTABLE
STRICT
SET search_path = pg_catalog, pg_temp
AS $$
-- A statement's text without the secrets that it may hold; one that mentions none stays as it is. These are the rules
-- of the agent's redaction.py, which says why they are so: change both.
DECLARE
    secretive CONSTANT text :=
    'passw|passphrase|pwd|secret|token|credential|private|bearer|authorization|api.?key|access.?key|auth.?key'
    '|crypt|pgp_|armor|hmac|digest|dblink|conninfo|subscription|user\s+mapping|\yserver\y|\yprogram\y|://\S*@'
    '|(?<![a-z])(pass|pw|pin)(?![a-z])|\y(md5|sha\d+)\s*\(|\yset_config\y'
    '|\yset\s+(session\s+|local\s+)?[\w"$]+\s*\.|\yalter\s+(system|database|role|user)\y'
    '|\y(role|user|group)\y[^;]*\yencrypted\y|u&["'']|\y(set|reset)\y[^;]*key';
    -- A word of each of them: what has none of these has none of those, and is not taken apart.
    suspicious CONSTANT text :=
    'pass|pwd|pw|pin|secret|token|credential|private|bearer|authorization|key|crypt|pgp_|armor|hmac|digest|md5|sha\d'
    '|dblink|conninfo|subscription|mapping|server|program|://|u&|set_config|alter|set.*\.';
    hidden CONSTANT text := '''***''';
    letters CONSTANT text := '_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ';
    digits CONSTANT text := '0123456789';
    size CONSTANT integer := length(p_query);
    -- A character each, so that looking at one does not count through all before it; two more stand for the end.
    chars text[];
    kinds text[] := '{}';
    pieces text[] := '{}';
    kept text[] := '{}';
    kind text;
    piece text;
    tag text;
    bare text;
    place integer := 1;
    behind integer;
    depth integer;
    opening integer;
    assigns boolean;
    setting boolean := false;
    of_role boolean := false;
    password boolean := false;
BEGIN
    IF p_query !~* suspicious COLLATE "C" THEN
        RETURN p_query;
    END IF;
    chars := string_to_array(p_query, NULL) || ARRAY['', ''];
    WHILE place <= size LOOP
        behind := place + 1;
        opening := CASE
            WHEN chars[place] IN ('''', '"') THEN place
            WHEN strpos('eEbBxXnN', chars[place]) > 0 AND chars[behind] = '''' THEN behind
            WHEN chars[place] IN ('u', 'U') AND chars[behind] = '&' AND chars[behind + 1] IN ('''', '"') THEN behind + 1
        END;
        IF opening IS NOT NULL THEN
            kind := CASE
                WHEN chars[opening] = '"' THEN 'name' WHEN chars[place] IN ('e', 'E') THEN 'literal' ELSE 'plain'
            END;
            behind := opening + 1;
            WHILE behind <= size LOOP
                IF kind = 'literal' AND chars[behind] = '\' THEN
                    behind := behind + 2;
                ELSIF chars[behind] <> chars[opening] THEN
                    behind := behind + 1;
                ELSIF chars[behind + 1] = chars[opening] THEN
                    behind := behind + 2;
                ELSE
                    behind := behind + 1;
                    EXIT;
                END IF;
            END LOOP;
        ELSIF strpos(E' \t\n\r\f\x0b', chars[place]) > 0 THEN
            kind := 'space';
        ELSIF chars[place] = '-' AND chars[behind] = '-' THEN
            kind := 'comment';
            WHILE behind <= size AND chars[behind] NOT IN (E'\r', E'\n') LOOP
                behind := behind + 1;
            END LOOP;
        ELSIF chars[place] = '/' AND chars[behind] = '*' THEN
            kind := 'comment';
            depth := 1;
            behind := place + 2;
            WHILE behind <= size AND depth > 0 LOOP
                IF chars[behind] = '/' AND chars[behind + 1] = '*' THEN
                    depth := depth + 1;
                    behind := behind + 2;
                ELSIF chars[behind] = '*' AND chars[behind + 1] = '/' THEN
                    depth := depth - 1;
                    behind := behind + 2;
                ELSE
                    behind := behind + 1;
                END IF;
            END LOOP;
        ELSIF strpos(letters, chars[place]) > 0 OR ascii(chars[place]) > 127 THEN
            kind := 'word';
            WHILE behind <= size
                AND (strpos(letters || digits || '$', chars[behind]) > 0 OR ascii(chars[behind]) > 127)
            LOOP
                behind := behind + 1;
            END LOOP;
        ELSIF strpos(digits, chars[place]) > 0
            OR (chars[place] = '.' AND behind <= size AND strpos(digits, chars[behind]) > 0)
        THEN
            kind := 'number';
            WHILE behind <= size
                AND (strpos(letters || digits || '.', chars[behind]) > 0 OR ascii(chars[behind]) > 127)
            LOOP
                behind := behind + 1;
            END LOOP;
        ELSIF chars[place] = '$' AND behind <= size AND strpos(digits, chars[behind]) > 0 THEN
            kind := 'parameter';
            WHILE behind <= size AND strpos(digits, chars[behind]) > 0 LOOP
                behind := behind + 1;
            END LOOP;
        ELSIF chars[place] = '$' THEN
            WHILE behind <= size
                AND (strpos(letters || digits, chars[behind]) > 0 OR ascii(chars[behind]) > 127)
            LOOP
                behind := behind + 1;
            END LOOP;
            IF chars[behind] = '$' THEN
                kind := 'dollar';
                behind := behind + 1;
                tag := substr(p_query, place, behind - place);
                opening := strpos(substr(p_query, behind), tag);
                behind := CASE WHEN opening = 0 THEN size + 1 ELSE behind + opening - 1 + length(tag) END;
            ELSE
                kind := 'other';
                behind := place + 1;
            END IF;
        ELSE
            kind := 'other';
        END IF;
        kinds := kinds || kind;
        pieces := pieces || array_to_string(chars[place:least(behind - 1, size)], '');
        place := behind;
    END LOOP;

    SELECT
        string_agg(t.piece, ' ' ORDER BY t.number) FILTER (WHERE t.kind NOT IN ('space', 'comment')),
        bool_or(t.kind = 'other' AND t.piece = ';') OR coalesce(
            NOT (array_agg(lower(t.piece) ORDER BY t.number) FILTER (WHERE t.kind = 'word'))[1]
            = ANY ('{select,insert,update,delete,merge,with,values,table}'), true
        )
    INTO bare, assigns
    FROM unnest(kinds, pieces) WITH ORDINALITY AS t (kind, piece, number);
    IF p_query !~* secretive COLLATE "C" AND coalesce(bare !~* secretive COLLATE "C", true) THEN
        RETURN p_query;
    END IF;

    FOR number IN 1..cardinality(kinds) LOOP
        kind := kinds[number];
        piece := pieces[number];
        -- Where the server may have read on: a backslash escapes with standard_conforming_strings off, and a name
        -- may have been cut.
        IF (kind = 'name' AND (strpos(piece, '\') > 0 OR right(piece, 1) <> '"' OR length(piece) < 2))
            OR (kind = 'plain' AND strpos(piece, '\') > 0)
        THEN
            kept := kept || hidden;
            EXIT;
        END IF;
        kept := kept || CASE
            WHEN kind = 'comment' THEN ' '
            WHEN password AND kind IN ('word', 'name') THEN hidden
            WHEN kind IN ('literal', 'plain', 'dollar', 'number') THEN hidden
            ELSE piece
        END;
        -- After PASSWORD there is one, also where it is no literal and the statement fails.
        password := (password AND kind IN ('space', 'comment')) OR (of_role AND lower(piece) = 'password');
        of_role := of_role OR (kind = 'word' AND lower(piece) = ANY ('{role,user,group}'));
        setting := setting OR (kind = 'word' AND lower(piece) = 'set');
        -- The value of a setting may be a bare word, or a quoted name.
        IF assigns AND setting AND (piece = '=' OR (kind = 'word' AND lower(piece) = 'to')) THEN
            kept := kept || (' ' || hidden);
            EXIT;
        END IF;
    END LOOP;
    RETURN array_to_string(kept, '');
END
$$;

REVOKE ALL ON FUNCTION pgops.redacted(text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.redacted(text) TO pgops;
