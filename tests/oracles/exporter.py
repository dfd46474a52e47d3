# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which metrics of prometheus-postgres-exporter are which of ours, and whether their values agree.

The exporter is an oracle: other people wrote it, and read the server in another way. Each of its metrics is in PAIRS,
or in LEFT_OUT with the reason. Its names differ between versions (0.11 on Debian 12, 0.17 on 13, 0.19 later), so a
value of ours may be in several pairs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from prometheus_client.parser import text_string_to_metric_families

Labels = Mapping[str, str]
Key = tuple[tuple[str, str], ...]
Values = Mapping[Key, float]

DATABASE = "shop"
"""Where the exporter is connected: its own sessions are counted there."""
STARTED = "started"
"""The name of what `derived` adds to ours."""


@dataclass(frozen=True)
class Sample:
    """One line of a scrape."""

    name: str
    labels: Labels
    value: float


@dataclass(frozen=True)
class Pair:
    """Metrics of the exporter, added up, that are one of ours.

    ``labels`` are theirs by the names of ours, and ``given`` labels that theirs lack. What ``kept`` does not take of
    theirs is left out. ``value`` makes a sample of theirs a value, in our unit. ``zero`` says where theirs may be 0
    while ours says nothing: on a "standby", or "ever" (everywhere). ``within`` is how far they may be apart.
    """

    theirs: tuple[str, ...]
    ours: str
    labels: Mapping[str, str] = field(default_factory=dict)
    given: Labels = field(default_factory=dict)
    kept: Callable[[Labels], bool] = lambda _labels: True
    value: Callable[[Sample], float] = lambda sample: sample.value
    added: Callable[[Iterable[float]], float] = math.fsum
    role: str = "any"
    zero: str = ""
    within: float = 0.0


def parsed(text: str) -> list[Sample]:
    """The samples of a text in Prometheus' format, without the `_total` that the parser gives to every counter."""
    found = [one for family in text_string_to_metric_families(text) for one in family.samples]
    return [Sample(one.name.removesuffix("_total"), one.labels, one.value) for one in found]


def derived(samples: list[Sample]) -> list[Sample]:
    """Ours, and the time when the server was started, which ours tells as its age."""
    collected = "pgops_collected_timestamp_seconds"
    (moment,) = [one.value for one in samples if one.name == collected and one.labels["collector"] == "server"]
    ages = [one.value for one in samples if one.name == "pgops_server_uptime_seconds"]
    return [*samples, *(Sample(f"pgops_{STARTED}", {}, moment - age) for age in ages)]


def milliseconds(sample: Sample) -> float:
    """In seconds."""
    return sample.value / 1000


def named(prefix: str, names: Mapping[str, str], **same: object) -> list[Pair]:
    """Pairs of one kind: the exporter's names behind a prefix, with ours behind `pgops_`.

    Several of theirs that are added up are separated by `+`.
    """
    return [
        Pair(tuple(prefix + one for one in theirs.split("+")), f"pgops_{ours}", **same)  # type: ignore[arg-type]
        for theirs, ours in names.items()
    ]


def connectable(labels: Labels) -> bool:
    """Not of shared objects, nor of a template that nobody may connect to: these are not ours to measure."""
    return labels["datname"] not in {"", "template0"}


def elsewhere(labels: Labels) -> bool:
    """Not where the exporter itself is connected."""
    return connectable(labels) and labels["datname"] != DATABASE


def state(sample_state: str) -> str:
    """A session's state, as ours are."""
    known = {"active": "active", "idle": "idle", "idle in transaction (aborted)": "idle in transaction"}
    return known.get(sample_state, sample_state if sample_state == "idle in transaction" else "other")


BY_DATABASE = {"labels": {"database": "datname"}, "kept": connectable}
BY_TABLE = {
    "labels": {"database": "datname", "schema": "schemaname", "table": "relname"},
    # A partitioned table has no rows, its partitions have.
    "kept": lambda labels: labels["relname"] != "purchase",
}
WRITTEN = {**BY_TABLE, "zero": "standby"}
IO_BY_TABLE = {"labels": {"schema": "schemaname", "table": "relname"}, "given": {"database": DATABASE}}
BY_INDEX = {**IO_BY_TABLE, "labels": {"schema": "schemaname", "table": "relname", "index": "indexrelname"}}
BY_SLOT = {"labels": {"slot": "slot_name"}}
CONFLICTS = ("tablespace", "lock", "snapshot", "bufferpin", "deadlock", "active_logicalslot")

