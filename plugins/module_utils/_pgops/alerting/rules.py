# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Alert rules: one compares one metric with one threshold at one severity. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from .. import spelling
from ..errors import InvalidInput

SEVERITIES = ("info", "warning", "critical")
OPERATORS = (">", "<", ">=", "<=", "=", "!=")
EVALUATIONS = ("last", "avg", "min", "max", "rate", "increase")
POLICIES = ("keep", "fire", "resolve")

LONGEST = 31 * 86400
"""Seconds of a window, or of a time that something lasts."""

UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min|h|d)?\Z")

MINUTE, HOUR, DAY = 60, 3600, 86400
MB, GB = 1024**2, 1024**3

Key = tuple[str, str]
"""Name and severity, which no two rules have both."""


@dataclass(frozen=True)
class Rule:
    """A row of pgops.alert_rules, times in seconds. ``text`` is notification_template, in which ``{metric_value}``,
    ``{threshold_value}`` and the labels of the series stand for their values. ``capability`` names the one that has
    to be on, where nothing is measured without it; it is not stored."""

    name: str
    metric: str
    operator: str
    threshold: float
    severity: str = "warning"
    clear_threshold: float | None = None
    evaluation: str = "last"
    window: float = 300
    lasts: float = 60
    keep_firing_for: float = 0
    missing_data: str = "keep"
    flapping_after: int = 4
    labels: Mapping[str, str] = field(default_factory=dict)
    channels: Sequence[str] = ()
    text: str = ""
    enabled: bool = True
    capability: str = ""

    @property
    def key(self) -> Key:
        """Its name and severity."""
        return self.name, self.severity

    def shown(self) -> dict[str, Any]:
        """As plans show it."""
        found = asdict(self)
        del found["capability"]
        return {**found, "channels": list(self.channels), "labels": dict(self.labels)}

    def row(self) -> dict[str, Any]:
        """As pgops.alert_rule has it, but for what the database fills in."""
        return {
            "rule_name": self.name,
            "severity_level": self.severity,
            "metric_name": self.metric,
            "condition_operator": self.operator,
            "threshold_value": self.threshold,
            "clear_threshold": self.clear_threshold,
            "evaluation": self.evaluation,
            "evaluation_window": f"{self.window} seconds",
            "minimum_duration": f"{self.lasts} seconds",
            "keep_firing_for": f"{self.keep_firing_for} seconds",
            "missing_data": self.missing_data,
            "flapping_after": self.flapping_after,
            "labels": json.dumps(dict(self.labels)),
            "notification_channels": json.dumps(list(self.channels)),
            "notification_template": self.text or None,
            "is_enabled": self.enabled,
        }


def _pair(warning: Rule, threshold: float, clear: float | None, lasts: float, **critical: Any) -> tuple[Rule, ...]:
    """A rule and its critical one."""
    return warning, replace(
        warning, severity="critical", threshold=threshold, clear_threshold=clear, lasts=lasts, **critical
    )


