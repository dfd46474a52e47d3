-- Dumps of single databases. The repository is the truth about them: the job `catalogue` brings the rows to what is
-- there. A table of its own: no dump leads to a moment of the WAL, as backups do.

-- A row a dump.
CREATE TABLE pgops.dump (
    dump_id uuid PRIMARY KEY,
    status text NOT NULL CHECK (status IN ('running', 'completed', 'failed', 'expired')),
    -- The name of the database as that of its directory: it may be of bytes that are no text here.
    database_key text NOT NULL,
    -- The same for people.
    database_name text NOT NULL,
    repository text NOT NULL,
    generation text NOT NULL,
    -- Of its directory.
    name text NOT NULL,
    node text,
    -- Of the agent's process, on the node.
    pid integer,
    from_standby boolean,
    server_version text,
    -- Of pg_dump.
    program_version text,
    timeline bigint,
    -- What was committed before is in it.
    snapshot_lsn pg_lsn,
    encoding text,
    compression text,
    stored_bytes bigint,
    data_bytes bigint,
    checksum text,
    pinned text,
    -- What is wrong with it now.
    damage text,
    verified_at timestamptz,
    started_at timestamptz,
    -- When it was completed, or failed.
    ended_at timestamptz,
    error_message text,
    retention_until timestamptz,
    expired_at timestamptz
);

CREATE INDEX dump_by_database ON pgops.dump (generation, database_key, ended_at);
