-- Alert rules, and what becomes of each for each series that it looks at.

CREATE TABLE pgops.alert_rule (
    rule_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    rule_name text NOT NULL CHECK (rule_name <> '' AND pg_catalog.length(rule_name) <= 100),
    metric_name text NOT NULL,
    condition_operator text NOT NULL CHECK (condition_operator IN ('>', '<', '>=', '<=', '=', '!=')),
    threshold_value double precision NOT NULL CHECK (threshold_value <> 'NaN'),
    -- What the value must fall short of, with the same operator, until an alert may end; NULL for the threshold.
    clear_threshold double precision CHECK (clear_threshold <> 'NaN'),
    severity_level text NOT NULL DEFAULT 'warning' CHECK (severity_level IN ('info', 'warning', 'critical')),
    -- What is compared with the threshold: the newest value in the window, an aggregate of all in it, or how much a
    -- counter grew in it (a rate is by a second).
    evaluation text NOT NULL DEFAULT 'last'
    CHECK (evaluation IN ('last', 'avg', 'min', 'max', 'rate', 'increase')),
    evaluation_window interval NOT NULL DEFAULT '5 minutes'
    CHECK (evaluation_window BETWEEN '1 second' AND '31 days'),
    -- For how long the condition must hold before the alert fires.
    minimum_duration interval NOT NULL DEFAULT '1 minute' CHECK (minimum_duration BETWEEN '0' AND '31 days'),
    -- For how long it must not hold before a firing alert ends.
    keep_firing_for interval NOT NULL DEFAULT '0' CHECK (keep_firing_for BETWEEN '0' AND '31 days'),
    -- What follows where nothing is measured: all stays as it is, or it is as if the condition held, or did not.
    missing_data text NOT NULL DEFAULT 'keep' CHECK (missing_data IN ('keep', 'fire', 'resolve')),
    -- From so many alerts of a series within an hour on, one ends only after a quarter of an hour; 0 for never.
    flapping_after integer NOT NULL DEFAULT 4 CHECK (flapping_after BETWEEN 0 AND 60),
    -- The series that it is for: those that have these labels. {} for all of the metric.
    labels jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(labels) = 'object'),
    notification_channels jsonb NOT NULL DEFAULT '[]'
    CHECK (pg_catalog.jsonb_typeof(notification_channels) = 'array'),
    notification_template text CHECK (pg_catalog.length(notification_template) <= 10000),
    is_enabled boolean NOT NULL DEFAULT TRUE,
    -- Who it belongs to: the collection, the inventory, or who wrote it in SQL.
    source text NOT NULL DEFAULT 'user' CHECK (source IN ('shipped', 'inventory', 'user')),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    updated_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    UNIQUE (rule_name, severity_level)
);

-- How often a collector runs, unless a node's agent reports another interval.
ALTER TABLE pgops.collector ADD COLUMN interval_seconds integer;

-- Where a rule is with a series. state: inactive, pending, firing or recovering. missing_since: nothing was measured
-- since then. fired_at: when it began to fire, within the last hour.
CREATE TYPE pgops.alert_progress AS (
    state text,
    breached_since timestamptz,
    cleared_since timestamptz,
    missing_since timestamptz,
    fired_at timestamptz []
);

-- From a condition's first breach to its end; it may never have fired. Without references: it outlives its rule, its
-- series and its node.
CREATE TABLE pgops.alert (
    alert_id uuid PRIMARY KEY,
    rule_id uuid NOT NULL,
    rule_name text NOT NULL,
    metric_name text NOT NULL,
    severity_level text NOT NULL,
    condition_operator text NOT NULL,
    threshold_value double precision NOT NULL,
    series_id integer NOT NULL,
    cluster text NOT NULL,
    node text NOT NULL,
    labels jsonb NOT NULL,
    status text NOT NULL
    CHECK (status IN ('pending', 'firing', 'recovering', 'missing', 'resolved', 'inactive')),
    -- When it fired, and before that when it was pending.
    metric_value double precision,
    started_at timestamptz NOT NULL,
    fired_at timestamptz,
    ended_at timestamptz,
    -- Why it ended, where it was not the value.
    reason text,
    flapping boolean NOT NULL DEFAULT FALSE,
    acknowledged_at timestamptz,
    acknowledged_by text,
    acknowledgement text
);

CREATE INDEX alert_by_end ON pgops.alert (ended_at);

CREATE TABLE pgops.alert_transition (
    alert_id uuid NOT NULL REFERENCES pgops.alert ON DELETE CASCADE,
    changed_at timestamptz NOT NULL,
    from_status text NOT NULL,
    to_status text NOT NULL,
    metric_value double precision,
    PRIMARY KEY (alert_id, changed_at)
);

-- Those that are not inactive, or were so lately that it matters. alert_id: the alert that is going on.
CREATE TABLE pgops.alert_state (
    rule_id uuid NOT NULL,
    series_id integer NOT NULL,
    alert_id uuid,
    progress pgops.alert_progress NOT NULL,
    PRIMARY KEY (rule_id, series_id)
);

-- When the rules were evaluated last.
CREATE TABLE pgops.alert_evaluation (
    only_one boolean PRIMARY KEY DEFAULT TRUE CHECK (only_one),
    evaluated_at timestamptz NOT NULL
);
