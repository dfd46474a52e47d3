-- object: view pgops.wal_archive_status
CREATE OR REPLACE VIEW pgops.wal_archive_status AS
SELECT
    pg_catalog.md5(pg_catalog.concat_ws('/', g.name, f.wal_filename))::uuid AS archive_id,
    f.wal_filename,
    f.wal_lsn,
    pg_catalog.concat_ws(
        '/', g.repository, g.name, 'wal',
        CASE WHEN f.wal_lsn IS NOT NULL THEN pg_catalog.left(f.wal_filename, 16) END,
        f.wal_filename
    ) || f.ending AS archive_path,
    f.file_size,
    f.archived_at,
    f.status,
    pg_catalog.encode(f.checksum, 'hex') AS checksum,
    f.retention_until,
    g.name AS generation,
    f.timeline,
    f.failed_at,
    f.expired_at
FROM pgops.wal_file AS f
INNER JOIN pgops.generation AS g ON f.generation_id = g.generation_id;

REVOKE ALL ON pgops.wal_archive_status FROM PUBLIC;
GRANT SELECT ON pgops.wal_archive_status TO pgops, pgops_reader;
