-- The catalogue of the WAL in the repository of the cluster: a cache, which the job `catalogue` fills, also anew.

CREATE TABLE pgops.generation (
    generation_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name text NOT NULL UNIQUE,
    segment_bytes bigint NOT NULL,
    repository text NOT NULL,
    -- As it was when the repository was last looked at from end to end.
    catalogued_at timestamptz,
    segments bigint,
    stored_bytes bigint,
    continuous_since timestamptz,
    continuous_to pg_lsn
);

CREATE TABLE pgops.wal_file (
    generation_id integer NOT NULL REFERENCES pgops.generation ON DELETE CASCADE,
    wal_filename text NOT NULL,
    timeline bigint,
    segment bigint,
    wal_lsn pg_lsn,
    ending text NOT NULL DEFAULT '',
    file_size bigint,
    archived_at timestamptz,
    status text NOT NULL CHECK (status IN ('archived', 'failed', 'expired')),
    checksum bytea,
    retention_until timestamptz,
    failed_at timestamptz,
    expired_at timestamptz,
    PRIMARY KEY (generation_id, wal_filename)
);

CREATE INDEX wal_file_by_segment ON pgops.wal_file (generation_id, timeline, segment)
WHERE status = 'archived' AND segment IS NOT NULL;

CREATE INDEX wal_file_histories ON pgops.wal_file (generation_id) WHERE wal_lsn IS NULL;

CREATE INDEX wal_file_not_archived ON pgops.wal_file (generation_id, status) WHERE status <> 'archived';

-- When each directory of the repository was last changed, as far as its files are known.
CREATE TABLE pgops.wal_directory (
    generation_id integer NOT NULL REFERENCES pgops.generation ON DELETE CASCADE,
    directory text NOT NULL,
    modified_ns bigint NOT NULL,
    PRIMARY KEY (generation_id, directory)
);

CREATE TABLE pgops.wal_gap (
    generation_id integer NOT NULL REFERENCES pgops.generation ON DELETE CASCADE,
    first_wal text NOT NULL,
    last_wal text NOT NULL,
    segments bigint NOT NULL,
    noticed_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    PRIMARY KEY (generation_id, first_wal, last_wal)
);