DEFAULTS: tuple[Rule, ...] = (
    # 2
    *_pair(
        Rule(
            *("collector_stale", "collector_late_ratio", ">", 3),
            clear_threshold=2,
            lasts=0,
            text="The collector {collector} on {node} is late by {metric_value} of its intervals. See `pgops "
            "collect` on the host and its log; if it is the collector agent, the host or its agent is down.",
        ),
        *(10, 5, 0),
    ),
    # Of what the watch says of the server, the server says nothing; but this of the watch.
    Rule(
        *("watch_stale", "job_age_seconds", ">", 600, "critical"),
        labels={"job": "watch"},
        text="The watch on {node} has not run without an error for {metric_value} s: nobody would be told that the "
        "server is down. See the journal of the job watch.",
    ),
    # 3
    *_pair(
        Rule(
            *("connections", "connections_used_percent", ">", 80),
            clear_threshold=75,
            lasts=10 * MINUTE,
            text="{metric_value} % of the connections of {node} are in use. End idle sessions (the metric "
            "connections shows them by database and state), or use a pooler; at 100 % nobody else can connect.",
        ),
        *(90, 85, 2 * MINUTE),
    ),
    # 4
    *_pair(
        Rule(
            *("lock_wait", "longest_lock_wait_seconds", ">", 60),
            clear_threshold=30,
            window=MINUTE,
            text="A session in database {database} on {node} has waited for a lock for {metric_value} s. "
            "pgops.blocking_tree shows who holds it: pg_cancel_backend(pid), or pg_terminate_backend(pid).",
        ),
        *(300, 60, MINUTE),
    ),
    Rule(
        *("lock_queue", "blocked_sessions", ">", 5, "critical"),
        clear_threshold=3,
        window=MINUTE,
        text="{metric_value} sessions in database {database} on {node} wait for locks. pgops.blocking_tree shows "
        "who stands at the root: end that session.",
    ),
    # 5
    *_pair(
        Rule(
            *("idle_in_transaction", "longest_idle_in_transaction_seconds", ">", 300),
            clear_threshold=240,
            text="A client of database {database} on {node} has been idle in a transaction for {metric_value} s: "
            "find it in pg_stat_activity (state, xact_start), end it, or set idle_in_transaction_session_timeout.",
        ),
        *(900, 720, MINUTE),
    ),
    # 6
    *_pair(
        Rule(
            *("long_transaction", "longest_transaction_seconds", ">", 1800),
            clear_threshold=1500,
            text="A transaction in database {database} on {node} has been open for {metric_value} s. It prevents "
            "cleanup by VACUUM and holds its locks: find it in pg_stat_activity by xact_start, and end it.",
        ),
        *(3600, 3000, MINUTE),
    ),
    # 7
    *_pair(
        Rule(
            *("xmin_horizon", "xmin_horizon_percent", ">", 25),
            clear_threshold=20,
            lasts=10 * MINUTE,
            text="Rows that died {metric_value} % of autovacuum_freeze_max_age ago cannot be vacuumed on {node}, "
            "because of the oldest {holder}: end the session (pg_stat_activity, by backend_xmin), finish the "
            "prepared transaction, drop the slot, or look at the standby's sessions.",
        ),
        *(50, 45, 10 * MINUTE),
    ),
    # 8
    *_pair(
        Rule(
            *("prepared_transaction", "oldest_prepared_transaction_seconds", ">", 300),
            clear_threshold=240,
            text="A prepared transaction in database {database} on {node} is {metric_value} s old. "
            "pg_prepared_xacts has its name: COMMIT PREPARED or ROLLBACK PREPARED, after asking its transaction "
            "manager.",
        ),
        *(1800, 1500, MINUTE),
    ),
    # 9
    *_pair(
        Rule(
            *("xid_wraparound", "xid_wraparound_percent", ">", 50),
            clear_threshold=48,
            text="Database {database} on {node} has used {metric_value} % of its transaction IDs; at 100 % the "
            "server refuses writes. Remove what holds the horizon (rule xmin_horizon), then VACUUM (FREEZE) its "
            "oldest tables.",
        ),
        *(75, 73, MINUTE),
    ),
    *_pair(
        Rule(
            *("xid_freeze_lag", "xid_freeze_lag_percent", ">", 110),
            clear_threshold=105,
            text="Autovacuum does not freeze database {database} on {node} in time: its oldest transaction ID is at "
            "{metric_value} % of autovacuum_freeze_max_age. See what blocks it: rule xmin_horizon, locks, its log.",
        ),
        *(125, 115, MINUTE),
    ),
    # 10
    *_pair(
        Rule(
            *("multixact_wraparound", "multixact_wraparound_percent", ">", 50),
            clear_threshold=48,
            text="Database {database} on {node} has used {metric_value} % of its multixact IDs; at 100 % the server "
            "refuses writes. VACUUM (FREEZE) the tables whose rows many transactions lock.",
        ),
        *(75, 73, MINUTE),
    ),
    # 11
    *_pair(
        Rule(
            *("replication_lag_bytes", "replication_lag_bytes", ">", 100 * MB),
            clear_threshold=50 * MB,
            lasts=5 * MINUTE,
            text="The standby {standby} is {metric_value} bytes behind {node}. pgops.replication_topology shows "
            "where it is stuck: the network, its disk, or a query that delays replay.",
        ),
        *(10 * GB, 5 * GB, 5 * MINUTE),
    ),
    Rule(
        *("replication_lag_not_shrinking", "replication_lag_not_shrinking_bytes", ">", GB, "critical"),
        lasts=5 * MINUTE,
        text="The standby {standby} is {metric_value} bytes behind {node}, and does not catch up. "
        "pgops.replication_topology shows where it is stuck: the network, its disk, or a query that delays replay.",
    ),
    # 12
    *_pair(
        Rule(
            *("replay_delay", "replay_delay_seconds", ">", 30),
            clear_threshold=10,
            lasts=5 * MINUTE,
            text="What the standby {node} shows is {metric_value} s old: it is not connected, replay is paused, or "
            "a query delays it (max_standby_streaming_delay). On a standby that is fed by an archive only, raise "
            "the threshold above archive_timeout.",
        ),
        *(300, 60, 5 * MINUTE),
    ),
    # 13
    Rule(
        *("standby_missing", "standby_surplus", "!=", 0, "critical"),
        text="{metric_value} standbys more than expected stream in the cluster of {node}; a negative number are "
        "missing. pgops.replication_topology shows which. pgops_expected_standbys is the number that is expected.",
    ),
    # 14
    *_pair(
        Rule(
            *("slot_inactive", "slot_unused", ">", 0),
            lasts=10 * MINUTE,
            text="Nobody uses the replication slot {slot} on {node}, and WAL is retained for it: bring its consumer "
            "back, or drop it with pg_drop_replication_slot().",
        ),
        *(0, None, 30 * MINUTE),
    ),
    # 15
    *_pair(
        Rule(
            *("slot_retention", "slot_retained_bytes", ">", GB),
            clear_threshold=GB / 2,
            text="The replication slot {slot} on {node} retains {metric_value} bytes of WAL. Its consumer is slow "
            "or gone: bring it back, or drop the slot before the disk is full.",
        ),
        *(10 * GB, 5 * GB, MINUTE),
    ),
    *_pair(
        Rule(
            *("slot_status", "slot_wal_status", ">=", 2),
            text="The replication slot {slot} on {node} has lost its WAL, or is about to (status {metric_value}: 2 "
            "is unreserved, 3 lost). Its consumer must catch up now, or be made anew; raise max_slot_wal_keep_size.",
        ),
        *(3, None, MINUTE),
    ),
    # 16
    *_pair(
        Rule(
            *("archiver", "archive_failing", ">", 0),
            text="{node} cannot archive its WAL: it accumulates in pg_wal until the disk is full, and no backup is "
            "complete. The server's log has the reason.",
        ),
        *(0, None, 5 * MINUTE),
    ),
    *_pair(
        Rule(
            *("archive_backlog", "archive_ready_segments", ">", 10),
            clear_threshold=5,
            text="{metric_value} WAL segments of {node} wait to be archived: archiving fails or is too slow. See "
            "pg_stat_archiver, the server's log, and the repository's file system.",
        ),
        *(20, 10, MINUTE),
    ),
    # 17
    *_pair(
        Rule(
            *("disk_usage", "disk_used_percent", ">", 80),
            clear_threshold=78,
            lasts=5 * MINUTE,
            text="The disk of {disk} on {node} is full to {metric_value} %. Free space or enlarge it; never delete "
            "files in pg_wal. Slots (rule slot_retention) and a failing archiver retain WAL.",
        ),
        *(90, 88, 5 * MINUTE),
    ),
    Rule(
        *("disk_filling", "disk_full_in_seconds", "<", 4 * HOUR, "critical"),
        clear_threshold=8 * HOUR,
        lasts=5 * MINUTE,
        text="The disk of {disk} on {node} is full in {metric_value} s if it fills as in the last hour. Find what "
        "grows: temporary files, WAL that slots or a failing archiver retain, or a load of data.",
    ),
    # 18
    Rule(
        *("checksum_failures", "checksum_failures", ">", 0, "critical"),
        evaluation="increase",
        window=15 * MINUTE,
        lasts=0,
        keep_firing_for=DAY,
        text="{metric_value} blocks were read with a wrong checksum on {node}: a disk, memory or a file is damaged. "
        "Save the node's data, fail over, and restore it.",
    ),
    # 19
    Rule(
        *("deadlocks", "deadlocks", ">=", 5),
        evaluation="increase",
        lasts=0,
        keep_firing_for=5 * MINUTE,
        text="{metric_value} deadlocks within five minutes in database {database} on {node}. The server's log has "
        "the statements: transactions should lock rows in one order.",
    ),
    # 20
    Rule(
        *("cache_hit_ratio", "cache_hit_recent_percent", "<", 90),
        clear_threshold=93,
        lasts=15 * MINUTE,
        missing_data="resolve",
        text="Only {metric_value} % of the blocks that database {database} on {node} reads are in shared_buffers. "
        "pgops.top_queries('io') shows which statements read; look for a missing index before you add memory.",
    ),
    # 21
    *_pair(
        Rule(
            *("temp_bytes", "temp_bytes", ">", 10 * MB),
            evaluation="rate",
            clear_threshold=5 * MB,
            lasts=10 * MINUTE,
            text="Queries in database {database} on {node} write {metric_value} bytes of temporary files a second. "
            "pgops.top_queries('temp') shows which: look at their plans, then raise work_mem for them.",
        ),
        *(100 * MB, 50 * MB, 10 * MINUTE),
    ),
    # 22
    Rule(
        *("checkpoints_requested", "checkpoints_requested_percent", ">", 50),
        clear_threshold=30,
        lasts=30 * MINUTE,
        missing_data="resolve",
        text="{metric_value} % of the checkpoints of {node} come before their time, mostly since max_wal_size is "
        "reached: raise it, so that fewer full pages are written.",
    ),
    # 23
    Rule(
        *("rollbacks", "rollback_recent_percent", ">", 10),
        clear_threshold=5,
        lasts=5 * MINUTE,
        missing_data="resolve",
        text="{metric_value} % of the transactions in database {database} on {node} are rolled back. The server's "
        "log has the errors of the statements.",
    ),
    # 24
    *_pair(
        Rule(
            *("sequence_exhaustion", "sequence_used_percent", ">", 75),
            clear_threshold=73,
            window=HOUR,
            lasts=0,
            text="The sequence {schema}.{sequence} in database {database} on {node} has used {metric_value} % of "
            "its range; at 100 % inserts fail. Change its column to bigint in time.",
        ),
        *(90, 88, 0),
    ),
    # 25
    Rule(
        *("backup_age", "backup_age_seconds", ">", 36 * HOUR),
        labels={"backup_type": "incremental"},
        lasts=0,
        text="The newest incremental backup of {node} is {metric_value} s old. The log of the job backup has the "
        "reason: `pgops backup` takes one now.",
        capability="backup",
    ),
    Rule(
        *("backup_age", "backup_age_seconds", ">", 7.5 * DAY, "critical"),
        labels={"backup_type": "full"},
        lasts=0,
        text="The newest full backup of {node} is {metric_value} s old. The log of the job backup has the reason: "
        "`pgops backup --type full` takes one now.",
        capability="backup",
    ),
    Rule(
        *("not_recoverable", "recoverable", "<", 1, "critical"),
        lasts=HOUR,
        text="The cluster of {node} cannot be recovered to now: there is no base backup, or WAL is missing. "
        "pgops.recovery_status has the obstacle; a new full backup mends it.",
        capability="backup",
    ),
    # 26
    Rule(
        *("recovery_unproven", "recovery_proof_late_ratio", ">", 1.5, "critical"),
        lasts=0,
        text="No recovery drill of the cluster of {node} has passed for {metric_value} of its intervals: nobody "
        "knows whether its backups can be restored. pgops.restore_drills says why; `pgops drill` makes one now.",
        capability="recovery",
    ),
    Rule(
        *("recovery_drill_failed", "drill_failed", ">", 0, "critical"),
        lasts=0,
        text="The last recovery drill of the cluster of {node} failed. pgops.restore_drills says what is wrong; "
        "take a full backup, and then make a drill with it: `pgops drill`.",
        capability="recovery",
    ),
    # 27
    Rule(
        *("vacuum_starved", "table_vacuum_due_ratio", ">", 2),
        clear_threshold=1.5,
        window=15 * MINUTE,
        lasts=HOUR,
        text="Table {schema}.{table} in database {database} on {node} has {metric_value} times the dead rows that "
        "start autovacuum. See what prevents it: rule xmin_horizon, locks, too few or too slow workers.",
    ),
    # 28
    Rule(
        *("settings_drift", "setting_waits_for_restart", ">", 0),
        lasts=HOUR,
        text="The setting {setting} of {node} has a new value that takes effect only with a restart: restart the "
        "server in a quiet hour, or put the value back.",
    ),
    # 29
    Rule(
        *("invalid_index", "invalid_index", ">", 0),
        window=3 * HOUR,
        lasts=6 * HOUR,
        text="The index {schema}.{index} in database {database} on {node} is invalid: a CREATE INDEX or REINDEX "
        "CONCURRENTLY failed. It slows writes down and serves no query: drop it, or REINDEX INDEX CONCURRENTLY.",
    ),
    # 30
    Rule(
        *("statements_evicted", "statements_evicted", ">", 0),
        evaluation="increase",
        window=15 * MINUTE,
        lasts=HOUR,
        text="pg_stat_statements on {node} drops statements: raise pgops_statements_max, or find the client that "
        "sends ever new texts.",
        capability="statements",
    ),
    # Not of the plan: alerting watches itself. A minute's age is usual, and the first look after a pause is no news.
    *_pair(
        Rule(
            *("notifications_undelivered", "notification_oldest_seconds", ">", 15 * MINUTE),
            lasts=2 * MINUTE,
            text="The channel {channel} of {node} has not been told anything for {metric_value} s though there is "
            "something to tell. pgops.notifications has the errors; `pgops notify --test` tries it on a host.",
        ),
        *(HOUR, None, 2 * MINUTE),
    ),
    Rule(
        *("notifications_given_up", "notifications_dead", ">", 0),
        lasts=0,
        text="{metric_value} messages to the channel {channel} of {node} were given up. "
        "pgops.notifications has the errors, and pgops.alert_history the alerts that were not told.",
    ),
    # Of the SQL contract, for those who want them.
    *_pair(
        Rule(
            *("database_size", "database_size_mb", ">", 1000),
            window=HOUR,
            text="Database {database} on {node} takes {metric_value} MB.",
            enabled=False,
        ),
        *(5000, None, MINUTE),
    ),
)
"""The rules that are shipped, by their numbers in the plan. 1 is not among them: an instance that is down tells
nothing of itself; nor is 26, before drills are measured."""


