-- The ledger of migrations, and the store of samples: one row a round, its values an array, and a
-- dictionary (shape, shape_series) that says which series stands at which place of the array.

CREATE TABLE pgops.migration (
    number integer PRIMARY KEY,
    name text NOT NULL,
    sha256 text NOT NULL,
    collection_version text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

-- What was installed over the migrations: the SHA-256 of every object as the catalogue shows it.
CREATE TABLE pgops.fingerprint (
    object text PRIMARY KEY,
    sha256 text NOT NULL,
    server_major integer NOT NULL
);

-- The SHA-256 of the file that each repeatable object was made from.
CREATE TABLE pgops.object_source (
    object text PRIMARY KEY,
    sha256 text NOT NULL
);

CREATE TABLE pgops.setting (
    name text PRIMARY KEY,
    value text NOT NULL
);

CREATE TABLE pgops.node (
    node_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    cluster text NOT NULL,
    node text NOT NULL UNIQUE,
    system_identifier text NOT NULL,
    is_primary boolean NOT NULL,
    agent_version text NOT NULL DEFAULT '',
    first_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    last_seen_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

CREATE TABLE pgops.metric (
    metric_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    metric_name text NOT NULL UNIQUE,
    category text NOT NULL CHECK (category IN ('performance', 'capacity', 'availability', 'security')),
    unit text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('gauge', 'counter')),
    direction text CHECK (direction IN ('above', 'below')),
    warning double precision,
    critical double precision,
    help text NOT NULL DEFAULT ''
);

-- The user's own thresholds; where one is NULL, the metric's shipped one holds.
CREATE TABLE pgops.threshold (
    metric_name text PRIMARY KEY,
    warning double precision,
    critical double precision
);

-- Metrics whose samples are kept for so many days, whatever those of the others.
CREATE TABLE pgops.retention (
    metric_name text PRIMARY KEY,
    days smallint NOT NULL CHECK (days > 0)
);

CREATE TABLE pgops.series (
    series_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    metric_id integer NOT NULL REFERENCES pgops.metric,
    node_id integer NOT NULL REFERENCES pgops.node,
    database_name text NOT NULL DEFAULT '',
    schema_name text NOT NULL DEFAULT '',
    table_name text NOT NULL DEFAULT '',
    index_name text NOT NULL DEFAULT '',
    other jsonb NOT NULL DEFAULT '{}',
    UNIQUE (metric_id, node_id, database_name, schema_name, table_name, index_name, other)
);

CREATE TABLE pgops.shape (
    shape_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    node_id integer NOT NULL REFERENCES pgops.node,
    fingerprint bytea NOT NULL,
    size integer NOT NULL,
    -- For how many days its rounds are kept; 0 for as many as is usual.
    keep_days smallint NOT NULL DEFAULT 0,
    last_used_on date NOT NULL,
    UNIQUE (node_id, fingerprint)
);

CREATE TABLE pgops.shape_series (
    shape_id integer NOT NULL REFERENCES pgops.shape ON DELETE CASCADE,
    place integer NOT NULL,
    series_id integer NOT NULL REFERENCES pgops.series,
    PRIMARY KEY (shape_id, place)
);

CREATE INDEX shape_series_by_series ON pgops.shape_series (series_id, shape_id);

-- What a counter counts from: values of one epoch may be subtracted from each other.
CREATE TABLE pgops.epoch (
    epoch_id integer PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    node_id integer NOT NULL REFERENCES pgops.node,
    origin text NOT NULL,
    last_used_on date NOT NULL,
    UNIQUE (node_id, origin)
);

-- keep_days is the shape's: what is kept for as long stands together, in partitions of a day each.
CREATE TABLE pgops.round (
    shape_id integer NOT NULL,
    epoch_id integer NOT NULL,
    collected_at timestamptz NOT NULL,
    keep_days smallint NOT NULL,
    sample_values double precision[] NOT NULL,
    PRIMARY KEY (shape_id, collected_at, keep_days)
) PARTITION BY LIST (keep_days);

CREATE TABLE pgops.round_0 PARTITION OF pgops.round FOR VALUES IN (0) PARTITION BY RANGE (collected_at);

-- The partitions of round by what they keep for how long, and before which day in UTC their rounds are gone.
CREATE TABLE pgops.round_class (
    keep_days smallint PRIMARY KEY,
    gone_before date NOT NULL DEFAULT '-infinity'
);

INSERT INTO pgops.round_class (keep_days) VALUES (0);

-- What became of a shape's series in an hour. Of a counter, minimum, average and maximum are rates by a second, and
-- weight is the seconds they are of; else weight is the number of samples.
CREATE TABLE pgops.rollup (
    shape_id integer NOT NULL,
    started_at timestamptz NOT NULL,
    statistic text NOT NULL CHECK (statistic IN ('minimum', 'average', 'maximum', 'last', 'weight')),
    sample_values double precision[] NOT NULL,
    PRIMARY KEY (shape_id, started_at, statistic)
) PARTITION BY RANGE (started_at);

-- Hours of nodes that are to be rolled up once they are over, some of them again.
CREATE TABLE pgops.rollup_due (
    node_id integer NOT NULL REFERENCES pgops.node,
    started_at timestamptz NOT NULL,
    PRIMARY KEY (node_id, started_at)
);

-- All collectors for this major version, of either role, and the jobs that say what collecting costs; filled from the
-- collectors' files. called: collect_database_metrics() runs it.
CREATE TABLE pgops.collector (
    collector text PRIMARY KEY,
    scope text NOT NULL CHECK (scope IN ('instance', 'database')),
    role text NOT NULL CHECK (role IN ('any', 'primary', 'standby')),
    rights text NOT NULL,
    called boolean NOT NULL,
    labels text[] NOT NULL,
    metrics text[] NOT NULL
);