PAIRS = (
    *named(
        "pg_stat_database_",
        {
            "active_time_seconds": "active_time_seconds",
            "blks_hit": "blocks_hit",
            "blks_read": "blocks_read",
            "checksum_failures": "checksum_failures",
            "conflicts": "conflicts",
            "deadlocks": "deadlocks",
            "sessions": "sessions_established",
            "sessions_abandoned": "sessions_abandoned",
            "sessions_fatal": "sessions_fatal",
            "sessions_killed": "sessions_killed",
            "temp_bytes": "temp_bytes",
            "temp_files": "temp_files",
            "tup_deleted": "tuples_deleted",
            "tup_fetched": "tuples_fetched",
            "tup_inserted": "tuples_inserted",
            "tup_returned": "tuples_returned",
            "tup_updated": "tuples_updated",
            "xact_commit": "transactions_committed",
            "xact_rollback": "transactions_rolled_back",
        },
        **BY_DATABASE,
    ),
    *named(
        "pg_stat_database_",
        {
            "active_time": "active_time_seconds",
            "blk_read_time": "block_read_time_seconds",
            "blk_write_time": "block_write_time_seconds",
            "idle_in_transaction_time": "idle_in_transaction_time_seconds",
        },
        value=milliseconds,
        **BY_DATABASE,
    ),
    *(
        Pair(
            (f"pg_stat_database_conflicts_confl_{reason}",),
            "pgops_recovery_conflicts",
            given={"reason": reason},
            role="standby",
            **BY_DATABASE,  # type: ignore[arg-type]
        )
        for reason in CONFLICTS
    ),
    *named(
        "pg_database_",
        {
            "size_bytes": "database_size_bytes",
            "wraparound_age_datfrozenxid_seconds": "xid_age",
            "wraparound_age_datminmxid_seconds": "multixact_age",
        },
        **BY_DATABASE,
    ),
    # Sessions, and what they hold.
    *named("pg_stat_database_", {"numbackends": "connections"}, labels={"database": "datname"}, kept=elsewhere),
    Pair(("pg_stat_activity_count",), "pgops_connections", {"database": "datname", "state": "state"}, kept=elsewhere),
    *named(
        "pg_",
        {"stat_activity_max_tx_duration": "longest_transaction_seconds"},
        labels={"database": "datname"},
        kept=elsewhere,
        added=max,
    ),
    *named("pg_", {"long_running_transactions_oldest_timestamp_seconds": "longest_transaction_seconds"}, added=max),
    Pair(
        ("pg_locks_count",),
        "pgops_granted_locks",
        {"mode": "mode"},
        # The exporter's own statements hold these while it looks.
        kept=lambda labels: labels["mode"] != "accesssharelock",
    ),
    # The instance.
    *named(
        "pg_stat_bgwriter_",
        {
            "buffers_alloc": "buffers_alloc",
            "buffers_backend_fsync": "buffers_backend_fsync",
            "buffers_backend": "buffers_backend",
            "buffers_checkpoint": "buffers_checkpoint",
            "buffers_clean": "buffers_clean",
            "checkpoints_req": "checkpoints_requested",
            "checkpoints_timed": "checkpoints_timed",
            "maxwritten_clean": "maxwritten_clean",
        },
    ),
    *named(
        "pg_stat_bgwriter_",
        {
            "checkpoint_sync_time": "checkpoint_sync_time_seconds",
            "checkpoint_write_time": "checkpoint_write_time_seconds",
        },
        value=milliseconds,
    ),
    *named(
        "pg_stat_checkpointer_",
        {
            "buffers_written": "buffers_checkpoint",
            "num_requested": "checkpoints_requested",
            "num_timed": "checkpoints_timed",
            "restartpoints_done": "restartpoints_done",
            "restartpoints_req": "restartpoints_requested",
            "restartpoints_timed": "restartpoints_timed",
        },
    ),
    *named(
        "pg_stat_checkpointer_",
        {
            "sync_time": "checkpoint_sync_time_seconds",
            "write_time": "checkpoint_write_time_seconds",
        },
        value=milliseconds,
    ),
    *named(
        "pg_",
        {
            "replication_is_replica": "server_in_recovery",
            "stat_archiver_archived_count": "archived_segments",
            "stat_archiver_failed_count": "archive_failures",
            "stat_archiver_last_archive_age": "archive_age_seconds",
            "wal_segments": "wal_files",
            "wal_size_bytes": "wal_size_bytes",
        },
    ),
    *named("pg_", {"postmaster_start_time_seconds": STARTED}, within=0.5),
    # Replication.
    *named("pg_", {"replication_lag_seconds": "replay_delay_seconds"}, role="standby"),
    Pair(
        ("pg_stat_wal_receiver_received_tli",),
        "pgops_receiver_streaming",
        role="standby",
        value=lambda sample: float(sample.labels["status"] == "streaming"),
    ),
    *named(
        "pg_stat_replication_", {"pg_wal_lsn_diff": "replication_lag_bytes"}, labels={"standby": "application_name"}
    ),
    *named(
        "pg_replication_slot",
        {
            "s_active": "slot_active",
            "s_pg_wal_lsn_diff": "slot_retained_bytes",
            "_slot_is_active": "slot_active",
            "_safe_wal_size_bytes": "slot_safe_wal_bytes",
        },
        **BY_SLOT,
    ),
    *named(
        "pg_replication_slot",
        {"_wal_status": "slot_wal_status"},
        value=lambda sample: float(["reserved", "extended", "unreserved", "lost"].index(sample.labels["wal_status"])),
        **BY_SLOT,
    ),
    # Tables and indexes of the database where the exporter is connected.
    *named(
        "pg_stat_user_tables_",
        {
            "idx_scan": "table_index_scans",
            "idx_tup_fetch": "table_index_tuples_fetched",
            "seq_scan": "table_seq_scans",
            "seq_tup_read": "table_seq_tuples_read",
            "size_bytes": "table_size_bytes",
            "table_size_bytes+index_size_bytes": "table_size_bytes",
        },
        **BY_TABLE,
    ),
    *named(
        "pg_stat_user_tables_",
        {
            "analyze_count+autoanalyze_count": "table_analyzes",
            "vacuum_count+autovacuum_count": "table_vacuums",
            "n_dead_tup": "table_dead_tuples",
            "n_live_tup": "table_live_tuples",
            "n_mod_since_analyze": "table_tuples_since_analyze",
            "n_tup_del": "table_tuples_deleted",
            "n_tup_hot_upd": "table_tuples_hot_updated",
            "n_tup_ins": "table_tuples_inserted",
            "n_tup_upd": "table_tuples_updated",
        },
        **WRITTEN,
    ),
    # The exporter cuts off the part of a second.
    *named(
        "pg_stat_user_tables_",
        {
            "last_analyze": "table_last_analyze_timestamp_seconds",
            "last_autoanalyze": "table_last_autoanalyze_timestamp_seconds",
            "last_autovacuum": "table_last_autovacuum_timestamp_seconds",
            "last_vacuum": "table_last_vacuum_timestamp_seconds",
        },
        zero="ever",
        within=1.0,
        **BY_TABLE,
    ),
    *named(
        "pg_statio_user_tables_",
        {
            "heap_blocks_hit+idx_blocks_hit+tidx_blocks_hit+toast_blocks_hit": "table_blocks_hit",
            "heap_blocks_read+idx_blocks_read+tidx_blocks_read+toast_blocks_read": "table_blocks_read",
        },
        **BY_TABLE,
    ),
    *named(
        "pg_statio_user_indexes_",
        {"idx_blks_hit": "index_blocks_hit", "idx_blks_read": "index_blocks_read"},
        **BY_INDEX,
    ),
)

