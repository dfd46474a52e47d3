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

from ..errors import InvalidInput
from .collectors import COUNTED_SINCE, LABELS, Collector

LONGEST = 200
"""The most values of one stored round: longer rows would be moved out of line (TOAST)."""

SLACK = 20
"""Number of places without a value that are always kept, whatever the number of series."""


@dataclass(frozen=True)
class Sample:
    """One value of one series, which is its metric's name and its labels as JSON.

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
    """The samples of a run's rows. ``retention`` is in days, by metric, if it is not the default.

    Raises InvalidInput if two rows have the same labels, and ValueError, TypeError or ArithmeticError for a value
    that is not a number.
    """
    counters = {metric.name for metric in collector.metrics if metric.kind == "counter"}
    found: dict[str, Sample] = {}
    for row in rows:
        labels = _labels(row, collector)
        since = str(row.get(COUNTED_SINCE) or "-")
        for metric in collector.metrics:
            if row.get(metric.name) is None:
                continue
            series = json.dumps({"metric": metric.name, **labels}, sort_keys=True)
            if series in found:
                raise InvalidInput(f"{collector.name} returns two rows with the same labels {labels}.")
            counted_since = since if metric.name in counters else "-"
            keep_days = (retention or {}).get(metric.name, 0)
            found[series] = Sample(series, float(row[metric.name]), counted_since, keep_days)
    return list(found.values())


def _labels(row: Mapping[str, Any], collector: Collector) -> dict[str, Any]:
    known = {COUNTED_SINCE, *(metric.name for metric in collector.metrics)}
    present = {key: value for key, value in row.items() if key not in known and value is not None}
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
