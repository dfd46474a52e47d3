-- object: view pgops.wal_archive_generations
CREATE OR REPLACE VIEW pgops.wal_archive_generations AS
SELECT
    g.name AS generation,
    g.repository,
    g.segment_bytes,
    g.segments,
    g.stored_bytes,
    g.continuous_since,
    g.continuous_to,
    g.catalogued_at
FROM pgops.generation AS g;

REVOKE ALL ON pgops.wal_archive_generations FROM PUBLIC;
GRANT SELECT ON pgops.wal_archive_generations TO pgops, pgops_reader;