def shipped(capabilities: Collection[str]) -> dict[Key, Rule]:
    """The rules that are shipped, where these capabilities are on; those of others are disabled."""
    return {
        rule.key: replace(rule, enabled=rule.enabled and (not rule.capability or rule.capability in capabilities))
        for rule in DEFAULTS
    }


# --- what the inventory declares


NAMES = {one.name for one in fields(Rule)} - {"capability"}


def declared(given: Sequence[Mapping[str, Any]], known: Mapping[Key, Rule]) -> dict[Key, Rule]:
    """The rules of the inventory. One with the name of a ``known`` rule changes what it says of it, at its severity
    or at all that there are.

    Raises InvalidInput.
    """
    found: dict[Key, Rule] = {}
    for one in given:
        for rule in _rules({key: value for key, value in one.items() if value is not None}, known):
            if rule.key in found:
                raise InvalidInput(f"The alert rule {rule.name} ({rule.severity}) is declared more than once.")
            found[rule.key] = rule
    return found


def _rules(given: Mapping[str, Any], known: Mapping[Key, Rule]) -> list[Rule]:
    name = str(given.get("name", ""))
    unknown = spelling.unknown(given, NAMES)
    if not name or len(name) > 100 or unknown:
        raise InvalidInput(
            f"An alert rule needs a name of at most 100 characters: {dict(given)}."
            if not unknown
            else f"The alert rule {name} has unknown keys: {unknown}."
        )
    values = {key: _value(name, key, value) for key, value in given.items()}
    severities = [severity for one, severity in known if one == name]
    if severities and "severity" not in values:
        if "threshold" in values and len(severities) > 1:
            raise InvalidInput(
                f"The alert rule {name} has several severities.", "Say which one the threshold is for."
            )
        return [_changed(known[name, severity], values) for severity in severities]
    before = known.get((name, values.get("severity", "warning")))
    if before:
        return [_changed(before, values)]
    lacking = sorted({"metric", "operator", "threshold"} - set(values))
    if lacking:
        near = spelling.unknown([name], {one for one, _severity in known})
        raise InvalidInput(
            f"The alert rule {near} lacks {', '.join(lacking)}.",
            "docs/alerts.md lists those that are shipped, which may be changed in part.",
        )
    return [_checked(Rule(**values))]


