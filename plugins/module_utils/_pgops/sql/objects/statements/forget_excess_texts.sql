-- object: function pgops.forget_excess_texts()
-- requires: fair_level
CREATE OR REPLACE FUNCTION pgops.forget_excess_texts()
RETURNS integer
LANGUAGE plpgsql
SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
AS $$
-- Deletes texts, slow executions and plans if all of them take more than an eighth of max_size_mb; returns how many.
-- The oldest go first, and only those of a user in a database that has more than its share.
DECLARE
    room constant bigint := (
        SELECT s.value::bigint * 1048576 / 8 FROM pgops.setting AS s WHERE s.name = 'max_size_mb'
    );
    forgotten integer;
BEGIN
    WITH item AS MATERIALIZED (
        SELECT
            'text' AS kind,
            t.ctid AS row_id,
            coalesce(k.database_name, '') AS database_name,
            coalesce(k.user_name, '') AS user_name,
            t.last_used_on::timestamptz AS used_at,
            -- As it is stored: compressed, and what is out of line is not read. With the rest of the row and its indexes.
            pg_column_size(t.query) + 200 AS bytes
        FROM pgops.query_text AS t
        LEFT JOIN LATERAL (
            SELECT s.database_name, s.user_name FROM pgops.statement AS s
            WHERE s.cluster = t.cluster AND s.queryid = t.queryid
            ORDER BY s.statement_id
            LIMIT 1
        ) AS k ON true
        UNION ALL
        SELECT
            'execution' AS kind, q.ctid, coalesce(q.database_name, ''), coalesce(q.user_name, ''), q.last_seen_at,
            coalesce(pg_column_size(q.query), 0) + 600
        FROM pgops.slow_query AS q
        UNION ALL
        SELECT
            'plan' AS kind, p.ctid, p.database_name, '', p.tried_at,
            coalesce(pg_column_size(p.plan), 0) + coalesce(pg_column_size(p.error), 0) + 200
        FROM pgops.query_plan AS p
    ),

    ranked AS (
        SELECT
            i.kind,
            i.row_id,
            sum(i.bytes) OVER (
                PARTITION BY i.database_name, i.user_name ORDER BY i.used_at DESC, i.kind ASC, i.row_id ASC
            ) AS bytes
        FROM item AS i
    ),

    excess AS MATERIALIZED (
        SELECT r.kind, r.row_id
        FROM ranked AS r
        WHERE r.bytes > (
            SELECT pgops.fair_level(array_agg(o.bytes), room)
            FROM (
                SELECT sum(i.bytes) AS bytes FROM item AS i
                GROUP BY i.database_name, i.user_name
            ) AS o
        )
    ),

    texts AS (
        DELETE FROM pgops.query_text AS t USING excess AS e WHERE e.kind = 'text' AND t.ctid = e.row_id
        RETURNING 1
    ),

    executions AS (
        DELETE FROM pgops.slow_query AS q USING excess AS e WHERE e.kind = 'execution' AND q.ctid = e.row_id
        RETURNING 1
    ),

    plans AS (
        DELETE FROM pgops.query_plan AS p USING excess AS e WHERE e.kind = 'plan' AND p.ctid = e.row_id
        RETURNING 1
    )

    SELECT (SELECT count(*) FROM texts) + (SELECT count(*) FROM executions) + (SELECT count(*) FROM plans)
    INTO forgotten;
    RETURN forgotten;
END
$$;

REVOKE ALL ON FUNCTION pgops.forget_excess_texts() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION pgops.forget_excess_texts() TO pgops;
