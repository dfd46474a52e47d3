# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the archived WAL says of itself: when transactions ended, and where restore points are.

A recovery compares these records with its target in the order of the WAL; no clock and no catalogue is asked.
pg_waldump of the server's own version reads them (PostgreSQL, src/backend/access/rmgrdesc/xactdesc.c, xlogdesc.c).
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from dataclasses import dataclass, field
from datetime import datetime, timezone

from ..errors import HostFailed
from ..host import commands
from ..host.files import failure
from ..repository import archiver, wal
from ..repository import stanza as stanzas
from ..repository.fetching import compression, fetch
from ..repository.stanza import Stanza
from . import scratch
from .line import Line

GLANCE = 10.0
"""Seconds in which a thing is looked for that people want to know and nothing depends on."""
DUMPING = 600.0
"""Seconds that pg_waldump may take for a segment."""
WORKERS = 4
"""Threads that read, at most. Each has two unpacked segments at a time: a record may go on in the next one."""
BLOCK = 8
"""Segments that a thread reads in a row: only the last one's neighbour is unpacked twice."""
TELLING = 5.0
"""Seconds between two messages about a search."""
NEAR = 8
"""Segments that are no longer worth halving."""
SCRATCH_TIMELINE = 1
"""All segments of a line get its name in the scratch directory: pg_waldump reads those of one timeline only."""
LINE = re.compile(r"rmgr: (\w+) .*? tx: +(\d+), lsn: ([0-9A-F]+/[0-9A-F]+), .*?desc: (\w+) ?(.*)")
STAMP = re.compile(r"(?:(\d+): )?(\d{4,}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}) UTC")
COMMITS = ("COMMIT", "COMMIT_PREPARED")
ENDINGS = (*COMMITS, "ABORT", "ABORT_PREPARED")


@dataclass(frozen=True)
class Record:
    """The end of a transaction, or a restore point. ``what`` is pg_waldump's word, ``lsn`` where the record begins;
    ``xid`` 0 and ``time`` None are a restore point's, ``name`` is its."""

    what: str
    lsn: int
    xid: int = 0
    time: datetime | None = None
    name: str = ""


class Unfinished(HostFailed):
    """The time for a search was used up."""


class Lacking(HostFailed):
    """A program that unpacks WAL is not on this host."""


Pick = Callable[[Sequence[Record]], Sequence[Record]]
"""What a search wants of the records of a segment."""


def parse(text: str) -> list[Record]:
    """The records in the output of pg_waldump, which had TZ=UTC. Pure."""
    return [record for line in text.splitlines() for record in [_record(line)] if record is not None]


def _record(line: str) -> Record | None:
    match = LINE.match(line)
    if match is None:
        return None
    manager, xid, position, what, rest = match.groups()
    high, low = position.split("/")
    lsn = (int(high, 16) << 32) + int(low, 16)
    if (manager, what) == ("XLOG", "RESTORE_POINT"):
        return Record(what, lsn, name=rest)
    stamp = STAMP.match(rest)
    if manager != "Transaction" or what not in ENDINGS or stamp is None:
        return None
    prepared, text = stamp.groups()
    when = datetime.fromisoformat(text).replace(tzinfo=timezone.utc)
    return Record(what, lsn, int(prepared or xid), when)


