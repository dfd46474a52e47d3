-- object: function pgops.store_query_texts(integer, jsonb, boolean)
-- requires: cut_text
CREATE OR REPLACE FUNCTION pgops.store_query_texts(p_node_id integer, p_texts jsonb, p_normalised boolean)
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET timezone = 'UTC'
AS $$
-- Stores redacted texts, an array of {queryid, query}; returns how many.
DECLARE
    stored integer;
BEGIN
    INSERT INTO pgops.query_text AS t (cluster, queryid, query, normalised, last_used_on)
    SELECT DISTINCT ON (s.queryid) n.cluster, s.queryid, pgops.cut_text(s.query, 10240), p_normalised, current_date
    FROM jsonb_to_recordset(p_texts) AS s (queryid bigint, query text)
    INNER JOIN pgops.node AS n ON n.node_id = p_node_id
    WHERE s.query IS NOT NULL
    ORDER BY s.queryid
    ON CONFLICT (cluster, queryid) DO UPDATE
    SET query = excluded.query, normalised = true, last_used_on = excluded.last_used_on
    WHERE NOT t.normalised AND excluded.normalised;
    GET DIAGNOSTICS stored = ROW_COUNT;
    RETURN stored;
END
$$;

REVOKE ALL ON FUNCTION pgops.store_query_texts(integer, jsonb, boolean) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.store_query_texts(integer, jsonb, boolean) TO pgops;
