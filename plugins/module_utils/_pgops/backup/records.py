# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The records of archived WAL, read by pg_waldump, which checks the checksum of each: a segment's header says nothing
of what follows it."""

from __future__ import annotations

import os
from collections.abc import Iterator

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


def readable(programs: Clients, major: int) -> bool:
    """Whether the records of a major version can be read: its own pg_waldump can, and no other."""
    return programs.major == major and programs.has(clients.WAL_READING)


def broken(stretch: Stretch, programs: Clients, scratch: str) -> str:
    """What is wrong with the records of WAL whose segments are all there; '' where nothing is, or it cannot be known.

    ``scratch`` is a directory that is made for it, and removed.

    Raises HostFailed.
    """
    if not readable(programs, int(stretch.generation.rpartition("-")[2])):
        return ""
    for first, last in _batches(stretch):
        files.discard(scratch)
        try:
            os.mkdir(scratch, 0o700)
            for number in range(first, min(last + 2, stretch.numbers.stop)):
                _lay_out(stretch, number, scratch)
            said = _read(stretch, programs, scratch, (first, last))
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


def _read(stretch: Stretch, programs: Clients, scratch: str, part: tuple[int, int]) -> str:
    """What pg_waldump has against the records that begin in a part; '' if nothing."""
    size = stretch.segment_bytes
    start, end = max(stretch.start, part[0] * size), min(stretch.stop, (part[1] + 1) * size)
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
