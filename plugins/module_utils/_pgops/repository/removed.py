# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What we have removed from a generation of a repository, noted there before it is removed: whatever else is gone was
taken by others, or the repository was set back in time.

The note is in the repository, since a node that expires backups may not reach the ops database.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import HostFailed
from ..host import files
from ..host.files import File
from .wal import Run

NOTE = "removed.json"
FORMAT = 1
MOST_BACKUPS = 1000
"""Of the newest, in the order in which they were removed: older ones have been missed long ago."""
MOST_RUNS = 10_000


@dataclass(frozen=True)
class Removed:
    """``backups`` are UUIDs, the last removed last; ``runs`` the segments, in order."""

    backups: tuple[str, ...] = ()
    runs: tuple[Run, ...] = ()

    def has(self, timeline: int, segment: int) -> bool:
        """Whether a segment is among those that were removed."""
        return any(run.timeline == timeline and run.first <= segment <= run.last for run in self.runs)


def read(place: str) -> Removed:
    """What was removed from the generation whose backups are in ``place``.

    Raises HostFailed if the note is damaged.
    """
    path = os.path.join(place, NOTE)
    try:
        data = json.loads(files.contents(path))
        return Removed(tuple(map(str, data["backups"])), tuple(Run(*map(int, run)) for run in data["wal"]))
    except FileNotFoundError:
        return Removed()
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error
    except (ValueError, KeyError, TypeError) as error:
        raise HostFailed(
            f"{path} is damaged: {error!r}.", "Remove it; what was removed is then told once."
        ) from error


def note(place: str, backups: Iterable[str] = (), runs: Sequence[Run] = ()) -> None:
    """Note what is about to be removed. To be used inside `backups.alone`.

    Raises HostFailed.
    """
    before = read(place)
    new = tuple(backups)
    kept = tuple(one for one in before.backups if one not in new) + new
    content: dict[str, Any] = {
        "format": FORMAT,
        "backups": kept[-MOST_BACKUPS:],
        "wal": [[run.timeline, run.first, run.last] for run in _merged((*before.runs, *runs))[-MOST_RUNS:]],
    }
    files.apply([File(os.path.join(place, NOTE), (json.dumps(content) + "\n").encode(), 0o640)])


def _merged(runs: Iterable[Run]) -> list[Run]:
    """The same segments in as few runs as there can be, in order."""
    found: list[Run] = []
    for run in sorted(runs):
        last = found[-1] if found else None
        if last is not None and last.timeline == run.timeline and run.first <= last.last + 1:
            found[-1] = Run(run.timeline, last.first, max(last.last, run.last))
        else:
            found.append(run)
    return found
