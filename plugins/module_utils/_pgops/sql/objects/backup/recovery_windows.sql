-- object: view pgops.recovery_windows
CREATE OR REPLACE VIEW pgops.recovery_windows AS
SELECT
    w.generation,
    w.timeline,
    w.start_lsn,
    w.end_lsn,
    w.starts_at,
    w.ends_at,
    w.missing_wal,
    w.backups,
    w.newest,
    w.recovery_seconds,
    w.recovery_basis,
    w.recovery_parts
FROM pgops.recovery_window AS w;

REVOKE ALL ON pgops.recovery_windows FROM PUBLIC;
GRANT SELECT ON pgops.recovery_windows TO pgops, pgops_reader, pgops_operator;
