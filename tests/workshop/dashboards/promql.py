# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Expressions over the metrics that `pgops export` writes, for Grafana's Prometheus data source. Pure: texts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import prometheus as builders
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from pgops.metrics import exposition
from pgops.metrics.collectors import Metric
from pgops.reports.charts import MAXIMUM, Line

KIND = "prometheus"
BY_NODE = "node"
ONE_NODE = 'cluster="$cluster",node="$node"'
EVERY_NODE = 'cluster=~"$clusters"'
MOST_LINES = 20
RANGE = "[$__rate_interval]"


@dataclass(frozen=True)
class Names:
    """What metrics are called in Prometheus."""

    metrics: Mapping[str, Metric]

    def select(self, name: str, where: str) -> str:
        """The series of a metric of which the matchers ``where`` hold."""
        exported, shared = exposition.names(self.metrics.values())[name]
        own = f'{exposition.SHARED}="{name}",' if shared else ""
        return f"{exported}{{{own}{where}}}"

    def series(self, line: Line, where: str = ONE_NODE) -> str:
        """A line of a chart over time, in the base unit: a gauge by its values, a counter by its rate per second."""
        selected = self.select(line.metric, where) + RANGE
        if self.metrics[line.metric].kind == "counter":
            fold, value = "sum", f"rate({selected})"
        else:
            fold = "sum" if line.summed else "max"
            value = f"{'max' if line.take == MAXIMUM else 'avg'}_over_time({selected})"
        return f"topk({MOST_LINES}, {folded(fold, label(line), value)})" if line.by else folded(fold, "", value)


def label(line: Line) -> str:
    """The label that tells the lines of a metric apart, '' where there is one line only."""
    return line.by if line.by in ("", BY_NODE) else exposition.label_name(line.by)


def folded(fold: str, by: str, value: str) -> str:
    """Series that share a label's value as one."""
    return f"{fold} by ({by}) ({value})" if by else f"{fold}({value})"


def target(expression: str, ref: str = "A", legend: str = "") -> Any:
    """A query of a chart."""
    query = builders.Dataquery().expr(expression).ref_id(ref).range()
    return query.legend_format(legend) if legend else query


def now(expression: str, ref: str = "A", legend: str = "") -> Any:
    """A query of what is true now, as numbers or as bars."""
    query = builders.Dataquery().expr(expression).ref_id(ref).instant()
    return query.legend_format(legend) if legend else query


def row(expression: str, ref: str = "A") -> Any:
    """A query of a table."""
    return now(expression, ref).format(PromQueryFormat.TABLE)


def drawn(line: Line, expression: str, ref: str) -> Any:
    """A line of a chart with its name."""
    return target(expression, ref, f"{{{{{label(line)}}}}}" if line.by else line.name)


# --- alerts, of the rule file that pgops_prometheus_rules_directory asks for

FIRING = 'ALERTS{alertstate="firing",cluster=~"$clusters"}'
FIRING_BY_SEVERITY = (
    'count by (severity) (ALERTS{alertstate="firing",cluster=~"$clusters",severity=~"warning|critical"})'
)
ALERT_LINES = """\
max by (alertname, cluster, node) (
  2 * ALERTS{alertstate="firing",cluster=~"$clusters",severity="critical"}
  or ignoring (severity) ALERTS{alertstate="firing",cluster=~"$clusters",severity="warning"}
)
"""
