# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The charts of an instance: which metrics each draws, and how. Data only; docs/reports.md shows them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

AVERAGE, MAXIMUM = "average", "maximum"
MOST_LINES = 6
"""Of one metric, the largest ones; the others are added up, or the largest of them is drawn."""


@dataclass(frozen=True)
class Line:
    """A metric in a chart: a gauge by its values, a counter by its rate per second.

    ``by`` is the label that tells its lines apart, '' for one line of all. ``take`` is what a step of time shows of a
    gauge; series that share a line are added up, or with MAXIMUM the largest counts.
    """

    metric: str
    name: str
    by: str = ""
    take: str = AVERAGE
    summed: bool = True


@dataclass(frozen=True)
class Chart:
    """Some lines of one unit, and the metric whose thresholds are drawn in."""

    key: str
    title: str
    unit: str
    lines: tuple[Line, ...]
    thresholds: str = ""


def _worst(metric: str, name: str, by: str = "") -> Line:
    """The worst value of a step, and the worst series of a line."""
    return Line(metric, name, by, MAXIMUM, summed=False)


CHARTS = (
    Chart(
        "transactions",
        "Transactions",
        "/s",
        (Line("transactions_committed", "committed"), Line("transactions_rolled_back", "rolled back")),
    ),
    Chart("sessions", "Sessions by state", "", (Line("connections", "sessions", "state"),)),
    Chart(
        "connections",
        "Connections used",
        "%",
        (_worst("connections_used_percent", "used"),),
        "connections_used_percent",
    ),
    Chart(
        "locks",
        "Sessions that wait for locks",
        "",
        (Line("blocked_sessions", "waiting", take=MAXIMUM), Line("blocking_sessions", "blocking", take=MAXIMUM)),
    ),
    Chart(
        "longest",
        "Longest transactions",
        "s",
        (
            _worst("longest_transaction_seconds", "transaction"),
            _worst("longest_idle_in_transaction_seconds", "idle in transaction"),
            _worst("longest_lock_wait_seconds", "wait for a lock"),
        ),
        "longest_transaction_seconds",
    ),
    Chart("blocks", "Blocks", "/s", (Line("blocks_hit", "in cache"), Line("blocks_read", "read"))),
    Chart(
        "rows",
        "Rows changed",
        "/s",
        (
            Line("tuples_inserted", "inserted"),
            Line("tuples_updated", "updated"),
            Line("tuples_deleted", "deleted"),
        ),
    ),
    Chart("temp", "Temporary files", "B/s", (Line("temp_bytes", "written", "database"),)),
    Chart("sizes", "Sizes of databases", "MB", (Line("database_size_mb", "size", "database", MAXIMUM),)),
    Chart(
        "disks",
        "Disks used",
        "%",
        (_worst("disk_used_percent", "used", "disk"),),
        "disk_used_percent",
    ),
    Chart("wal", "WAL written", "B/s", (Line("wal_bytes", "WAL"),)),
    Chart(
        "checkpoints",
        "Checkpoints",
        "/s",
        (Line("checkpoints_timed", "timed"), Line("checkpoints_requested", "requested")),
    ),
    Chart(
        "archive",
        "WAL files that wait to be archived",
        "",
        (_worst("archive_ready_segments", "waiting"),),
        "archive_ready_segments",
    ),
    Chart("lag", "WAL that standbys have not replayed", "B", (_worst("replication_lag_bytes", "lag", "standby"),)),
    Chart(
        "replay",
        "Delay of replay",
        "s",
        (_worst("replay_delay_seconds", "delay"),),
        "replay_delay_seconds",
    ),
    Chart("slots", "WAL that slots retain", "B", (_worst("slot_retained_bytes", "retained", "slot"),)),
    Chart(
        "wraparound",
        "Transaction ids used",
        "%",
        (
            _worst("xid_wraparound_percent", "transactions"),
            _worst("multixact_wraparound_percent", "multixacts"),
        ),
        "xid_wraparound_percent",
    ),
    Chart("backups", "Age of the newest good backup", "s", (_worst("backup_age_seconds", "age", "backup_type"),)),
    Chart("cost", "Time of the agent's jobs", "ms", (_worst("job_duration_ms", "job", "job"),)),
)


def lines() -> Iterator[tuple[str, Line]]:
    """Each line of all charts, with the key of its chart."""
    for chart in CHARTS:
        for line in chart.lines:
            yield chart.key, line
