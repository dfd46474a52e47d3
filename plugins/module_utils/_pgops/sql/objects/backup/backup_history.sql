-- object: view pgops.backup_history
CREATE OR REPLACE VIEW pgops.backup_history AS
SELECT
    b.backup_id,
    b.backup_type,
    b.backup_method,
    -- All databases of the instance are in it.
    NULL::text AS database_name,
    b.repository || '/' || b.generation || '/backup/' || b.name AS backup_file_path,
    b.stored_bytes AS backup_file_size,
    b.compression AS compression_type,
    b.checksum,
    b.started_at,
    CASE WHEN b.status IN ('completed', 'expired') THEN b.ended_at END AS completed_at,
    extract(EPOCH FROM b.ended_at - b.started_at)::double precision AS duration_seconds,
    b.status,
    coalesce(b.error_message, b.damage) AS error_message,
    b.retention_until,
    b.start_lsn AS wal_start_lsn,
    b.stop_lsn AS wal_end_lsn,
    coalesce(b.requested_by, 'pgops') AS created_by,
    b.parent_id,
    b.timeline,
    b.generation,
    b.node,
    b.from_standby,
    b.server_version,
    b.layout,
    b.data_bytes,
    b.reason,
    b.pinned,
    b.damage,
    b.verified_at,
    b.requested_at,
    b.ended_at,
    b.expired_at
FROM pgops.backup AS b;

REVOKE ALL ON pgops.backup_history FROM PUBLIC;
GRANT SELECT ON pgops.backup_history TO pgops, pgops_reader, pgops_operator;
