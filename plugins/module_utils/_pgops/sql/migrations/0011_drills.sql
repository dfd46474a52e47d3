-- Recovery drills: what proves that backups can be restored. A drill is there once it is over.
CREATE TABLE pgops.drill (
    drill_id uuid PRIMARY KEY,
    -- Not run: it proves nothing, neither that the cluster can be recovered nor that it cannot.
    status text NOT NULL CHECK (status IN ('passed', 'failed', 'not_run')),
    -- A word for what kept it from passing.
    reason text CHECK (reason IS NOT NULL OR status = 'passed'),
    error_message text,
    node text NOT NULL,
    host text NOT NULL,
    repository text NOT NULL,
    -- Not known where the server could not be asked.
    generation text,
    backup_id uuid,
    backup_name text,
    -- The directory in which it took place.
    place text NOT NULL,
    started_at timestamptz NOT NULL,
    completed_at timestamptz NOT NULL,
    -- Seconds by the phases of a restore, and of the checks.
    phases jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(phases) = 'object'),
    -- Until the first query was answered.
    rto_seconds double precision,
    -- What would have been lost at most if the server had ended when the drill began.
    rpo_seconds double precision,
    rpo_bytes bigint,
    checks jsonb NOT NULL DEFAULT '[]' CHECK (pg_catalog.jsonb_typeof(checks) = 'array'),
    timeline bigint,
    reached_lsn pg_lsn,
    -- Of the last commit that was recovered.
    reached_time timestamptz
);

CREATE INDEX drill_by_time ON pgops.drill (generation, completed_at);

-- From when on drills have been declared: the row of that setting is made anew when it changes.
ALTER TABLE pgops.setting ADD COLUMN valid_since timestamptz NOT NULL DEFAULT pg_catalog.now();
