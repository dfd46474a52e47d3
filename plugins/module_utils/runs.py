# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a collection remembers of those before it: when each collector ran, what it took, the shapes of rounds."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .files import File, write
from .rounds import Shapes, database_of

FORMAT = 2
REMEMBERED = 3
"""How many durations of each collector are kept."""


@dataclass
class Runs:
    """``last`` is when each collector ran last, in Unix time; ``seconds`` what its last runs took, over all
    databases, the newest last; ``shapes`` the series of each place."""

    last: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    shapes: Shapes = field(default_factory=dict)

    def note(self, spent: Mapping[str, float]) -> None:
        """Remember what collectors took in one run, in seconds."""
        for name, seconds in spent.items():
            self.seconds[name] = [*self.seconds.get(name, []), round(seconds, 4)][-REMEMBERED:]

    def forget(self, databases: Iterable[str]) -> None:
        """Forget the shapes of all databases but these."""
        kept = {*databases, ""}
        self.shapes = {name: found for name, found in self.shapes.items() if database_of(name) in kept}


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
        return Runs(last, seconds, shapes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Runs()


def save(path: str, found: Runs) -> None:
    """Write the file.

    Raises HostFailed.
    """
    data = {"format": FORMAT, "last": found.last, "seconds": found.seconds, "shapes": found.shapes}
    write(File(path, json.dumps(data).encode(), 0o640))