LEFT_OUT = {
    "pg_database_connection_limit": "a setting, which is no measurement",
    "pg_exporter_*": "the exporter's own",
    "pg_long_running_transactions": "counts the exporter's own; ours is the age of the longest",
    "pg_process_idle_seconds_*": "a histogram of idle sessions; ours are counted by state",
    "pg_replication_last_replay_seconds": "grows on an idle primary's standby: ours is replay_delay_seconds",
    "pg_replication_slot_slot_confirmed_flush_lsn": "a position; ours are distances",
    "pg_replication_slot_slot_current_wal_lsn": "a position; ours are distances",
    "pg_roles_connection_limit": "a setting, which is no measurement",
    "pg_scrape_*": "the exporter's own",
    "pg_settings_*": "settings are in the facts; ours are those that await a restart",
    "pg_stat_bgwriter_stats_reset": "kept with each counter, since when it counts",
    "pg_stat_checkpointer_stats_reset": "kept with each counter, since when it counts",
    "pg_stat_database_checksum_last_failure": "a time that says no more than the counter's change",
    "pg_stat_database_session_time": "sessions are counted by state at each time",
    "pg_stat_database_stats_reset": "kept with each counter, since when it counts",
    "pg_stat_replication_pg_current_wal_lsn_bytes": "a position; ours are distances, and wal_bytes",
    "pg_stat_replication_reply_time": "a time that is always now while the standby is connected",
    "pg_stat_wal_receiver_*": "positions, of which 0.17 and 0.19 give some under others' names; ours are distances",
    "pg_static": "the version, which is in the facts",
    "pg_up": "the exporter's own",
}


