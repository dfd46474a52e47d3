-- Who is told of alerts, what is told to whom, and when nothing is to be told.

-- What is sent where. The addresses, which are secrets, are in a file of the hosts that send.
CREATE TABLE pgops.notification_channel (
    channel text PRIMARY KEY CHECK (channel ~ '^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$'),
    kind text NOT NULL CHECK (kind IN ('apprise', 'alertmanager')),
    -- Whether it is for rules that name no channel.
    is_default boolean NOT NULL DEFAULT TRUE,
    -- The alerts that it is for: those of these severities that have these labels.
    severities text[] NOT NULL DEFAULT '{info,warning,critical}'
    CHECK (severities <> '{}' AND severities <@ '{info,warning,critical}'),
    labels jsonb NOT NULL DEFAULT '{}' CHECK (pg_catalog.jsonb_typeof(labels) = 'object'),
    send_resolved boolean NOT NULL DEFAULT TRUE,
    -- The least time between two messages about a rule and a cluster, and between two that say the same.
    group_interval interval NOT NULL DEFAULT '5 minutes' CHECK (group_interval BETWEEN '0' AND '1 day'),
    repeat_interval interval NOT NULL DEFAULT '4 hours' CHECK (repeat_interval BETWEEN '1 minute' AND '31 days'),
    -- After how many failed attempts a message goes to another channel as well, and after how many it is given up.
    fallback_channel text CHECK (fallback_channel <> channel),
    fallback_after integer NOT NULL DEFAULT 3 CHECK (fallback_after BETWEEN 1 AND 100),
    attempts integer NOT NULL DEFAULT 12 CHECK (attempts BETWEEN 1 AND 100),
    is_enabled boolean NOT NULL DEFAULT TRUE,
    source text NOT NULL DEFAULT 'user' CHECK (source IN ('inventory', 'user')),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now()
);

-- Of an Alertmanager: who tells it what fires, until when nobody else does, and how often that has failed since it
-- last worked.
CREATE TABLE pgops.alertmanager_state (
    channel text PRIMARY KEY REFERENCES pgops.notification_channel ON DELETE CASCADE,
    claimed_by uuid,
    claimed_until timestamptz,
    told_at timestamptz,
    failures integer NOT NULL DEFAULT 0,
    error text
);

-- When alerts with these labels are told to nobody: from starts_at to ends_at, or of a recurring window each time
-- that it opens in between, on these days of the week (1 for Monday) and of the month (NULL for all), by the clock of
-- a time zone.
CREATE TABLE pgops.silence (
    silence_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    kind text NOT NULL CHECK (kind IN ('silence', 'maintenance')),
    labels jsonb NOT NULL CHECK (pg_catalog.jsonb_typeof(labels) = 'object' AND labels <> '{}'),
    starts_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    ends_at timestamptz NOT NULL,
    weekdays integer[] CHECK (weekdays <> '{}' AND weekdays <@ '{1,2,3,4,5,6,7}'),
    days_of_month integer[] CHECK (
        days_of_month <> '{}'
        AND days_of_month <@ '{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31}'
    ),
    start_time time,
    duration interval CHECK (duration BETWEEN '1 minute' AND '7 days'),
    time_zone text,
    comment text NOT NULL CHECK (comment <> '' AND pg_catalog.length(comment) <= 1000),
    created_by text NOT NULL DEFAULT session_user,
    source text NOT NULL DEFAULT 'user' CHECK (source IN ('inventory', 'user')),
    -- What the inventory calls it; nobody else gives it a name.
    name text UNIQUE CHECK (name <> '' AND pg_catalog.length(name) <= 100),
    created_at timestamptz NOT NULL DEFAULT pg_catalog.now(),
    CHECK ((source = 'inventory') = (name IS NOT NULL)),
    CHECK (starts_at < ends_at),
    CHECK (pg_catalog.num_nulls(weekdays, start_time, duration, time_zone) IN (0, 4)),
    CHECK (days_of_month IS NULL OR weekdays IS NOT NULL)
);

CREATE INDEX silence_by_end ON pgops.silence (ends_at);

