# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a collection knows of previous ones: when each collector ran, how long it took, the shapes of rounds."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from ..errors import HostFailed
from ..host.files import File, exclusive, write
from .rounds import Shapes, database_of, kind, kind_of

FORMAT = 4
REMEMBERED = 3
"""Number of durations kept for each collector."""


@dataclass(frozen=True)
class Cost:
    """How long some runs of a collector took in total, in seconds, and in how many databases they failed."""

    runs: int = 0
    seconds: float = 0.0
    errors: int = 0

    @property
    def mean(self) -> float | None:
        """Average duration in seconds; None without runs."""
        return self.seconds / self.runs if self.runs else None


@dataclass
class Runs:
    """``last`` is when each collector last ran, in Unix time, and when it last ran in each database; ``seconds`` the
    durations of its last runs there, the newest last; both by key(). ``left_out`` are the databases for which there
    was no time. ``shapes`` are the series of each place; ``costs`` the costs of runs that were not reported yet.
    ``started`` is when this process last ran all that was due; it is not stored."""

    last: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    shapes: Shapes = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    left_out: set[str] = field(default_factory=set)
    started: float = field(default=0.0, compare=False)

    def note(self, spent: Mapping[str, float], failed: Mapping[str, int]) -> None:
        """Record how long collectors took in one run, in seconds by key(), and in how many databases they failed, by
        name."""
        took: dict[str, float] = {}
        for where, seconds in spent.items():
            self.seconds[where] = [*self.seconds.get(where, []), round(seconds, 4)][-REMEMBERED:]
            took[name_of(where)] = took.get(name_of(where), 0.0) + seconds
        for name in {*took, *failed}:
            cost = self.costs.get(name, Cost())
            total, errors = cost.seconds + took.get(name, 0.0), cost.errors + failed.get(name, 0)
            self.costs[name] = Cost(cost.runs + (name in took), total, errors)

    def ran_by(self, moment: float) -> None:
        """Treat each collector as one that ran no earlier than ``moment`` (Unix time), when all that was due was
        run."""
        self.last = {name: max(last, moment) for name, last in self.last.items()}

    def reported(self) -> dict[str, Cost]:
        """The costs of runs since the previous call."""
        costs, self.costs = self.costs, {}
        return costs

    def forget_others(self, intervals: Iterable[int], days: Iterable[int]) -> None:
        """Delete the shapes of other intervals than these, and of other retentions (``days``)."""
        kept = {kind(interval, one) for interval in intervals for one in days}
        self.shapes = {name: found for name, found in self.shapes.items() if kind_of(name) in kept}

    def forget(self, databases: Iterable[str]) -> None:
        """Delete what is known of all databases except these."""
        kept = {*databases, ""}
        self.shapes = {name: found for name, found in self.shapes.items() if database_of(name) in kept}
        self.last = {where: last for where, last in self.last.items() if database_of(where) in kept}
        self.seconds = {where: some for where, some in self.seconds.items() if database_of(where) in kept}
        self.left_out &= kept


def key(collector: str, database: str = "") -> str:
    """The name of a collector's runs in a database, '' for those of the instance, or of all databases."""
    return f"{collector} {database}" if database else collector


def name_of(where: str) -> str:
    """The collector of a key."""
    return where.partition(" ")[0]


@dataclass
class Memory:
    """``path``.json, in which collections of one kind store what the next one needs, and ``path``.lock, which only
    one of them holds at a time; ``patience`` is how many seconds another one waits for it. ``errors`` are those of
    writing.

    A process that collects several times need not write each time: until then it uses what it has in memory, unless
    another process wrote meanwhile.
    """

    path: str
    patience: float = 0
    errors: list[str] = field(default_factory=list)
    _found: Runs | None = None
    _seen: tuple[int, int] | None = None

    @contextlib.contextmanager
    def held(self, writes: bool = True) -> Iterator[Runs]:
        """What is known of previous runs; it is written at the end unless something fails.

        Raises Busy if another collection takes too long, and HostFailed.
        """
        with exclusive(f"{self.path}.lock", self.patience):
            if self._found is None or self._seen != self._identity():
                self._found = load(f"{self.path}.json")
                self._found.ran_by(self._unwritten())
                self._seen = self._identity()
            yield self._found
            if writes:
                self._write(self._found)

    def _write(self, found: Runs) -> None:
        """On a full disk all is lost except the time, which is stored as the lock's own and takes no space. Otherwise
        the most expensive collectors would then run every minute."""
        try:
            save(f"{self.path}.json", found)
        except (HostFailed, OSError) as error:
            self.errors.append(f"the run times of collectors cannot be stored: {error}")
            with contextlib.suppress(OSError):
                os.utime(f"{self.path}.lock", (found.started, found.started))
        self._seen = self._identity()

    def _unwritten(self) -> float:
        """The start of the last collection, in Unix time, if it could not be written; otherwise 0."""
        with contextlib.suppress(OSError):
            lock, written = (os.stat(f"{self.path}.{suffix}").st_mtime for suffix in ("lock", "json"))
            return lock if written < lock <= time.time() else 0.0
        return 0.0

    def _identity(self) -> tuple[int, int] | None:
        """Identifies the written file; None if there is none."""
        try:
            found = os.stat(f"{self.path}.json")
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def load(path: str) -> Runs:
    """The content of a file; empty if there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        if data["format"] != FORMAT:
            return Runs()
        last = {str(name): float(moment) for name, moment in data["last"].items()}
        seconds = {str(name): [float(one) for one in some] for name, some in data["seconds"].items()}
        shapes = {
            str(name): {str(since): [[str(one) for one in part] for part in parts] for since, parts in found.items()}
            for name, found in data["shapes"].items()
        }
        costs = {
            str(name): Cost(int(count), float(took), int(errors))
            for name, (count, took, errors) in data.get("costs", {}).items()
        }
        return Runs(last, seconds, shapes, costs, {str(name) for name in data.get("left_out", [])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Runs()


def save(path: str, found: Runs) -> None:
    """Write the file.

    Raises HostFailed.
    """
    costs = {name: [cost.runs, cost.seconds, cost.errors] for name, cost in found.costs.items()}
    parts = {"last": found.last, "seconds": found.seconds, "shapes": found.shapes, "costs": costs}
    data = {"format": FORMAT, **parts, "left_out": sorted(found.left_out)}
    write(File(path, json.dumps(data).encode(), 0o640))
