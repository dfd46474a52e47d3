-- object: view pgops.recovery_points
CREATE OR REPLACE VIEW pgops.recovery_points AS
SELECT
    r.recovery_id,
    r.recovery_name,
    r.target_lsn,
    r.target_time,
    r.base_backup_id,
    r.required_wal_files,
    r.created_at,
    r.description,
    r.created_by,
    r.generation,
    r.timeline,
    r.required_segments,
    r.obstacle
FROM pgops.recovery_point AS r;

REVOKE ALL ON pgops.recovery_points FROM PUBLIC;
GRANT SELECT ON pgops.recovery_points TO pgops, pgops_reader, pgops_operator;
