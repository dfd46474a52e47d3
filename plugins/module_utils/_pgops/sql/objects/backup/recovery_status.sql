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
    g.lost
FROM pgops.generation AS g;

REVOKE ALL ON pgops.recovery_status FROM PUBLIC;
GRANT SELECT ON pgops.recovery_status TO pgops, pgops_reader, pgops_operator;