-- What a channel has been told of an alert. muted_by: why it was told nothing, when that was looked at last.
-- queued_at: when the message that it fires was written, delivered_at: when somebody had accepted it. closed: there
-- is nothing more to tell.
CREATE TABLE pgops.alert_notice (
    alert_id uuid NOT NULL REFERENCES pgops.alert ON DELETE CASCADE,
    channel text NOT NULL,
    rule_id uuid NOT NULL,
    cluster text NOT NULL,
    seen_at timestamptz NOT NULL,
    muted_by text CHECK (muted_by IN ('silence', 'maintenance', 'severity', 'instance_down')),
    queued_at timestamptz,
    delivered_at timestamptz,
    resolved_delivered_at timestamptz,
    closed boolean NOT NULL DEFAULT FALSE,
    PRIMARY KEY (alert_id, channel)
);

CREATE INDEX alert_notice_open ON pgops.alert_notice (channel) WHERE NOT closed;

-- When the last message to a channel about a rule and a cluster was written.
CREATE TABLE pgops.notification_group (
    channel text NOT NULL,
    rule_id uuid NOT NULL,
    cluster text NOT NULL,
    queued_at timestamptz NOT NULL,
    PRIMARY KEY (channel, rule_id, cluster)
);

-- The outbox. notification_id is the message's idempotency key. A message is sent by who has claimed it, and by
-- nobody else before claimed_until.
CREATE TABLE pgops.notification (
    notification_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    channel text NOT NULL,
    rule_id uuid NOT NULL,
    cluster text NOT NULL,
    -- The place of its severity: what is critical is sent first.
    urgency integer NOT NULL,
    -- How many alerts it says go on, of which it names the first.
    still_firing bigint NOT NULL,
    queued_at timestamptz NOT NULL,
    status text NOT NULL DEFAULT 'waiting' CHECK (status IN ('waiting', 'sent', 'dead')),
    attempts integer NOT NULL DEFAULT 0,
    next_attempt_at timestamptz NOT NULL,
    claimed_by uuid,
    claimed_until timestamptz,
    -- The names of the channel's addresses, as the sender knows them.
    targets text[],
    ended_at timestamptz,
    -- Whether it has been passed on to the fallback channel, or need not be.
    handed_over boolean NOT NULL DEFAULT FALSE
);

-- One message about a rule and a cluster waits for a channel: what happens meanwhile is told by the next one.
CREATE UNIQUE INDEX notification_waiting ON pgops.notification (channel, rule_id, cluster) WHERE status = 'waiting';
CREATE INDEX notification_by_end ON pgops.notification (ended_at);
CREATE INDEX notification_unsent ON pgops.notification (channel, status) WHERE status <> 'sent';
CREATE INDEX notification_not_handed_over ON pgops.notification (channel) WHERE NOT handed_over AND status <> 'sent';

-- What a message says. passed: it fired and has ended before anybody was told.
CREATE TABLE pgops.notification_alert (
    notification_id uuid NOT NULL REFERENCES pgops.notification ON DELETE CASCADE,
    alert_id uuid NOT NULL REFERENCES pgops.alert ON DELETE CASCADE,
    event text NOT NULL CHECK (event IN ('firing', 'repeated', 'resolved', 'passed')),
    PRIMARY KEY (notification_id, alert_id)
);

CREATE INDEX notification_alert_by_alert ON pgops.notification_alert (alert_id);

-- Each attempt, written before it is made. outcome: NULL while it goes on; ambiguous where it cannot be known whether
-- the message has arrived.
CREATE TABLE pgops.notification_attempt (
    attempt_id uuid PRIMARY KEY DEFAULT pg_catalog.gen_random_uuid(),
    notification_id uuid NOT NULL REFERENCES pgops.notification ON DELETE CASCADE,
    target text NOT NULL,
    sender uuid NOT NULL,
    began_at timestamptz NOT NULL,
    ended_at timestamptz,
    outcome text CHECK (outcome IN ('sent', 'failed', 'ambiguous')),
    -- Whether the message said that it may have been sent before.
    marked boolean NOT NULL,
    error text CHECK (pg_catalog.length(error) <= 1000)
);

CREATE INDEX notification_attempt_by_message ON pgops.notification_attempt (notification_id, target);
CREATE INDEX notification_attempt_in_vain ON pgops.notification_attempt (ended_at) WHERE outcome <> 'sent';
