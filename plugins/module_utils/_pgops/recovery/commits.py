# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the archived WAL says of itself: when transactions ended, and where restore points are.

A recovery compares these records with its target in the order of the WAL; no clock and no catalogue is asked.
pg_waldump of the server's own version reads them (PostgreSQL, src/backend/access/rmgrdesc/xactdesc.c, xlogdesc.c).
"""

from __future__ import annotations

import contextlib
import mmap
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timezone

from ..errors import HostFailed
from ..host import commands
from ..host.files import failure
from ..repository import archiver, wal
from .line import Line

BUDGET = 10.0
"""Seconds that a question may take, unless the caller says otherwise."""
DUMPING = 60.0
"""Seconds that pg_waldump may take for a segment."""
REMEMBERED = 4
"""Segments whose records are kept in memory."""
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


class Unknown(Exception):
    """The time for a question was used up before it was answered."""


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
    """Reads the segments of a line, which it unpacks into a scratch directory. ``directory`` has pg_waldump."""

    repository: str
    generation: str
    directory: str
    line: Line
    scratch: str
    read: dict[tuple[int, str], list[Record]] = field(default_factory=dict)

    def records(self, segment: int, manager: str) -> list[Record]:
        """The records that begin in a segment, in their order: of ``manager`` Transaction or XLOG.

        Raises HostFailed if the segment is not there, or cannot be unpacked.
        """
        known = self.read.get((segment, manager))
        if known is None:
            known = parse(self._dumped(segment, manager))
            if len(self.read) >= REMEMBERED:
                self.read.clear()  # a segment can have 100,000 records
            self.read[(segment, manager)] = known
        return known

    def _dumped(self, segment: int, manager: str) -> str:
        self._unpack(segment)
        with contextlib.suppress(HostFailed):
            self._unpack(segment + 1)  # the last record may go on there
        size = self.line.segment_bytes
        begin, end = wal.lsn(segment * size), wal.lsn((segment + 1) * size)
        program = os.path.join(self.directory, "pg_waldump")
        where = ["-p", self.scratch, "-t", str(SCRATCH_TIMELINE), "-s", begin, "-e", end]
        # It ends with 1 where the WAL does.
        text = commands.run(["env", "TZ=UTC", program, f"--rmgr={manager}", *where], DUMPING, accepted=(0, 1))
        if segment + 2 in self._unpacked():
            os.unlink(self._path(segment + 2))
        return text

    def _path(self, segment: int) -> str:
        return os.path.join(self.scratch, wal.name(SCRATCH_TIMELINE, segment, self.line.segment_bytes))

    def _unpacked(self) -> set[int]:
        places = (wal.place(name, self.line.segment_bytes) for name in os.listdir(self.scratch))
        return {place.segment for place in places if place is not None and place.segment is not None}

    def _unpack(self, segment: int) -> None:
        path = self._path(segment)
        if not os.path.exists(path):
            unpacked(self.repository, self.generation, self.line.name(segment), path)

    def goes_on(self, byte: int) -> bool:
        """Whether there is a record that begins at a byte of the WAL or after it, within its segment.

        Raises HostFailed.
        """
        segment = byte // self.line.segment_bytes
        self._unpack(segment)
        program = os.path.join(self.directory, "pg_waldump")
        where = ["-p", self.scratch, "-t", str(SCRATCH_TIMELINE), "-s", wal.lsn(byte), "-n", "1"]
        return "rmgr:" in commands.run([program, *where], DUMPING, accepted=(0, 1))

    def contains(self, segment: int, text: bytes) -> bool:
        """Whether a segment has some bytes. Raises HostFailed."""
        self._unpack(segment)
        path = self._path(segment)
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return content.find(text) >= 0


def unpacked(repository: str, generation: str, name: str, path: str) -> None:
    """Unpack a segment to a path, checked.

    Raises HostFailed.
    """
    present = archiver.stored(archiver.place(repository, generation, name))
    if present is None:
        raise HostFailed(f"{name} is not in {repository}.")
    temporary = f"{path}.new"
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            archiver.unpack(*present, descriptor)
        finally:
            os.close(descriptor)
        archiver.check_segment(temporary, name, generation)
        os.rename(temporary, path)
    except archiver.Failure as error:
        raise HostFailed(f"{error}.") from error
    except OSError as error:
        raise failure(error, f"{name} cannot be read") from error
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


@contextlib.contextmanager
def reading(repository: str, generation: str, directory: str, line: Line, beside: str = "") -> Iterator[Reader]:
    """A reader of a line's WAL; its scratch directory is in ``beside``, or where the system has such ones.

    Raises HostFailed if there is no pg_waldump in ``directory``.
    """
    if not os.access(os.path.join(directory, "pg_waldump"), os.X_OK):
        raise HostFailed(
            f"{directory or 'The directory of programs'} has no pg_waldump.",
            "Set bin_directory to the programs of the server's version.",
        )
    scratch = tempfile.mkdtemp(prefix="pgops-commits-", dir=beside or None)
    try:
        yield Reader(repository, generation, directory, line, scratch)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _backwards(first: int, last: int, seconds: float) -> Iterator[int]:
    """Segments, the newest first. Raises Unknown when the time is used up."""
    until = time.monotonic() + seconds
    for segment in range(last, first - 1, -1):
        yield segment
        if time.monotonic() > until and segment > first:
            raise Unknown


def newest(
    reader: Reader, first: int, last: int, seconds: float = BUDGET, before: int | None = None
) -> Record | None:
    """The last end of a transaction in the segments from ``first`` to ``last``, or ``before`` a byte; None if there
    is none.

    Raises Unknown, and HostFailed.
    """
    for segment in _backwards(first, last, seconds):
        for record in reversed(reader.records(segment, "Transaction")):
            if before is None or record.lsn < before:
                return record
    return None


def restore_points(reader: Reader, name: str, first: int, last: int, seconds: float = BUDGET) -> list[Record]:
    """The newest segment's restore points of a name, the first one of them first; none if there is none in the
    segments from ``first`` to ``last``.

    Raises Unknown, and HostFailed.
    """
    bounded = _stored_name(name)
    # Most segments lack it altogether, which is seen at once.
    for segment in _backwards(first, last, seconds):
        if reader.contains(segment, bounded):
            found = _points(reader, segment, name)
            if found:
                return found
    # It may be divided by the head of a page.
    for segment in _backwards(first, last, seconds):
        found = _points(reader, segment, name)
        if found:
            return found
    return []


def _points(reader: Reader, segment: int, name: str) -> list[Record]:
    return [record for record in reader.records(segment, "XLOG") if record.name == name]


def _stored_name(name: str) -> bytes:
    """The name of a restore point as its record has it (PostgreSQL, xl_restore_point)."""
    return name.encode() + b"\0"


def transaction(reader: Reader, xid: int, first: int, last: int, seconds: float = BUDGET) -> Record | None:
    """The end of a transaction, by the lower 32 bits of its ID; None if it is not in the segments.

    Raises Unknown, and HostFailed.
    """
    for segment in _backwards(first, last, seconds):
        for record in reader.records(segment, "Transaction"):
            if record.xid == xid & 0xFFFFFFFF:
                return record
    return None
