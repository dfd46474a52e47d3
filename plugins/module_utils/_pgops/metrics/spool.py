# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rounds that could not be delivered yet, in a bounded file; what is dropped is counted."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from io import RawIOBase

from ..host.files import File, write
from .rounds import Round

COUNT = "{:020}"
"""The number of samples, with a fixed length."""


@dataclass(frozen=True)
class Spool:
    """A file with one round in each line, oldest first, and a file with the number of samples that were dropped."""

    path: str
    limit: int

    @property
    def _dropped_path(self) -> str:
        return f"{self.path}.dropped"

    def prepare(self) -> None:
        """Create the file of the count while there is space for it: on a full disk it can only be overwritten."""
        if not os.path.exists(self._dropped_path):
            with contextlib.suppress(OSError):
                write(File(self._dropped_path, COUNT.format(0).encode(), 0o640))

    def append(self, rounds: Sequence[Round]) -> tuple[int, int]:
        """Store rounds, dropping the newest that do not fit. Returns how many were stored, and how many samples were
        dropped.

        Raises OSError if nothing can be written; then none of them is stored.
        """
        if not rounds:
            return 0, 0
        dropped = 0
        with open(self.path, "ab", buffering=0) as file:
            end = _complete_lines(self.path)
            file.truncate(end)
            lines = []
            space = self.limit - end
            for found in rounds:
                line = _line(found)
                if len(line) > space:
                    dropped += found.samples
                    continue
                lines.append(line)
                space -= len(line)
            try:
                _write_all(file, b"".join(lines))
                os.fsync(file.fileno())
            except OSError:
                file.truncate(end)
                raise
        self.count_dropped(dropped)
        return len(lines), dropped

    def rounds(self) -> list[Round]:
        """All rounds. An incomplete line, left by a crash, is skipped."""
        if not os.path.exists(self.path):
            return []
        with open(self.path, encoding="utf-8", errors="replace") as file:
            return [found for line in file for found in _round(line)]

    def keep(self, rounds: Iterable[Round]) -> None:
        """Delete all but some. If those cannot be written, all stay, and are delivered once more."""
        lines = b"".join(_line(found) for found in rounds)
        with contextlib.suppress(OSError):
            if lines:
                write(File(self.path, lines, 0o640))
            elif os.path.exists(self.path):
                os.unlink(self.path)

    def dropped(self) -> int:
        """How many samples were dropped on this host so far."""
        try:
            with open(self._dropped_path, encoding="utf-8") as file:
                return int(file.read())
        except (OSError, ValueError):
            return 0

    def count_dropped(self, samples: int) -> None:
        """Add to the count; in place, and in one block, so that a full disk does not prevent it."""
        if samples:
            total = self.dropped() + samples
            with contextlib.suppress(OSError), open(self._dropped_path, "r+b", buffering=0) as file:
                file.write(COUNT.format(total).encode())


def _line(found: Round) -> bytes:
    return json.dumps(asdict(found)).encode() + b"\n"


def _write_all(file: RawIOBase, data: bytes) -> None:
    left = memoryview(data)
    while left:
        left = left[file.write(left) or 0 :]


def _complete_lines(path: str) -> int:
    """The size of a file up to the end of its last complete line, in bytes."""
    with open(path, "rb") as file:
        size = file.seek(0, os.SEEK_END)
        while size:
            start = max(0, size - 65536)
            file.seek(start)
            end = file.read(size - start).rfind(b"\n")
            if end >= 0:
                return start + end + 1
            size = start
    return 0


def _round(line: str) -> list[Round]:
    try:
        data = json.loads(line)
        series, values = tuple(data.pop("series")), tuple(data.pop("values"))
        return [Round(series=series, values=values, **data)]
    except (ValueError, TypeError, KeyError, AttributeError):
        return []
