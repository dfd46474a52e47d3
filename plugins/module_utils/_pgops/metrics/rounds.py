# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rows of collectors made into samples, and samples into the rounds that are stored. Pure.

A round is a shape, which is a list of series that is written once, and an array of their values. Few long rounds take
much less space than many short ones, so all that was measured together at one place is one round. A shape that
changed with every run would cost more than its values: a series that has no value this time keeps its place.
"""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..server import encoding
from .collectors import COUNTED_SINCE, IDENTITY, LABELS, Collector

LONGEST = 200
"""The most values of one stored round: longer rows would be moved out of line (TOAST)."""

SLACK = 20
"""Number of places without a value that are always kept, whatever the number of series."""


@dataclass(frozen=True)
class Sample:
    """One value of one series, which is its metric's name and its labels as JSON, and for a counter the identity of
    what it counts, where that is known.

    ``counted_since`` is ISO 8601, '-' for a gauge, or if unknown. ``keep_days`` is 0 for the default retention.
    """

    series: str
    value: float
    counted_since: str = "-"
    keep_days: int = 0


@dataclass(frozen=True)
class Round:
    """What was measured at one place in one run, as it is stored: series and values stand in the same order.

    ``collected_at`` is ISO 8601 with an offset; ``origin`` identifies the reset from which counters count.
    """

    place: str
    collected_at: str
    origin: str
    series: tuple[str, ...]
    values: tuple[float | None, ...]

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the series, as hex: the name of the shape."""
        return hashlib.sha256("\n".join(self.series).encode()).hexdigest()

    @property
    def samples(self) -> int:
        """How many values there are."""
        return sum(value is not None for value in self.values)

    def halves(self) -> tuple[Round, Round]:
        """Both halves of a round of several series."""
        middle = len(self.series) // 2
        first, second = slice(0, middle), slice(middle, None)
        return self._part(first), self._part(second)

    def _part(self, part: slice) -> Round:
        return Round(self.place, self.collected_at, self.origin, self.series[part], self.values[part])


Shapes = dict[str, dict[str, list[list[str]]]]
"""The series of each place's last rounds, by the time since which their values count."""


def place(interval: int, database: str = "", keep_days: int = 0) -> str:
    """The name of all that is measured together, with the same interval in seconds, in the instance or one of its
    databases, and with the same retention."""
    return f"{kind(interval, keep_days)} {database}"


def kind(interval: int, keep_days: int) -> str:
    """The first part of the names of places."""
    return f"{interval}/{keep_days}"


def kind_of(name: str) -> str:
    """The first part of a place's name."""
    return name.partition(" ")[0]


def database_of(name: str) -> str:
    """The database of a place, '' for the instance."""
    return name.partition(" ")[2]


def samples(
    collector: Collector, rows: Iterable[Mapping[str, Any]], retention: Mapping[str, int] | None = None
) -> list[Sample]:
    """The samples of a run's rows; see told_apart()."""
    return told_apart(collector, rows, retention)[0]


def told_apart(
    collector: Collector,
    rows: Iterable[Mapping[str, Any]],
    retention: Mapping[str, int] | None = None,
    database: int | None = None,
) -> tuple[list[Sample], list[str]]:
    """The samples of a run's rows, and the series that are left out, since nothing tells the rows apart that have
    them. ``retention`` is in days, by metric, if it is not the default; ``database`` is the OID of the database that
    the rows are of.

    Raises ValueError, TypeError or ArithmeticError for a value that is not a number.
    """
    counters = {metric.name for metric in collector.metrics if metric.kind == "counter"}
    found: dict[tuple[str, ...], list[Sample]] = {}
    for row in rows:
        labels = _labels(row, collector)
        since = str(row.get(COUNTED_SINCE) or "-")
        identity = _identity(row, database)
        for metric in collector.metrics:
            if row.get(metric.name) is None:
                continue
            counts = metric.name in counters
            own = {IDENTITY: identity} if counts and identity else {}
            series = json.dumps({"metric": metric.name, **labels, **own}, sort_keys=True)
            keep_days = (retention or {}).get(metric.name, 0)
            sample = Sample(series, float(row[metric.name]), since if counts else "-", keep_days)
            found.setdefault(_told_apart_by(metric.name, labels, own.get(IDENTITY, "")), []).append(sample)
    single = [some[0] for some in found.values() if len(some) == 1]
    return single, [some[0].series for some in found.values() if len(some) > 1]


def _identity(row: Mapping[str, Any], database: int | None) -> str:
    """The identity of what a row's counters are of: its own, and before it that of its database."""
    parts = (database, row.get(IDENTITY))
    return "/".join(encoding.readable(str(part)) for part in parts if part is not None)


def _told_apart_by(metric: str, labels: Mapping[str, Any], identity: str) -> tuple[str, ...]:
    """What no two series of a run share: what has an identity can change its name (see pgops.sample_steps())."""
    names = () if "/" in identity else tuple(labels.get(name, "") for name in ("schema", "table", "index"))
    database = "" if identity else labels.get("database", "")
    return (metric, identity, database, *names, json.dumps(labels.get("other", {}), sort_keys=True))


def _labels(row: Mapping[str, Any], collector: Collector) -> dict[str, Any]:
    known = {COUNTED_SINCE, IDENTITY, *(metric.name for metric in collector.metrics)}
    present = {key: value for key, value in row.items() if key not in known and value is not None}
    present = encoding.all_readable(present)
    other = {key: value for key, value in present.items() if key not in LABELS}
    named = {key: str(value) for key, value in present.items() if key in LABELS}
    return {**named, "other": other} if other else named


def packed(where: str, found: Iterable[Sample], collected_at: str, marker: str, shapes: Shapes) -> list[Round]:
    """The rounds of what was measured at one place in one run. ``shapes`` gets their series for the next one.

    ``marker`` changes if the server has lost its statistics.
    """
    values: dict[str, dict[str, float]] = {}
    for sample in found:
        values.setdefault(sample.counted_since, {})[sample.series] = sample.value
    known = shapes.get(where, {})
    # Statistics that were reset count since another time: shapes of the time before are no longer needed.
    shapes[where] = {since: fitted(known.get(since, []), present) for since, present in sorted(values.items())}
    return [
        Round(where, collected_at, f"{marker} {since}", tuple(series), tuple(map(values[since].get, series)))
        for since, parts in shapes[where].items()
        for series in parts
        if not values[since].keys().isdisjoint(series)
    ]


def fitted(known: Sequence[Sequence[str]], present: Iterable[str]) -> list[list[str]]:
    """The series of a place's rounds: known ones keep their places, new ones are appended.

    All are new if more than half of the places would have no value.
    """
    wanted = set(present)
    before = {series for part in known for series in part}
    if len(before | wanted) > 2 * len(wanted) + SLACK:
        known, before = [], set()
    parts = [list(part) for part in known]
    for series in sorted(wanted - before):
        if not parts or len(parts[-1]) >= LONGEST:
            parts.append([])
        parts[-1].append(series)
    return parts


def iso(moment: float) -> str:
    """A Unix time as ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).isoformat()