IDLE = {
    "archive_failures": "archiving works",
    "buffers_backend_fsync": "no checkpointer is that far behind",
    "buffers_clean": "shared_buffers is larger than what is used",
    "checkpoints_timed": "the servers are some minutes old",
    "checksum_failures": "no disk is damaged",
    "maxwritten_clean": "see buffers_clean",
    "multixact_age": "no row was locked by two",
    "replay_delay_seconds": "the standby has replayed everything",
    "replication_lag_bytes": "the standby has replayed everything",
    "restartpoints_timed": "the servers are some minutes old",
    "slot_wal_status": "0 stands for reserved",
    "table_last_autoanalyze_timestamp_seconds": "autovacuum is off",
    "table_last_autovacuum_timestamp_seconds": "autovacuum is off",
}
"""What is 0 on all servers, and why: that proves less. All else has to be more than 0 on one of them."""


def nameless(theirs: Iterable[Sample]) -> list[str]:
    """Metrics of the exporter's that nobody has decided about."""
    known = {name for pair in PAIRS for name in pair.theirs}
    names = {sample.name for sample in theirs if sample.name.startswith("pg_")} - known
    return sorted(name for name in names if not any(fnmatchcase(name, pattern) for pattern in LEFT_OUT))


def values(samples: Iterable[Sample], pair: Pair) -> dict[Key, float]:
    """The exporter's values of a pair, by the labels of ours."""
    found: dict[Key, list[float]] = {}
    for sample in samples:
        if sample.name in pair.theirs and pair.kept(sample.labels) and not math.isnan(sample.value):
            labels = {name: sample.labels.get(label, "") for name, label in pair.labels.items()}
            found.setdefault(key({**labels, **pair.given}), []).append(pair.value(sample))
    return {labels: pair.added(some) for labels, some in found.items()}


def own_values(samples: Iterable[Sample], pair: Pair) -> dict[Key, float]:
    """Our values of a pair, by the labels that it has."""
    found: dict[Key, list[float]] = {}
    for sample in samples:
        given = all(sample.labels.get(name) == value for name, value in pair.given.items())
        if sample.name == pair.ours and given:
            labels = {name: sample.labels.get(name, "") for name in [*pair.labels, *pair.given]}
            found.setdefault(key(labels), []).append(sample.value)
    return {labels: pair.added(some) for labels, some in found.items()}


def key(labels: Labels) -> Key:
    """Labels in order, with states of sessions and modes of locks by one name."""
    named_alike = {"mode": str.lower, "state": state}
    return tuple(sorted((name, named_alike.get(name, str)(value)) for name, value in labels.items()))


def differences(pair: Pair, before: Values, theirs: Values, after: Values, standby: bool) -> list[str]:
    """What is wrong with the values of a pair: theirs has to be what ours was before and after, or between them."""
    wrong = []
    for labels, value in theirs.items():
        ours = [values[labels] for values in (before, after) if labels in values]
        silent = value == 0 and pair.zero in (("standby", "ever") if standby else ("ever",))
        spare = max(pair.within, 1e-9 * abs(value))
        agree = len(ours) == 2 and min(ours) - spare <= value <= max(ours) + spare
        if not agree and not (silent and not ours):
            wrong.append(f"{pair.theirs[0]} {dict(labels)} is {value}; {pair.ours} was {ours or 'not there'}")
    return wrong


@dataclass
class Comparison:
    """What came of comparing one server: names that nobody knows, differences, and our metrics that were above 0."""

    nameless: list[str]
    wrong: list[str] = field(default_factory=list)
    compared: set[str] = field(default_factory=set)
    above_zero: set[str] = field(default_factory=set)


def compare(before: list[Sample], theirs: list[Sample], after: list[Sample], standby: bool) -> Comparison:
    """Compare all pairs on one server."""
    result = Comparison(nameless(theirs))
    first, second = derived(before), derived(after)
    for pair in PAIRS:
        if pair.role == "standby" and not standby:
            continue
        seen = values(theirs, pair)
        result.wrong += differences(pair, own_values(first, pair), seen, own_values(second, pair), standby)
        for name in pair.theirs if seen else ():
            result.compared.add(name)
        if any(seen.values()):
            result.above_zero.add(pair.ours.removeprefix("pgops_"))
    return result
