# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rounds that could not be delivered yet, in a bounded file; what is dropped is counted."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass

from .collectors import Round
from .files import File, write


@dataclass(frozen=True)
class Spool:
    """A file of one round a line, oldest first, and beside it the number of samples that were dropped."""

    path: str
    limit: int

    @property
    def _dropped_path(self) -> str:
        return f"{self.path}.dropped"

    def append(self, rounds: Iterable[Round]) -> int:
        """Keep rounds for later, dropping the newest that do not fit; returns how many samples were dropped.

        Raises OSError.
        """
        size = os.path.getsize(self.path) if os.path.exists(self.path) else 0
        dropped = 0
        with open(self.path, "a", encoding="utf-8") as file:
            for found in rounds:
                line = json.dumps(asdict(found)) + "\n"
                if size + len(line.encode()) > self.limit:
                    dropped += len(found.values)
                    continue
                file.write(line)
                size += len(line.encode())
            file.flush()
            os.fsync(file.fileno())
        if dropped:
            write(File(self._dropped_path, str(self.dropped() + dropped).encode(), 0o640))
        return dropped

    def rounds(self) -> list[Round]:
        """All that waits. A line that a crash cut short is passed over."""
        if not os.path.exists(self.path):
            return []
        with open(self.path, encoding="utf-8") as file:
            return [found for line in file for found in _round(line)]

    def clear(self) -> None:
        """Forget what was delivered."""
        if os.path.exists(self.path):
            os.unlink(self.path)

    def dropped(self) -> int:
        """How many samples were ever dropped on this host."""
        try:
            with open(self._dropped_path, encoding="utf-8") as file:
                return int(file.read())
        except (OSError, ValueError):
            return 0


def _round(line: str) -> list[Round]:
    try:
        data = json.loads(line)
        series, values = tuple(data.pop("series")), tuple(data.pop("values"))
        return [Round(series=series, values=values, **data)]
    except (ValueError, TypeError, KeyError):
        return []
