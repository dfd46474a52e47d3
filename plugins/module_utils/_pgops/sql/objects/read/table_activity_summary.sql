-- object: view pgops.table_activity_summary
-- requires: latest_values
CREATE OR REPLACE VIEW pgops.table_activity_summary AS
WITH activity AS (
    SELECT
        pg_catalog.current_database()::text AS database_name,
        t.schemaname::text AS schemaname,
        t.relname::text AS tablename,
        t.seq_scan,
        t.seq_tup_read,
        t.idx_scan,
        t.idx_tup_fetch,
        t.n_tup_ins AS inserts,
        t.n_tup_upd AS updates,
        t.n_tup_del AS deletes,
        t.n_live_tup AS live_tuples,
        t.n_dead_tup AS dead_tuples,
        t.last_vacuum,
        t.last_autovacuum,
        t.last_analyze,
        t.last_autoanalyze,
        pg_catalog.now() AS collected_at
    FROM pg_catalog.pg_stat_user_tables AS t
    UNION ALL
    SELECT
        v.database_name,
        v.schema_name,
        v.table_name,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_seq_scans')::bigint AS seq_scan,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_seq_tuples_read')::bigint AS seq_tup_read,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_index_scans')::bigint AS idx_scan,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_index_tuples_fetched')::bigint
            AS idx_tup_fetch,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_tuples_inserted')::bigint AS inserts,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_tuples_updated')::bigint AS updates,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_tuples_deleted')::bigint AS deletes,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_live_tuples')::bigint AS live_tuples,
        pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_dead_tuples')::bigint AS dead_tuples,
        pg_catalog.to_timestamp(
            pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_last_vacuum')
        ) AS last_vacuum,
        pg_catalog.to_timestamp(
            pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_last_autovacuum')
        ) AS last_autovacuum,
        pg_catalog.to_timestamp(
            pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_last_analyze')
        ) AS last_analyze,
        pg_catalog.to_timestamp(
            pg_catalog.max(v.metric_value) FILTER (WHERE v.metric_name = 'table_last_autoanalyze')
        ) AS last_autoanalyze,
        pg_catalog.max(v.collected_at) AS collected_at
    FROM
        pgops.latest_values(
            ARRAY[
                'table_seq_scans',
                'table_seq_tuples_read',
                'table_index_scans',
                'table_index_tuples_fetched',
                'table_tuples_inserted',
                'table_tuples_updated',
                'table_tuples_deleted',
                'table_live_tuples',
                'table_dead_tuples',
                'table_last_vacuum',
                'table_last_autovacuum',
                'table_last_analyze',
                'table_last_autoanalyze'
            ],
            interval '1 day'
        ) AS v
    WHERE
        v.table_name <> ''
        AND v.database_name <> pg_catalog.current_database()
        AND v.node_id = (
            SELECT n.node_id FROM pgops.node AS n
            WHERE n.is_primary
            ORDER BY n.last_seen_at DESC
            LIMIT 1
        )
    GROUP BY v.database_name, v.schema_name, v.table_name
)

SELECT
    a.schemaname,
    a.tablename,
    a.seq_scan,
    a.seq_tup_read,
    a.idx_scan,
    a.idx_tup_fetch,
    a.inserts,
    a.updates,
    a.deletes,
    a.live_tuples,
    a.dead_tuples,
    100.0 * a.dead_tuples / nullif(a.live_tuples + a.dead_tuples, 0) AS dead_tuple_ratio,
    a.last_vacuum,
    a.last_autovacuum,
    a.last_analyze,
    a.last_autoanalyze,
    a.database_name,
    pg_catalog.now() - a.collected_at AS age
FROM activity AS a;

REVOKE ALL ON pgops.table_activity_summary FROM PUBLIC;
GRANT SELECT ON pgops.table_activity_summary TO pgops, pgops_reader;
