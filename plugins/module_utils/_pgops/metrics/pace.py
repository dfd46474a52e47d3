# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How often a collector runs, and in which order databases come: what is slow slows down itself, and nothing else.
Pure.

A collector that runs inside databases may take a small share of its interval in all of them together. Databases in
which it needs more than what there is for each (fairness.level) are slowed down, until all of them fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .. import fairness
from .collectors import SHARE, Collector, due, slowed
from .history import Runs, key, name_of
from .rounds import database_of

Places = list[tuple[str, list[Collector]]]
"""Databases, each with the collectors that are to run in it."""


@dataclass(frozen=True)
class Pace:
    """The pace of collectors: ``known`` are, by name, those that have run before as they run now, by database ('' for
    those of the instance)."""

    runs: Runs
    known: Mapping[str, Mapping[str, Collector]]

    def of(self, collector: Collector, database: str = "") -> Collector:
        """A collector as it runs now, in a database."""
        return self.known.get(collector.name, {}).get(database, collector)

    def quickest(self, collector: Collector) -> Collector:
        """A collector as it runs where it runs most often."""
        return min(self._all(collector), key=lambda one: one.interval)

    def longest(self, collector: Collector) -> int:
        """The longest interval of a collector, in seconds."""
        return max(one.interval for one in self._all(collector))

    def intervals(self, collector: Collector) -> set[int]:
        """All intervals of a collector, in seconds; its usual one is one of them."""
        return {collector.interval, *(one.interval for one in self._all(collector))}

    def _all(self, collector: Collector) -> list[Collector]:
        return list(self.known.get(collector.name, {}).values()) or [collector]

    def places(self, names: Sequence[str], found: Sequence[Collector], now: float) -> Places:
        """The databases in which some collectors, of scope database, are due at ``now`` (Unix time), each with those.

        Databases that were left out come first, and then the quick ones: each leaves what it does not need of its
        share of the time to those that follow. In a database, too, the quick collectors come first.
        """
        places = [(name, self._due(name, found, now)) for name in names]
        return sorted((one for one in places if one[1]), key=self._order)

    def _order(self, place: tuple[str, Sequence[Collector]]) -> tuple[bool, float]:
        name, some = place
        return name not in self.runs.left_out, sum(self._expected(one, name) for one in some)

    def _due(self, name: str, found: Sequence[Collector], now: float) -> list[Collector]:
        here = [self.of(one, name) for one in found if one.looks_into(name)]
        chosen = [one for one in here if due(one, now, self.runs.last.get(key(one.name, name)))]
        return sorted(chosen, key=lambda one: self._expected(one, name))

    def _expected(self, collector: Collector, database: str) -> float:
        """How many seconds it took there last."""
        return [0.0, *self.runs.seconds.get(key(collector.name, database), [])][-1]


def paced(found: Sequence[Collector], runs: Runs) -> Pace:
    """The pace of collectors after some runs."""
    durations: dict[str, dict[str, list[float]]] = {}
    for where, seconds in runs.seconds.items():
        if seconds:
            durations.setdefault(name_of(where), {})[database_of(where)] = seconds
    return Pace(runs, {one.name: _paced(one, durations.get(one.name, {})) for one in found})


def _paced(collector: Collector, durations: Mapping[str, Sequence[float]]) -> dict[str, Collector]:
    # What an earlier version measured has no database.
    here = {name: some for name, some in durations.items() if bool(name) == (collector.scope == "database")}
    most = fairness.level((min(some) / collector.interval for some in here.values()), SHARE)
    return {name: slowed(collector, some, most) for name, some in here.items()}
