# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The newest values in Prometheus' text format (https://prometheus.io/docs/instrumenting/exposition_formats/).

Names follow https://prometheus.io/docs/practices/naming/ and the checks of promtool. Pure: runs in, text out.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from .collectors import Metric
from .latest import Run

PREFIX = "pgops_"
COLLECTED = Metric(
    "collected_timestamp",
    "s",
    help="Time of the last successful run of a collector, in Unix time; the oldest, if it runs in several databases.",
)


@dataclass(frozen=True)
class Base:
    """The base unit of a unit: its word, the words that it replaces, and the factors ``times`` and ``per``
    (divisor)."""

    word: str
    others: frozenset[str]
    times: float = 1
    per: float = 1


UNITS = {
    "us": Base("seconds", frozenset({"us", "microseconds", "seconds"}), per=1_000_000),
    "ms": Base("seconds", frozenset({"ms", "milliseconds", "seconds"}), per=1000),
    "s": Base("seconds", frozenset({"s", "sec", "seconds"})),
    "min": Base("seconds", frozenset({"min", "minutes", "seconds"}), times=60),
    "h": Base("seconds", frozenset({"h", "hours", "seconds"}), times=3600),
    "d": Base("seconds", frozenset({"d", "days", "seconds"}), times=86400),
    "bytes": Base("bytes", frozenset({"bytes"})),
    "B": Base("bytes", frozenset({"b", "bytes"})),
    "kB": Base("bytes", frozenset({"kb", "kilobytes", "bytes"}), times=1024),
    "MB": Base("bytes", frozenset({"mb", "megabytes", "bytes"}), times=1024**2),
    "GB": Base("bytes", frozenset({"gb", "gigabytes", "bytes"}), times=1024**3),
    "TB": Base("bytes", frozenset({"tb", "terabytes", "bytes"}), times=1024**4),
    "%": Base("ratio", frozenset({"percent", "pct", "ratio"}), per=100),
}
"""By the units of metrics; any other is as it is, like count."""

TYPES = frozenset({"gauge", "counter", "histogram", "summary"})
"""Words that promtool refuses in names."""
ENDINGS = frozenset({"total", "count", "bucket", "sum"})
"""Words that a name may not end with, but for counters' ``total``."""
MOMENTS = frozenset({"timestamp", "at"})
SHARED = "pgops_metric"
"""The label that tells metrics of one exported name apart."""
RESERVED = frozenset({"cluster", "node", "instance", "job", "le", "quantile", SHARED})
"""Labels that are ours, that Prometheus sets when it scrapes, or that have a meaning for it."""

Labels = tuple[tuple[str, str], ...]


@dataclass
class Family:
    """All series of one name, with their common description."""

    name: str
    metric: Metric
    series: dict[Labels, float] = field(default_factory=dict)

    def lines(self) -> list[str]:
        """HELP, TYPE and the series in the order of their labels."""
        described = self.metric.help or f"The metric {self.metric.name} of pgops.fleet."
        head = [f"# HELP {self.name} {escaped(described, quoted=False)}", f"# TYPE {self.name} {self.metric.kind}"]
        return head + [
            f"{self.name}{{{_listed(labels)}}} {number(value)}" for labels, value in sorted(self.series.items())
        ]


def exported_name(metric: Metric) -> str:
    """The name of a metric for Prometheus: prefix, base unit, ``_total`` for counters.

    A time in Unix seconds, which is a metric in s whose name has the word ``last``, or ends in ``timestamp`` or
    ``at``, becomes ``_timestamp_seconds``.
    """
    base = UNITS.get(metric.unit)
    words = [word for word in metric.name.split("_") if word and word not in TYPES]
    moment = metric.unit == "s" and "seconds" not in words and ("last" in words or (words and words[-1] in MOMENTS))
    if base:
        words = [word for word in words if word not in base.others]
    while words and words[-1] in (ENDINGS | MOMENTS if moment else ENDINGS):
        words.pop()
    words += ["timestamp"] if moment else []
    words += [base.word] if base else []
    words += ["total"] if metric.kind == "counter" else []
    return PREFIX + ("_".join(words) or "value")


