# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a collection remembers of those before it: when each collector ran, what it took, the shapes of rounds."""

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

FORMAT = 3
REMEMBERED = 3
"""How many durations of each collector are kept."""


@dataclass(frozen=True)
class Cost:
    """What some runs of a collector took, in seconds, and in how many databases it failed, of all those runs."""

    runs: int = 0
    seconds: float = 0.0
    errors: int = 0

    @property
    def mean(self) -> float | None:
        """Seconds that a run took; None where there was none."""
        return self.seconds / self.runs if self.runs else None


@dataclass
class Runs:
    """``last`` is when each collector ran last, in Unix time; ``seconds`` what its last runs took, over all
    databases, the newest last; ``shapes`` the series of each place; ``costs`` what runs cost that was not yet
    reported. ``begun`` is when all that was due was run last, as far as this process has done it; it is not kept."""

    last: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    shapes: Shapes = field(default_factory=dict)
    costs: dict[str, Cost] = field(default_factory=dict)
    begun: float = field(default=0.0, compare=False)

    def note(self, spent: Mapping[str, float], failed: Mapping[str, int]) -> None:
        """Remember what collectors took in one run, in seconds, and in how many databases they failed."""
        for name, seconds in spent.items():
            self.seconds[name] = [*self.seconds.get(name, []), round(seconds, 4)][-REMEMBERED:]
        for name in {*spent, *failed}:
            cost = self.costs.get(name, Cost())
            took, errors = cost.seconds + spent.get(name, 0.0), cost.errors + failed.get(name, 0)
            self.costs[name] = Cost(cost.runs + (name in spent), took, errors)

    def ran_by(self, moment: float) -> None:
        """Take every collector for one that has run since ``moment``, in Unix time, when all that was due was run."""
        self.last = {name: max(last, moment) for name, last in self.last.items()}

    def reported(self) -> dict[str, Cost]:
        """What runs cost since this was last asked for."""
        costs, self.costs = self.costs, {}
        return costs

    def forget_others(self, intervals: Iterable[int], days: Iterable[int]) -> None:
        """Forget the shapes of what is not measured at these intervals any more, or not kept for these days."""
        kept = {kind(interval, one) for interval in intervals for one in days}
        self.shapes = {name: found for name, found in self.shapes.items() if kind_of(name) in kept}

    def forget(self, databases: Iterable[str]) -> None:
        """Forget the shapes of all databases but these."""
        kept = {*databases, ""}
        self.shapes = {name: found for name, found in self.shapes.items() if database_of(name) in kept}


@dataclass
class Memory:
    """``path``.json, where collections of one kind leave what the next one has to know, and ``path``.lock, which only
    one of them holds at a time; ``patience`` is for how many seconds another one waits for that. ``errors`` are of
    writing it.

    Who collects several times need not write each time: until then it goes on with what it has left here, unless
    another one wrote meanwhile.
    """

    path: str
    patience: float = 0
    errors: list[str] = field(default_factory=list)
    _found: Runs | None = None
    _seen: tuple[int, int] | None = None

    @contextlib.contextmanager
    def held(self, writes: bool = True) -> Iterator[Runs]:
        """What is remembered, and written where nothing fails meanwhile.

        Raises Busy where another collection goes on for too long, and HostFailed.
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
        """What a full disk has no room for is lost, but for the time: that of the lock takes no room. Otherwise the
        dearest collectors would run every minute, just then."""
        try:
            save(f"{self.path}.json", found)
        except (HostFailed, OSError) as error:
            self.errors.append(f"what collectors took cannot be remembered: {error}")
            with contextlib.suppress(OSError):
                os.utime(f"{self.path}.lock", (found.begun, found.begun))
        self._seen = self._identity()

    def _unwritten(self) -> float:
        """When the last collection began, in Unix time, if it could not be written; else 0."""
        with contextlib.suppress(OSError):
            lock, written = (os.stat(f"{self.path}.{suffix}").st_mtime for suffix in ("lock", "json"))
            return lock if written < lock <= time.time() else 0.0
        return 0.0

    def _identity(self) -> tuple[int, int] | None:
        """What changes with each file that is written; None where there is none."""
        try:
            found = os.stat(f"{self.path}.json")
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns


def load(path: str) -> Runs:
    """What a file remembers; nothing where there is none that can be read."""
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
        return Runs(last, seconds, shapes, costs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Runs()


def save(path: str, found: Runs) -> None:
    """Write the file.

    Raises HostFailed.
    """
    costs = {name: [cost.runs, cost.seconds, cost.errors] for name, cost in found.costs.items()}
    parts = {"last": found.last, "seconds": found.seconds, "shapes": found.shapes, "costs": costs}
    data = {"format": FORMAT, **parts}
    write(File(path, json.dumps(data).encode(), 0o640))
