-- Backups of the cluster, and what is asked for. The repository is the truth about backups: the job `catalogue`
-- brings the rows to what is there.

-- A row a backup or a request. What a request became of has the request's backup_id.
CREATE TABLE pgops.backup (
    backup_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    status text NOT NULL CHECK (status IN ('requested', 'running', 'completed', 'failed', 'expired')),
    backup_type text NOT NULL CHECK (backup_type IN ('full', 'incremental', 'differential')),
    requested_at timestamptz,
    requested_by text,
    -- false: not compressed, whatever is configured.
    compressed boolean NOT NULL DEFAULT TRUE,
    repository text,
    generation text,
    -- Of its directory.
    name text,
    backup_method text,
    parent_id uuid,
    node text,
    -- Of the agent's process, on the node.
    pid integer,
    from_standby boolean,
    server_version text,
    timeline bigint,
    start_lsn pg_lsn,
    stop_lsn pg_lsn,
    layout text,
    compression text,
    stored_bytes bigint,
    data_bytes bigint,
    checksum text,
    -- Why it is of this type, where another was asked for.
    reason text,
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

-- One open request of a type; the functions that ask give the open one again.
CREATE UNIQUE INDEX backup_requested ON pgops.backup (backup_type) WHERE status = 'requested';

CREATE INDEX backup_by_position ON pgops.backup (generation, timeline, stop_lsn) WHERE status = 'completed';

-- The one request of an expiry, and what the last look at the repository said that one would release.
CREATE TABLE pgops.expiry (
    only_one boolean PRIMARY KEY DEFAULT TRUE CHECK (only_one),
    requested_at timestamptz,
    requested_by text,
    started_at timestamptz,
    node text,
    ended_at timestamptz,
    error_message text,
    releasable integer,
    releasable_bytes bigint,
    forecast_at timestamptz
);

INSERT INTO pgops.expiry DEFAULT VALUES;

-- Named points in the WAL. required_wal_files are the first of required_segments, once all of them are archived.
CREATE TABLE pgops.recovery_point (
    recovery_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    recovery_name text NOT NULL CHECK (pg_catalog.octet_length(recovery_name) BETWEEN 1 AND 63),
    description text,
    generation text NOT NULL,
    timeline bigint NOT NULL,
    target_lsn pg_lsn NOT NULL,
    target_time timestamptz NOT NULL,
    base_backup_id uuid,
    required_wal_files text[],
    required_segments bigint,
    -- Why it cannot be restored now, as of the last look at the repository.
    obstacle text,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    created_by text NOT NULL
);

CREATE INDEX recovery_point_by_name ON pgops.recovery_point (recovery_name);

CREATE INDEX recovery_point_by_time ON pgops.recovery_point (created_at);

-- From where to where the cluster can be recovered, by the timelines that recovery leads to: from the end of the
-- oldest backup to where a segment is missing. Times are those of the backup's end, and of the last segment's
-- arrival.
CREATE TABLE pgops.recovery_window (
    generation text NOT NULL,
    timeline bigint NOT NULL,
    start_lsn pg_lsn NOT NULL,
    end_lsn pg_lsn NOT NULL,
    starts_at timestamptz NOT NULL,
    ends_at timestamptz,
    -- A gap, or what is still to come.
    missing_wal text NOT NULL,
    -- Those that it can be restored from, in the order of the WAL.
    backups uuid[] NOT NULL,
    -- The one of a generation that goes to the newest WAL of its server's timeline.
    newest boolean NOT NULL DEFAULT FALSE,
    -- How long a restore to its end will take, from the newest of its backups; by parts, and what that is known by.
    recovery_seconds double precision,
    recovery_basis text,
    recovery_parts jsonb,
    PRIMARY KEY (generation, timeline, start_lsn)
);

-- Of a generation's backups, as of the last look at them. obstacle: why nothing can be restored, NULL where it
-- can.
ALTER TABLE pgops.generation ADD COLUMN backups_seen_at timestamptz;
ALTER TABLE pgops.generation ADD COLUMN backup_bytes bigint;
ALTER TABLE pgops.generation ADD COLUMN recoverable boolean;
ALTER TABLE pgops.generation ADD COLUMN obstacle text;
-- What its restores have shown: bytes a second, or seconds, of each part.
ALTER TABLE pgops.generation ADD COLUMN restore_speeds jsonb;
-- What was gone at last that we had not removed, and when that was noticed.
ALTER TABLE pgops.generation ADD COLUMN lost_at timestamptz;
ALTER TABLE pgops.generation ADD COLUMN lost text;
