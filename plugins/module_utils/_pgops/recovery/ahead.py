# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""WAL fetched ahead of replay: threads keep the next segments in a spool from which restore_command only moves them.

    DATA/pg_wal/pgops-ahead/NAME        a segment, complete and checked
    DATA/pg_wal/pgops-ahead/.NAME       one that is being unpacked
    DATA/pg_wal/pgops-ahead/archiver    the program that fetches what the spool lacks

A segment that is missing or damaged does not get into the spool: the program then decides, and ends the recovery if
it is damaged. So the spool can only save time, and a recovery goes on without it if we are killed.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import HostFailed
from ..repository import archiver
from ..repository.fetching import fetch
from ..repository.stanza import Stanza
from .line import Line

FOLDER = os.path.join("pg_wal", "pgops-ahead")
PROGRAM = "archiver"
MOST_BYTES = 512 << 20
"""Of segments in the spool."""
MOST_SEGMENTS = 32
THREADS = 3
PAUSE = 0.003
"""Seconds between two looks at what replay has taken: it takes some 10 ms for a small segment."""


def restore_command(
    repository: str, generation: str, python: str, stanza: Stanza | None = None, others: Sequence[str] = ()
) -> str:
    """The command for a server whose spool is prepared. It runs in the data directory. ``others`` are options for the
    program of a stanza.

    mv ends in 2 ms, which is what almost every segment costs; Python is started only for the others.
    """
    words = [python, "-IS", os.path.join(FOLDER, PROGRAM), "fetch", repository, generation]
    command = shlex.join(words).replace("%", "%%")
    if stanza:
        return f'mv {FOLDER}/%f "%p" 2>/dev/null || {stanza.fetching(command, *others)}'
    return f'mv {FOLDER}/%f "%p" 2>/dev/null || exec {command} %f "%p"'


def prepare(data: str) -> None:
    """Make the spool of a data directory. Raises OSError."""
    spool = os.path.join(data, FOLDER)
    shutil.rmtree(spool, ignore_errors=True)
    os.makedirs(spool, 0o700)
    with open(os.path.join(spool, PROGRAM), "wb") as file:
        file.write(program())


def program() -> bytes:
    """The program that fetches, wherever the library is: it may be in an archive of Ansible's."""
    loader = getattr(archiver, "__loader__", None)
    return str(loader.get_source(archiver.__name__)).encode() if loader else b""


def discard(data: str) -> None:
    """Remove the spool of a data directory."""
    shutil.rmtree(os.path.join(data, FOLDER), ignore_errors=True)


@dataclass
class Ahead:
    """Fetches the segments of a line, from number ``first`` to ``last``, into the spool of a data directory."""

    repository: str
    generation: str
    line: Line
    first: int
    last: int
    data: str
    stanza: Stanza | None = None
    fetched: int = 0
    _next: int = 0
    _published: set[str] = field(default_factory=set)
    _claimed: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _stop: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def __enter__(self) -> Ahead:
        self._next = self.first
        self._threads = [threading.Thread(target=self._work, daemon=True) for _number in range(THREADS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        for name in self._published:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(self.spool, name))

    @property
    def spool(self) -> str:
        """The directory."""
        return os.path.join(self.data, FOLDER)

    @property
    def limit(self) -> int:
        """How many segments are kept."""
        return max(4, min(MOST_SEGMENTS, MOST_BYTES // self.line.segment_bytes))

    def _work(self) -> None:
        while not self._stop.is_set():
            name = self._claim()
            if name is None:
                if self._next > self.last:
                    return
                self._stop.wait(PAUSE)
                continue
            # What cannot be fetched is the program's: it says why, where PostgreSQL logs it.
            with contextlib.suppress(OSError, archiver.Failure, archiver.Absent, HostFailed):
                self._fetch(name)
            with self._lock:
                self._claimed.discard(name)

    def _claim(self) -> str | None:
        """The next segment, if there is room for it."""
        with self._lock:
            if self._next > self.last or self._waiting() >= self.limit:
                return None
            name = self.line.name(self._next)
            self._claimed.add(name)
            self._next += 1
            return name

    def _waiting(self) -> int:
        """How many segments are there or are being fetched. One that came too late, since replay has already taken a
        later one, is removed."""
        there = {name for name in os.listdir(self.spool) if archiver.kind(name)}
        done = {name for name in self._published if name not in there}
        newest = max((name[8:] for name in done), default="")
        late = {name for name in there & self._published if name[8:] < newest}
        for name in late:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.spool, name))
        self._published -= late
        return len((there - late) | self._claimed)

    def _fetch(self, name: str) -> None:
        path, temporary = os.path.join(self.spool, name), os.path.join(self.spool, f".{name}")
        try:
            if not fetch(self.repository, self.generation, name, temporary, self.stanza):
                return
            with self._lock:
                os.rename(temporary, path)
                self._published.add(name)
                self.fetched += 1
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
