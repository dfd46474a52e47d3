-- object: view pgops.recovery_status
CREATE OR REPLACE VIEW pgops.recovery_status AS
SELECT
    g.name AS generation,
    g.repository,
    g.recoverable,
    g.obstacle,
    g.backups_seen_at,
    g.backup_bytes,
    g.stored_bytes AS wal_bytes,
    coalesce((
        SELECT s.value = 'true' FROM pgops.setting AS s
        WHERE s.name = 'backup'
    ), FALSE) AS backed_up,
    g.lost_at,
    g.lost,
    w.recovery_seconds,
    w.recovery_basis,
    w.recovery_parts,
    g.restore_speeds
FROM pgops.generation AS g
-- To the newest WAL: unknown where that cannot be recovered.
LEFT JOIN pgops.recovery_window AS w ON g.name = w.generation AND w.newest;

REVOKE ALL ON pgops.recovery_status FROM PUBLIC;
GRANT SELECT ON pgops.recovery_status TO pgops, pgops_reader, pgops_operator;
