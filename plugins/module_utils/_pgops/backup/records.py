# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The records of archived WAL, read by pg_waldump, which checks the checksum of each: a segment's header says nothing
of what follows it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import HostFailed
from ..host import commands, files
from ..repository import archiver, wal
from ..repository.segments import Stretch
from . import clients
from .clients import Clients

AT_ONCE = 64 * 1024 * 1024
"""Bytes of WAL that are unpacked at once."""
LONGEST = 3600.0
"""Seconds that reading so much may take."""
CONTINUES, SHORT_HEADER, ALIGNED = 1, 24, 8
"""XLP_FIRST_IS_CONTRECORD, SizeOfXLogShortPHD and MAXALIGN (PostgreSQL, src/include/access/xlog_internal.h)."""


def readable(programs: Clients, major: int) -> bool:
    """Whether the records of a major version can be read: its own pg_waldump can, and no other."""
    return programs.major == major and programs.has(clients.WAL_READING)


def broken(stretch: Stretch, programs: Clients, scratch: str, beyond: bool = False) -> str:
    """What is wrong with the records that begin in WAL whose segments are all there; '' where nothing is, or it
    cannot be known. ``beyond``: the last record is read as well where it ends in a segment behind the stretch.

    ``scratch`` is a directory that is made for it, and removed.

    Raises HostFailed.
    """
    if not readable(programs, int(stretch.generation.rpartition("-")[2])):
        return ""
    for first, last in _batches(stretch):
        files.discard(scratch)
        try:
            os.mkdir(scratch, 0o700)
            laid_out = _LaidOut(stretch, scratch)
            laid_out.add_all(range(first, last + 1))
            start, end = laid_out.bounds(first, last, beyond)
            said = _read(stretch, programs, scratch, (first, last), (start, end)) if start < end else ""
        except (OSError, archiver.Failure) as error:
            raise HostFailed(f"WAL cannot be unpacked in {scratch}: {error}.") from error
        finally:
            files.discard(scratch)
        if said:
            return said
    return ""


def _batches(stretch: Stretch) -> Iterator[tuple[int, int]]:
    """First and last segments of parts that are read at once."""
    count = max(1, AT_ONCE // stretch.segment_bytes)
    numbers = stretch.numbers
    return ((first, min(first + count, numbers.stop) - 1) for first in range(numbers.start, numbers.stop, count))


def _lay_out(stretch: Stretch, number: int, scratch: str) -> None:
    """Put a segment where pg_waldump looks for it. Raises OSError and archiver.Failure."""
    stored = stretch.stored(number)
    if stored is None:
        raise archiver.Failure(f"{stretch.name(number)} is gone")
    path, compression = stored
    target = os.path.join(scratch, stretch.name(number))
    if compression == "none":
        os.symlink(path, target)
        return
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        archiver.unpack(path, compression, descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class _LaidOut:
    """Segments of a stretch in the directory ``scratch``, where pg_waldump reads them."""

    stretch: Stretch
    scratch: str

    def add(self, number: int) -> bool:
        """Add a segment; False if it is not whole in the repository. Raises OSError and archiver.Failure."""
        if self.stretch.stored(number) is None:
            return False
        path = os.path.join(self.scratch, self.stretch.name(number))
        with contextlib.suppress(archiver.Damaged):
            _lay_out(self.stretch, number, self.scratch)
            if os.path.getsize(path) == self.stretch.segment_bytes:
                return True
        os.unlink(path)  # pg_waldump asks any segment that it finds for the size of all
        return False

    def add_all(self, numbers: range) -> None:
        """Add segments. Raises OSError and archiver.Failure, also where one is not whole."""
        lacking = [number for number in numbers if not self.add(number)]
        if lacking:
            raise archiver.Failure(f"{self.stretch.name(lacking[0])} is gone, or damaged")

    def bounds(self, first: int, last: int, beyond: bool) -> tuple[int, int]:
        """From where on, and to where, whole records can be read that begin in some segments. The last one may have
        the beginning of one that ends behind it, and all of them may be the middle of one."""
        size = self.stretch.segment_bytes
        start, end = max(self.stretch.start, first * size), (last + 1) * size
        if start == first * size and self._carried(first) >= end:
            return end, end
        if self.stretch.stop < end or not (beyond or last + 1 in self.stretch.numbers) or not self.add(last + 1):
            return start, min(end, self.stretch.stop)
        behind, number = self._carried(last + 1), last + 2
        while number * size < behind:
            if not self.add(number):  # the record has not been archived to its end
                return start, end
            number += 1
        return start, behind

    def _carried(self, number: int) -> int:
        """Where the record ends with which a segment begins; the segment's start if that is no record's rest."""
        size = self.stretch.segment_bytes
        with open(os.path.join(self.scratch, self.stretch.name(number)), "rb") as file:
            header = file.read(archiver.LONG_HEADER.size)
        _magic, info, _timeline, _address, left, _system, _segment, page = archiver.LONG_HEADER.unpack(header)
        if not info & CONTINUES:
            return number * size
        return carried(number * size, left, size, page)


def carried(start: int, left: int, segment_bytes: int, page: int) -> int:
    """The byte of the WAL behind ``left`` bytes of a record that goes on at the beginning of a segment. Pure."""
    at = start
    while True:
        header = archiver.LONG_HEADER.size if at % segment_bytes == 0 else SHORT_HEADER
        if left <= page - header:
            return -(-(at + header + left) // ALIGNED) * ALIGNED
        left -= page - header
        at += page


def _read(stretch: Stretch, programs: Clients, scratch: str, part: tuple[int, int], bounds: tuple[int, int]) -> str:
    """What pg_waldump has against the records between two bytes, that begin in a part; '' if nothing."""
    start, end = bounds
    command = [
        programs.program(clients.WAL_READING),
        "--quiet",
        f"--path={scratch}",
        f"--timeline={stretch.timeline}",
        f"--start={wal.lsn(start)}",
        f"--end={wal.lsn(end)}",
    ]
    try:
        commands.run(command, LONGEST)
    except HostFailed as error:
        names = f"{stretch.name(part[0])} to {stretch.name(part[1])}" if part[0] < part[1] else stretch.name(part[0])
        return f"WAL of {names}: {error.message.partition(': ')[2] or error.message}"
    return ""
