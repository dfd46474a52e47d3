-- object: view pgops.maintenance_progress
CREATE OR REPLACE VIEW pgops.maintenance_progress AS
WITH progress AS (
    SELECT
        'VACUUM' AS operation,
        v.pid,
        v.datname,
        v.relid,
        v.phase,
        CASE v.phase
            WHEN 'scanning heap' THEN v.heap_blks_scanned
            WHEN 'vacuuming heap' THEN v.heap_blks_vacuumed
            -- Counted since PostgreSQL 17.
            WHEN 'vacuuming indexes' THEN (pg_catalog.to_jsonb(v) ->> 'indexes_processed')::bigint
            WHEN 'cleaning up indexes' THEN (pg_catalog.to_jsonb(v) ->> 'indexes_processed')::bigint
        END AS done,
        CASE
            WHEN v.phase IN ('scanning heap', 'vacuuming heap') THEN v.heap_blks_total
            ELSE (pg_catalog.to_jsonb(v) ->> 'indexes_total')::bigint
        END AS total,
        CASE WHEN v.phase IN ('scanning heap', 'vacuuming heap') THEN 'blocks' ELSE 'indexes' END AS unit
    FROM pg_catalog.pg_stat_progress_vacuum AS v
    UNION ALL
    SELECT
        'ANALYZE' AS operation,
        a.pid,
        a.datname,
        a.relid,
        a.phase,
        -- The counters stay as they are in the phases that follow.
        CASE WHEN a.phase LIKE 'acquiring%' THEN a.sample_blks_scanned END AS done,
        a.sample_blks_total AS total,
        'blocks' AS unit
    FROM pg_catalog.pg_stat_progress_analyze AS a
    UNION ALL
    SELECT
        i.command AS operation,
        i.pid,
        i.datname,
        i.relid,
        i.phase,
        CASE WHEN i.blocks_total > 0 THEN i.blocks_done ELSE i.tuples_done END AS done,
        CASE WHEN i.blocks_total > 0 THEN i.blocks_total ELSE i.tuples_total END AS total,
        CASE WHEN i.blocks_total > 0 THEN 'blocks' ELSE 'rows' END AS unit
    FROM pg_catalog.pg_stat_progress_create_index AS i
    UNION ALL
    SELECT
        -- PostgreSQL 19 has a view of its own for REPACK, and shows it here as what it resembles.
        CASE WHEN r.param1 = 2 THEN 'REPACK' ELSE c.command END AS operation,
        c.pid,
        c.datname,
        c.relid,
        c.phase,
        CASE WHEN c.phase = 'seq scanning heap' THEN c.heap_blks_scanned END AS done,
        c.heap_blks_total AS total,
        'blocks' AS unit
    FROM pg_catalog.pg_stat_progress_cluster AS c
    LEFT JOIN
        pg_catalog.pg_stat_get_progress_info(
            CASE WHEN pg_catalog.current_setting('server_version_num')::integer >= 190000 THEN 'REPACK' END
        ) AS r
        ON c.pid = r.pid
    UNION ALL
    SELECT
        'BASE BACKUP' AS operation,
        b.pid,
        NULL AS datname,
        NULL AS relid,
        b.phase,
        b.backup_streamed AS done,
        b.backup_total AS total,
        'bytes' AS unit
    FROM pg_catalog.pg_stat_progress_basebackup AS b
    UNION ALL
    SELECT
        p.command AS operation,
        p.pid,
        p.datname,
        nullif(p.relid, 0) AS relid,
        pg_catalog.lower(p.type) AS phase,
        p.bytes_processed AS done,
        p.bytes_total AS total,
        'bytes' AS unit
    FROM pg_catalog.pg_stat_progress_copy AS p
)

SELECT
    -- The server shows the statement and its database to pg_read_all_stats, and to the session's own role.
    coalesce(p.operation, 'unknown') AS operation,
    p.pid,
    p.datname::text AS datname,
    CASE
        WHEN p.datname = pg_catalog.current_database() THEN p.relid::regclass::text
        ELSE p.relid::text
    END AS relation,
    p.phase,
    -- Of the phase; relations grow meanwhile.
    CASE WHEN p.done > nullif(p.total, 0) THEN 100.0 ELSE 100.0 * p.done / nullif(p.total, 0) END AS percent,
    p.done,
    p.total,
    CASE WHEN p.total > 0 THEN p.unit END AS unit,
    -- VACUUM and ANALYZE of several tables start a transaction for each.
    CASE
        WHEN p.operation IN ('VACUUM', 'ANALYZE') THEN greatest(a.query_start, a.xact_start)
        ELSE coalesce(a.query_start, a.backend_start)
    END AS started_at,
    a.usename::text AS usename,
    a.backend_type,
    a.wait_event_type,
    a.wait_event
FROM progress AS p
LEFT JOIN pg_catalog.pg_stat_activity AS a ON p.pid = a.pid;

REVOKE ALL ON pgops.maintenance_progress FROM PUBLIC;
GRANT SELECT ON pgops.maintenance_progress TO pgops, pgops_reader;