def _changed(rule: Rule, values: Mapping[str, Any]) -> Rule:
    """A shipped rule with other values. The threshold takes the one for clearing along, unless that is given, too."""
    clear = rule.clear_threshold
    if "operator" in values:
        clear = None
    elif clear is not None and "threshold" in values:
        clear = float(f"{clear * values['threshold'] / rule.threshold:.6g}") if rule.threshold else None
    return _checked(replace(rule, **{"clear_threshold": clear, **values}))


def _value(name: str, key: str, value: Any) -> Any:
    """A value of the inventory in its type. Raises InvalidInput."""
    if key in ("window", "lasts", "keep_firing_for"):
        return seconds(f"The alert rule {name}: {key}", value)
    try:
        if key in ("threshold", "clear_threshold"):
            return float(value)
        if key == "flapping_after":
            return int(value)
    except (TypeError, ValueError):
        raise InvalidInput(f"The alert rule {name}: {key} '{value}' is not a number.") from None
    if key == "labels":
        return {str(label): str(one) for label, one in value.items()}
    return value


def seconds(what: str, value: Any) -> float:
    """A duration: seconds, or a number with one of the units s, m, h and d.

    Raises InvalidInput.
    """
    found = DURATION.match(str(value).strip())
    if not found:
        raise InvalidInput(f"{what} '{value}' is not a duration.", "It is written as 90, 90s, 10m, 36h or 7d.")
    number = float(found[1]) * UNITS[found[2] or ""]
    return int(number) if number == int(number) else number