@dataclass
class Reader:
    """Reads the segments of a line, which it unpacks below the directory ``scratch``. ``directory`` has pg_waldump.
    After ``until``, of the monotonic clock, a search is given up; None for never. ``say`` gets how it goes.

    ``damaged`` gets why segments could not be read, by their numbers.
    """

    repository: str
    generation: str
    directory: str
    line: Line
    scratch: str
    until: float | None = None
    say: Callable[[str], None] = lambda _text: None
    stanza: Stanza | None = None
    damaged: dict[int, str] = field(default_factory=dict)

    def search(
        self, blocks: Iterable[range], manager: str, pick: Pick, seconds: float | None = None
    ) -> Iterator[list[Record]]:
        """What is picked from each block of segments, in their order; of the manager Transaction or XLOG. Several are
        read at the same time. A segment that cannot be read is noted in ``damaged``.

        Raises Unfinished, also after so many seconds, and Lacking.
        """
        workers = min(WORKERS, os.cpu_count() or 1)
        ended, told = threading.Event(), _Told(self.say)
        bounds = [self.until, None if seconds is None else time.monotonic() + seconds]
        until = min((bound for bound in bounds if bound is not None), default=None)
        with ThreadPoolExecutor(workers) as pool:
            waiting: deque[tuple[range, Future[list[Record]]]] = deque()
            try:
                for block in blocks:
                    waiting.append((block, pool.submit(self._block, block, manager, pick, ended)))
                    while len(waiting) > workers:
                        yield self._result(*waiting.popleft(), told, until)
                while waiting:
                    yield self._result(*waiting.popleft(), told, until)
            finally:
                ended.set()
                for _block, future in waiting:
                    future.cancel()

    def _result(self, block: range, future: Future[list[Record]], told: _Told, until: float | None) -> list[Record]:
        while True:
            told.progress(self.line.name(block.start))
            left = TELLING if until is None else min(TELLING, until - time.monotonic())
            if left <= 0 and not future.done():
                raise Unfinished(
                    f"The search was given up at {self.line.name(block.start)}, after {told.segments} segments.",
                    "Allow more seconds for the search, or none to have it go on to its end.",
                )
            with contextlib.suppress(NotYet):
                found = future.result(max(0.0, left))
                told.segments += len(block)
                return found

    def _block(self, block: range, manager: str, pick: Pick, ended: threading.Event) -> list[Record]:
        found: list[Record] = []
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            for segment in block:
                if ended.is_set():
                    break
                try:
                    found += pick(self._records(folder, segment, manager))
                except Lacking:
                    raise
                except HostFailed as error:
                    self.damaged[segment] = error.message
        return found

    def _records(self, folder: str, segment: int, manager: str) -> list[Record]:
        self._unpack(folder, segment)
        with contextlib.suppress(HostFailed):
            self._unpack(folder, segment + 1)
        size = self.line.segment_bytes
        text = self._dumped(folder, segment * size, f"--rmgr={manager}", "-e", wal.lsn((segment + 1) * size))
        os.unlink(self._path(folder, segment))
        return parse(text)

    def _dumped(self, folder: str, byte: int, *options: str) -> str:
        program = os.path.join(self.directory, "pg_waldump")
        where = ["-p", folder, "-t", str(SCRATCH_TIMELINE), "-s", wal.lsn(byte)]
        # It ends with 1 where the WAL does.
        return commands.run(["env", "TZ=UTC", program, *where, *options], DUMPING, accepted=(0, 1))

    def _path(self, folder: str, segment: int) -> str:
        return os.path.join(folder, wal.name(SCRATCH_TIMELINE, segment, self.line.segment_bytes))

    def _unpack(self, folder: str, segment: int) -> None:
        path = self._path(folder, segment)
        if not os.path.exists(path):
            unpacked(self.repository, self.generation, self.line.name(segment), path, self.stanza)

    def goes_on(self, byte: int) -> bool:
        """Whether there is a record that begins at a byte of the WAL or after it, within its segment.

        Raises HostFailed.
        """
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            self._unpack(folder, byte // self.line.segment_bytes)
            return "rmgr:" in self._dumped(folder, byte, "-n", "1")


@dataclass
class _Told:
    """The progress of a search, told from time to time."""

    say: Callable[[str], None]
    segments: int = 0
    last: float = field(default_factory=time.monotonic)

    def progress(self, name: str) -> None:
        if time.monotonic() > self.last + TELLING:
            self.last = time.monotonic()
            self.say(f"searched {self.segments} WAL segments, now at {name}")


def check_program(compression: str, what: str) -> None:
    """Raises Lacking where the program of a compression is missing."""
    program = next(iter(archiver.DECOMPRESS.get(compression, ())), "")
    if program and shutil.which(program) is None:
        raise Lacking(f"{what} compressed by {program}, which is not on this host.", f"Install {program}.")


def unpacked(repository: str, generation: str, name: str, path: str, stanza: Stanza | None = None) -> None:
    """Unpack a segment to a path, checked; what is not compressed is linked to.

    Raises HostFailed.
    """
    packed = compression(repository, generation, name, stanza)
    if packed is None:
        raise HostFailed(f"{name} is not in {repository}.")
    check_program(packed, f"{name} is")
    temporary = f"{path}.new"
    try:
        present = archiver.stored(archiver.place(repository, generation, name))
        if present and present[1] == "none":
            archiver.check_segment(present[0], name, generation)
            os.symlink(present[0], path)
            return
        if not fetch(repository, generation, name, temporary, stanza):
            raise HostFailed(f"{name} is not in {repository}.")
        os.rename(temporary, path)
    except archiver.Failure as error:
        told = str(error)
        raise HostFailed(f"{told}." if name in told else f"{name}: {told}.") from error
    except OSError as error:
        raise failure(error, f"{name} cannot be read") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def reading(
    repository: str,
    generation: str,
    directory: str,
    line: Line,
    beside: str,
    seconds: float = 0.0,
    say: Callable[[str], None] = lambda _text: None,
) -> Iterator[Reader]:
    """A reader of a line's WAL, which is unpacked in ``beside``, a few segments at a time; searches are given up
    after ``seconds``, 0 for never.

    Raises HostFailed, also if there is no pg_waldump in ``directory``.
    """
    if not os.access(os.path.join(directory, "pg_waldump"), os.X_OK):
        raise HostFailed(
            f"{directory or 'The directory of programs'} has no pg_waldump.",
            "Set bin_directory to the programs of the server's version.",
        )
    until = time.monotonic() + seconds if seconds else None
    stanza = stanzas.of(repository, generation)
    with scratch.made(beside) as folder:
        yield Reader(repository, generation, directory, line, folder, until, say, stanza)


# --- the order of a search


def backwards(first: int, last: int) -> Iterator[range]:
    """The segments from ``first`` to ``last`` in blocks, the newest first. What is sought is often in the newest
    ones, so the first blocks are small. Pure."""
    size = 1
    while last >= first:
        begin = max(first, last - size + 1)
        yield range(begin, last + 1)
        last, size = begin - 1, min(BLOCK, size * 2)


def outwards(first: int, last: int, middle: int) -> Iterator[range]:
    """The segments from ``first`` to ``last`` in blocks, the nearest to ``middle`` first. Pure."""
    low = high = max(first, min(middle, last))
    while low > first or high <= last:
        if high <= last:
            yield range(high, min(high + BLOCK, last + 1))
            high = min(high + BLOCK, last + 1)
        if low > first:
            yield range(max(first, low - BLOCK), low)
            low = max(first, low - BLOCK)


# --- questions


def newest(reader: Reader, first: int, last: int, seconds: float | None = None) -> Record | None:
    """The last end of a transaction in the segments from ``first`` to ``last``; None if there is none.

    Raises Unfinished, also after so many seconds.
    """
    for found in reader.search(backwards(first, last), "Transaction", lambda records: records[-1:], seconds):
        if found:
            return found[-1]
    return None


def any_of(reader: Reader, first: int, last: int, wanted: Callable[[Record], bool]) -> Record | None:
    """One of the ends of transactions in the segments from ``first`` to ``last`` that are wanted, of the newest
    segments if it can be; None if there is none.

    Raises Unfinished.
    """

    def pick(records: Sequence[Record]) -> Sequence[Record]:
        return [record for record in records if wanted(record)][-1:]

    for found in reader.search(backwards(first, last), "Transaction", pick):
        if found:
            return found[-1]
    return None


def restore_points(reader: Reader, first: int, last: int) -> Iterator[tuple[int, list[Record]]]:
    """The restore points in the segments from ``first`` to ``last``, by blocks of segments, the newest block first:
    each block's first segment, and its points in the order of the WAL.

    Raises Unfinished.
    """
    blocks = list(backwards(first, last))
    return zip((block.start for block in blocks), reader.search(blocks, "XLOG", lambda records: records))


@dataclass(frozen=True)
class Transactions:
    """What a search of a transaction has found: its ``end``, or the nearest ``others`` that ended."""

    end: Record | None
    others: tuple[Record, ...] = ()


def transaction(reader: Reader, xid: int, first: int, last: int) -> Transactions:
    """The end of a transaction, by the lower 32 bits of its ID, in the segments from ``first`` to ``last``.

    IDs are given in the order of the WAL, and most transactions end soon after; so it is looked for near its like
    first, and then everywhere.

    Raises Unfinished.
    """
    nearest: list[Record] = []

    def pick(records: Sequence[Record]) -> Sequence[Record]:
        return sorted(records, key=lambda record: abs(_distance(record.xid, xid)))[:2]

    middle = _middle(reader, xid, first, last)
    for found in reader.search(outwards(first, last, middle), "Transaction", pick):
        nearest = list(pick([*nearest, *found]))
        if nearest and _distance(nearest[0].xid, xid) == 0:
            return Transactions(nearest[0])
    return Transactions(None, tuple(sorted(nearest, key=lambda record: record.lsn)))


def _distance(one: int, other: int) -> int:
    """How far a transaction ID is behind another one, which has 32 bits and begins anew (PostgreSQL, transam.c)."""
    return (one - other + (1 << 31)) % (1 << 32) - (1 << 31)


def _middle(reader: Reader, xid: int, first: int, last: int) -> int:
    """About where a transaction ended: found by halving."""
    while last - first > NEAR:
        half = (first + last) // 2
        ahead = (range(number, number + 1) for number in range(half, last + 1))
        found = next(filter(None, reader.search(ahead, "Transaction", lambda records: records[-1:])), None)
        if found is None or _distance(found[-1].xid, xid) >= 0:
            last = half
        else:
            first = half + 1
    return first
