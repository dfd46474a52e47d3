-- object: view pgops.wal_archive_gaps
CREATE OR REPLACE VIEW pgops.wal_archive_gaps AS
SELECT
    g.name AS generation,
    w.first_wal,
    w.last_wal,
    w.segments,
    w.segments * g.segment_bytes AS wal_bytes,
    w.noticed_at
FROM pgops.wal_gap AS w
INNER JOIN pgops.generation AS g ON w.generation_id = g.generation_id;

REVOKE ALL ON pgops.wal_archive_gaps FROM PUBLIC;
GRANT SELECT ON pgops.wal_archive_gaps TO pgops, pgops_reader;
