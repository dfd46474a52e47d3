-- What statements cost: differences between two readings of pg_stat_statements, a row a statement and interval.
-- Texts and the keys of statements are kept once.

-- A text is redacted before it is stored. normalised: it is one of pg_stat_statements, with its constants replaced.
CREATE TABLE pgops.query_text (
    cluster text NOT NULL,
    queryid bigint NOT NULL,
    query text NOT NULL,
    normalised boolean NOT NULL,
    last_used_on date NOT NULL,
    PRIMARY KEY (cluster, queryid)
);

-- The dictionary of keys. queryid 0 with empty names stands for all statements that are not stored one by one.
CREATE TABLE pgops.statement (
    statement_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    cluster text NOT NULL,
    database_name text NOT NULL,
    user_name text NOT NULL,
    queryid bigint NOT NULL,
    toplevel boolean NOT NULL,
    last_used_on date NOT NULL,
    UNIQUE (cluster, queryid, database_name, user_name, toplevel)
);

-- The time between two readings on a node. coverage is in %, evictions are how often statements were dropped for want
-- of room; NULL where it is not known.
CREATE TABLE pgops.query_interval (
    interval_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    node_id integer NOT NULL REFERENCES pgops.node,
    started_at timestamptz NOT NULL,
    ended_at timestamptz NOT NULL,
    coverage real,
    statements integer NOT NULL,
    evictions bigint,
    UNIQUE (node_id, started_at)
);

CREATE INDEX query_interval_by_end ON pgops.query_interval (ended_at);

-- One execution that took long, as far as it is known: the view slow_query_log shows them.
CREATE TABLE pgops.slow_query (
    log_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    node_id integer NOT NULL REFERENCES pgops.node,
    -- sessions: a session had it; statistics: pg_stat_statements counted it; both: it is the same execution.
    source text NOT NULL CHECK (source IN ('sessions', 'statistics', 'both')),
    state text NOT NULL CHECK (state IN ('running', 'ended')),
    executed_at timestamptz NOT NULL,
    first_seen_at timestamptz NOT NULL,
    last_seen_at timestamptz NOT NULL,
    -- Which execution of which session; with executed_at, its beginning, it names one.
    pid integer,
    backend_start timestamptz,
    queryid bigint,
    -- Redacted; NULL where texts are off, and where query_text has it.
    query text,
    toplevel boolean NOT NULL,
    execution_time_ms double precision NOT NULL CHECK (execution_time_ms >= 0),
    -- false: it took at least that long.
    time_is_exact boolean NOT NULL,
    executions bigint NOT NULL CHECK (executions > 0),
    planning_time_ms double precision,
    rows_returned bigint,
    shared_blks_hit bigint,
    shared_blks_read bigint,
    shared_blks_written bigint,
    temp_blks_read bigint,
    temp_blks_written bigint,
    database_name text,
    user_name text,
    application_name text,
    client_addr inet,
    UNIQUE (node_id, pid, backend_start, executed_at)
);

-- How slow statements are planned, without the values of their parameters: the newest plan, and why the last attempt
-- gave none. Both are of the database's objects as they were then.
CREATE TABLE pgops.query_plan (
    cluster text NOT NULL,
    database_name text NOT NULL,
    queryid bigint NOT NULL,
    plan jsonb,
    explained_at timestamptz,
    error text,
    tried_at timestamptz NOT NULL,
    PRIMARY KEY (cluster, database_name, queryid),
    CHECK ((plan IS NULL) = (explained_at IS NULL))
);

CREATE INDEX slow_query_by_time ON pgops.slow_query (executed_at);

CREATE INDEX slow_query_by_last_seen ON pgops.slow_query (last_seen_at);

CREATE INDEX slow_query_running ON pgops.slow_query (node_id) WHERE state = 'running';

-- What a statement did in an interval. NULL: the server does not measure it.
CREATE TABLE pgops.query_usage (
    ended_at timestamptz NOT NULL,
    interval_id bigint NOT NULL,
    statement_id integer NOT NULL,
    calls bigint NOT NULL,
    exec_ms double precision NOT NULL,
    plan_ms double precision,
    -- Of one execution, where it is known to have been in this interval.
    max_exec_ms double precision,
    row_count bigint NOT NULL,
    shared_blks_hit bigint NOT NULL,
    shared_blks_read bigint NOT NULL,
    shared_blks_dirtied bigint NOT NULL,
    shared_blks_written bigint NOT NULL,
    local_blks_read bigint NOT NULL,
    local_blks_written bigint NOT NULL,
    temp_blks_read bigint NOT NULL,
    temp_blks_written bigint NOT NULL,
    read_ms double precision,
    write_ms double precision,
    wal_bytes bigint,
    wal_records bigint,
    wal_fpi bigint,
    PRIMARY KEY (ended_at, interval_id, statement_id)
) PARTITION BY RANGE (ended_at);
