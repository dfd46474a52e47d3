-- What was seen when alerts began to fire, and what was done to the cluster before.

-- What a node saw at once: by the name of each part its rows, how many were left out, and why it failed if it did.
-- Alerts that begin to fire at the same time share one.
CREATE TABLE pgops.scene (
    scene_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    cluster text NOT NULL,
    node text NOT NULL,
    is_primary boolean NOT NULL,
    taken_at timestamptz NOT NULL,
    parts jsonb NOT NULL
    CHECK (pg_catalog.jsonb_typeof(parts) = 'object' AND pg_catalog.octet_length(parts::text) <= 500000)
);

CREATE INDEX scene_by_time ON pgops.scene (taken_at);

CREATE TABLE pgops.alert_scene (
    alert_id uuid NOT NULL REFERENCES pgops.alert ON DELETE CASCADE,
    scene_id bigint NOT NULL REFERENCES pgops.scene ON DELETE CASCADE,
    PRIMARY KEY (alert_id, scene_id)
);

CREATE INDEX alert_scene_by_scene ON pgops.alert_scene (scene_id);

-- Something that was done to a node, or to the whole cluster (node '').
CREATE TABLE pgops.event (
    -- What it is, so that nothing is recorded twice.
    event_key text PRIMARY KEY CHECK (pg_catalog.length(event_key) <= 300),
    occurred_at timestamptz NOT NULL,
    kind text NOT NULL
    CHECK (kind IN ('settings', 'restart', 'failover', 'deployment', 'backup', 'drill', 'maintenance')),
    cluster text NOT NULL,
    node text NOT NULL,
    event_text text NOT NULL CHECK (event_text <> '' AND pg_catalog.length(event_text) <= 1000),
    details jsonb NOT NULL DEFAULT '{}'
    CHECK (pg_catalog.jsonb_typeof(details) = 'object' AND pg_catalog.octet_length(details::text) <= 50000),
    recorded_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

CREATE INDEX event_by_time ON pgops.event (occurred_at);