def _checked(rule: Rule) -> Rule:
    """Raises InvalidInput for what no rule can be."""
    wrong = _wrong(rule) or _unknown_word(rule)
    if wrong:
        raise InvalidInput(f"The alert rule {rule.name} ({rule.severity}): {wrong}.")
    return rule


def _unknown_word(rule: Rule) -> str:
    words = (
        ("severity", SEVERITIES),
        ("operator", OPERATORS),
        ("evaluation", EVALUATIONS),
        ("missing_data", POLICIES),
    )
    for key, allowed in words:
        if getattr(rule, key) not in allowed:
            return f"{key} is one of {' '.join(allowed)}"
    return ""


def _wrong(rule: Rule) -> str:
    if not math.isfinite(rule.threshold) or not math.isfinite(rule.clear_threshold or 0):
        return "thresholds are finite numbers"
    if not 1 <= rule.window <= LONGEST or max(rule.lasts, rule.keep_firing_for) > LONGEST:
        return "window is a second to 31 days, lasts and keep_firing_for at most 31 days"
    if not 0 <= rule.flapping_after <= 60:
        return "flapping_after is 0 to 60"
    if len(rule.text) > 10000:
        return "text has at most 10,000 characters"
    if _never_clears(rule):
        return (
            f"with {rule.operator} {rule.threshold:g}, clear_threshold {rule.clear_threshold:g} is on the wrong side"
        )
    return ""


def _never_clears(rule: Rule) -> bool:
    if rule.clear_threshold is None:
        return False
    if rule.operator in (">", ">="):
        return rule.clear_threshold > rule.threshold
    if rule.operator in ("<", "<="):
        return rule.clear_threshold < rule.threshold
    return True


def refuse_unknown(rules: Mapping[Key, Rule], metrics: Collection[str]) -> None:
    """Refuse rules on a metric that nobody measures.

    Raises InvalidInput, with metrics of similar names.
    """
    unknown = spelling.unknown((rule.metric for rule in rules.values()), metrics)
    if unknown:
        raise InvalidInput(
            f"Alert rules are on metrics that no collector yields: {unknown}.",
            "docs/metrics.md lists the metrics; your own must be in pgops_collectors.",
        )
