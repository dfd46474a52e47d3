# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The charts of an instance, which are those of reports (pgops.reports.charts), as panels for both data sources."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any

from pgops.metrics import exposition
from pgops.metrics.collectors import Collector, Metric
from pgops.reports.charts import AVERAGE, MAXIMUM, Chart, Line

from . import drawing, promql, sql
from .drawing import Frame, Limits, limits_of

UNITS = {
    "": "short",
    "/s": "suffix:/s",
    "%": "percent",
    "s": "s",
    "ms": "ms",
    "B": "bytes",
    "MB": "mbytes",
    "B/s": "binBps",
}
"""Grafana's names of the units of charts."""
BASE_UNITS = {"%": "percentunit", "ms": "s", "MB": "bytes"}
"""Those of values that Prometheus has in their base unit."""
LONGEST = 86400
"""Seconds: the longest step that a chart asks for by itself."""

WAITS = Chart(
    "waits", "Sessions by what they wait for", "", (Line("waiting_sessions", "sessions", "wait_event_type"),)
)
BUSY = Chart("busy", "Time of running statements, per second", "ms", (Line("active_time_ms", "time", "database"),))
LONGEST_STATEMENT = Chart(
    "statement",
    "Longest statement",
    "s",
    (Line("longest_statement_seconds", "statement", "", MAXIMUM, summed=False),),
)
CACHE = Chart("cache", "Blocks read from the operating system", "/s", (Line("blocks_read", "read", "database"),))
TEMP = Chart("temp", "Temporary files", "B/s", (Line("temp_bytes", "written", "database"),))
COVERAGE = Chart(
    "coverage",
    "Time of statements that is known",
    "%",
    (Line("query_coverage_percent", "coverage", "", AVERAGE, summed=False),),
)
EVICTED = Chart(
    "evicted", "Times that pg_stat_statements dropped statements", "/s", (Line("statements_evicted", "dropped"),)
)
QUERIES = (BUSY, WAITS, LONGEST_STATEMENT, CACHE, TEMP, COVERAGE, EVICTED)
"""Charts of the load that queries make."""

BACKUP_AGE = Chart(
    "backups",
    "Age of the newest good backup",
    "s",
    (Line("backup_age_seconds", "age", "backup_type", MAXIMUM, summed=False),),
)
REPOSITORY = Chart(
    "repository", "Size of the repository", "MB", (Line("repository_size_mb", "stored", "", MAXIMUM, summed=False),)
)
TIME_TO_RECOVER = Chart(
    "recovery",
    "Predicted time of a restore",
    "s",
    (
        Line("recovery_time_seconds", "all of it", "", MAXIMUM, summed=False),
        Line("recovery_time_guessed_seconds", "not measured yet", "", MAXIMUM, summed=False),
    ),
)
WINDOW = Chart(
    "window",
    "Length of the recovery window",
    "s",
    (Line("recovery_window_seconds", "window", "", MAXIMUM, summed=False),),
)
WAITING_WAL = Chart(
    "archive",
    "WAL files that wait to be archived",
    "",
    (Line("archive_ready_segments", "waiting", "node", MAXIMUM, summed=False),),
    "archive_ready_segments",
)
FAILURES = Chart("failures", "Failures of archiving", "/s", (Line("archive_failures", "failures", "node"),))
RECOVERY = (BACKUP_AGE, REPOSITORY, TIME_TO_RECOVER, WINDOW, WAITING_WAL, FAILURES)
"""Charts of backups and WAL, of all nodes of a cluster together."""

FLEET = (
    Chart("transactions", "Transactions", "/s", (Line("transactions_committed", "committed", "node"),)),
    Chart(
        "connections",
        "Connections used",
        "%",
        (Line("connections_used_percent", "used", "node", MAXIMUM, summed=False),),
        "connections_used_percent",
    ),
    Chart(
        "disks",
        "Fullest disk",
        "%",
        (Line("disk_used_percent", "used", "node", MAXIMUM, summed=False),),
        "disk_used_percent",
    ),
    Chart(
        "replay",
        "Delay of replay",
        "s",
        (Line("replay_delay_seconds", "delay", "node", MAXIMUM, summed=False),),
        "replay_delay_seconds",
    ),
)
"""Charts with a line for each node."""


class Charts:
    """The panels of charts for one installation: with its metrics, and the intervals of their collectors."""

    def __init__(self, collectors: Sequence[Collector]) -> None:
        self.metrics: Mapping[str, Metric] = {one.name: one for found in collectors for one in found.metrics}
        self.names = promql.Names(self.metrics)
        self._interval = {one.name: found.interval for found in collectors for one in found.metrics}

    def postgresql(self, chart: Chart, nodes: str = sql.ONE_NODE, span: int = 12) -> Any:
        """A chart of samples in the ops database."""
        frame = Frame(chart.title, UNITS[chart.unit], span, text=self._helped(chart), limits=self._limits(chart))
        queries = [sql.series(line, self.metrics[line.metric], nodes) for line in chart.lines]
        targets = [sql.target(text, ref) for ref, text in zip(string.ascii_uppercase, queries)]
        return drawing.chart(frame, sql.KIND, targets, self._least(chart))

    def prometheus(self, chart: Chart, where: str = promql.ONE_NODE, span: int = 12) -> Any:
        """The same of what is exported, in base units."""
        unit = BASE_UNITS.get(chart.unit, UNITS[chart.unit])
        known = self._limits(chart)
        limits = self._in_base_unit(chart.thresholds, known) if chart.thresholds else known
        frame = Frame(chart.title, unit, span, text=self._helped(chart), limits=limits)
        targets = [
            promql.drawn(line, self.names.series(line, where), ref)
            for ref, line in zip(string.ascii_uppercase, chart.lines)
        ]
        return drawing.chart(frame, promql.KIND, targets, "1m")

    def _limits(self, chart: Chart) -> Limits:
        return limits_of(self.metrics[chart.thresholds]) if chart.thresholds else Limits()

    def _in_base_unit(self, metric: str, limits: Limits) -> Limits:
        def based(value: float | None) -> float | None:
            return None if value is None else exposition.exported_value(self.metrics[metric], value)

        return Limits(based(limits.warning), based(limits.critical), limits.below)

    def _helped(self, chart: Chart) -> str:
        """What the metrics of a chart say of themselves."""
        return "\n\n".join(f"{line.metric}: {self.metrics[line.metric].help}" for line in chart.lines)

    def _least(self, chart: Chart) -> str:
        """The shortest step in which each collector has run for certain: two of its intervals."""
        seconds = min(LONGEST, 2 * max(self._interval[line.metric] for line in chart.lines))
        return f"{-(-seconds // 60)}m"