def exported_value(metric: Metric, value: float) -> float:
    """A value in the base unit."""
    base = UNITS.get(metric.unit)
    return value * base.times / base.per if base else value


def exposition(metrics: Iterable[Metric], runs: Iterable[Run], cluster: str, node: str) -> str:
    """The text: families in the order of their names, no series twice, '' if there is none.

    If metrics get the same name, as a size in MB and one in bytes, the label ``pgops_metric`` distinguishes them.
    If two runs have the same series, the newer counts; series of metrics not in ``metrics`` are left out.
    """
    named = {metric.name: metric for metric in (*metrics, COLLECTED)}
    shared = _shared(named.values())
    newest_first = sorted(runs, key=lambda run: (-run.collected_at, run.collector, run.database))
    families: dict[str, Family] = {}
    for metric_name, labels, value in _samples(newest_first):
        metric = named.get(metric_name)
        if metric is None:
            continue
        name = exported_name(metric)
        own = {"cluster": cluster, "node": node, **({SHARED: metric_name} if name in shared else {})}
        family = families.setdefault(name, Family(name, shared.get(name, metric)))
        family.series.setdefault(_labels(own, labels), exported_value(metric, value))
    return "".join(f"{line}\n" for name in sorted(families) for line in families[name].lines())


def names(metrics: Iterable[Metric]) -> dict[str, tuple[str, bool]]:
    """By the names of metrics that are exported together, their exported names, and whether several share that."""
    named = {metric.name: metric for metric in (*metrics, COLLECTED)}
    shared = _shared(named.values())
    exported = {name: exported_name(metric) for name, metric in named.items()}
    return {name: (other, other in shared) for name, other in exported.items()}


def _shared(metrics: Iterable[Metric]) -> dict[str, Metric]:
    """The names that several metrics share, with the one whose help is shown."""
    first: dict[str, Metric] = {}
    shared: dict[str, Metric] = {}
    for metric in sorted(metrics, key=lambda metric: metric.name):
        name = exported_name(metric)
        if first.setdefault(name, metric) is not metric:
            shared[name] = first[name]
    return shared


def _samples(runs: Iterable[Run]) -> Iterable[tuple[str, Mapping[str, Any], float]]:
    """The metric's name, the labels and the value of all samples, and each collector's time."""
    oldest: dict[str, float] = {}
    for run in runs:
        oldest[run.collector] = min(run.collected_at, oldest.get(run.collector, run.collected_at))
        for series, value in run.samples:
            labels = json.loads(series)
            metric, other = labels.pop("metric"), labels.pop("other", {})
            yield metric, {**other, **labels}, value
    for collector, moment in oldest.items():
        yield COLLECTED.name, {"collector": collector}, moment


def _labels(own: Mapping[str, str], found: Mapping[str, Any]) -> Labels:
    taken = {name: _shown(value) for name, value in own.items()}
    for key in sorted(found):
        name = label_name(key)
        while name in taken:
            name += "_"
        taken[name] = _shown(found[key])
    return tuple(sorted(taken.items()))


def label_name(key: str) -> str:
    """A column's name as a label: letters, digits, underscores. One that is reserved gets the prefix ``pgops_``."""
    name = re.sub(r"[^a-zA-Z0-9_]", "_", key)
    # Two leading underscores are reserved by Prometheus; another one may follow to distinguish two labels.
    return PREFIX + name if name in RESERVED or not re.match(r"[a-zA-Z]", name) else name


def _shown(value: Any) -> str:
    """A label's value. To Prometheus an empty label does not exist, which would be another series of ours."""
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text.encode("utf-8", "replace").decode() or "(empty)"


def _listed(labels: Labels) -> str:
    return ",".join(f'{name}="{escaped(value)}"' for name, value in labels)


def escaped(text: str, quoted: bool = True) -> str:
    """A label's value, or an unquoted help text, with what would end it escaped."""
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quoted else text


def number(value: float) -> str:
    """A value as Go's ParseFloat accepts it; whole numbers without a fraction as long as they are exact."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) and abs(value) < 2**53 else repr(value)
