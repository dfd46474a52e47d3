-- object: function pgops.store_query_plan(integer, text, bigint, jsonb, text)
CREATE OR REPLACE FUNCTION pgops.store_query_plan(
    p_node_id integer, p_database_name text, p_queryid bigint, p_plan jsonb, p_error text
)
RETURNS void
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Stores a statement's plan, or why there is none; then the previous plan stays, with its time.
BEGIN
    INSERT INTO pgops.query_plan AS k (cluster, database_name, queryid, plan, explained_at, error, tried_at)
    SELECT
        n.cluster, left(p_database_name, 256), p_queryid, p_plan, CASE WHEN p_plan IS NOT NULL THEN now() END,
        CASE WHEN p_plan IS NULL THEN left(p_error, 500) END, now()
    FROM pgops.node AS n
    WHERE n.node_id = p_node_id
    ON CONFLICT (cluster, database_name, queryid) DO UPDATE
    SET plan = coalesce(excluded.plan, k.plan),
        explained_at = coalesce(excluded.explained_at, k.explained_at),
        error = excluded.error,
        tried_at = excluded.tried_at;
END
$$;

REVOKE ALL ON FUNCTION pgops.store_query_plan(integer, text, bigint, jsonb, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.store_query_plan(integer, text, bigint, jsonb, text) TO pgops;
