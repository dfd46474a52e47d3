-- object: view pgops.index_usage_summary
-- requires: latest_values
CREATE OR REPLACE VIEW pgops.index_usage_summary AS
-- Measuring an index takes a lock on it, which would queue behind an exclusive one: those are estimated.
WITH held AS (
    SELECT l.relation
    FROM pg_catalog.pg_locks AS l
    WHERE
        l.locktype = 'relation'
        AND l.mode = 'AccessExclusiveLock'
        AND l.database = (
            SELECT d.oid FROM pg_catalog.pg_database AS d
            WHERE d.datname = pg_catalog.current_database()
        )
),

used AS (
    SELECT
        pg_catalog.current_database()::text AS database_name,
        t.schemaname::text AS schemaname,
        t.relname::text AS tablename,
        t.indexrelname::text AS indexname,
        t.idx_scan AS scans,
        t.idx_tup_read AS tuples_read,
        t.idx_tup_fetch AS tuples_fetched,
        CASE
            WHEN t.indexrelid IN (SELECT h.relation FROM held AS h)
                THEN c.relpages * pg_catalog.current_setting('block_size')::bigint
            ELSE pg_catalog.pg_relation_size(t.indexrelid)
        END AS index_size_bytes,
        pg_catalog.now() AS collected_at
    FROM pg_catalog.pg_stat_user_indexes AS t
    INNER JOIN pg_catalog.pg_index AS i ON t.indexrelid = i.indexrelid
    INNER JOIN pg_catalog.pg_class AS c ON t.indexrelid = c.oid
    WHERE NOT (i.indisunique OR i.indisexclusion)
    UNION ALL
    SELECT
        v.database_name,
        v.schema_name,
        v.table_name,
        v.index_name,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'index_scans')::bigint AS scans,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'index_tuples_read')::bigint AS tuples_read,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'index_tuples_fetched')::bigint
            AS tuples_fetched,
        (1048576 * pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'index_size_mb'))::bigint
            AS index_size_bytes,
        pg_catalog.max(v.collected_at) AS collected_at
    FROM
        pgops.latest_values(
            ARRAY['index_scans', 'index_tuples_read', 'index_tuples_fetched', 'index_size_mb'], interval '1 day'
        ) AS v
    WHERE
        v.index_name <> ''
        AND v.database_name <> pg_catalog.current_database()
        AND v.other ->> 'uniqueness' IS DISTINCT FROM 'unique'
        AND v.node_id = (
            SELECT n.node_id FROM pgops.node AS n
            WHERE n.is_primary
            ORDER BY n.last_seen_at DESC
            LIMIT 1
        )
    GROUP BY v.database_name, v.schema_name, v.table_name, v.index_name
)

SELECT
    u.schemaname,
    u.tablename,
    u.indexname,
    u.scans,
    u.tuples_read,
    u.tuples_fetched,
    CASE
        WHEN u.scans = 0 THEN 'UNUSED'
        WHEN u.scans < 100 THEN 'LOW_USAGE'
        WHEN u.scans < 1000 THEN 'MEDIUM_USAGE'
        WHEN u.scans >= 1000 THEN 'HIGH_USAGE'
    END AS usage_category,
    pg_catalog.pg_size_pretty(u.index_size_bytes) AS index_size,
    u.index_size_bytes,
    u.database_name,
    pg_catalog.now() - u.collected_at AS age
FROM used AS u;

REVOKE ALL ON pgops.index_usage_summary FROM PUBLIC;
GRANT SELECT ON pgops.index_usage_summary TO pgops, pgops_reader;
