# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether the WAL of a recovery is as it must be, as far as that can be known without reading all of it.

Each file's size and first bytes are looked at, so that one that was cut off or is something else shows; what is in a
stanza of pgBackRest has a name only. Read as a whole are those without which there is nothing to recover, or no end:
the backup's own first and last one, the last ones, and one of each compression, whose program has to be there.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn

from ..backup.pgbackrest import wal_problems
from ..errors import HostFailed
from ..host.files import failure
from ..repository import segments, wal
from ..repository.segments import Stretch
from ..repository.stanza import Stanza
from . import commits, scratch
from .choice import Choice

THREADS = 8
LAST = 2
"""Segments at the end that are read as a whole: the last record may begin in the one before."""
MAGIC = {"gzip": b"\x1f\x8b", "zstd": b"\x28\xb5\x2f\xfd", "lz4": b"\x04\x22\x4d\x18"}
"""The first bytes of a compressed file: RFC 1952, RFC 8878, and the frame format of LZ4."""


def check(repository: str, generation: str, chosen: Choice, stanza: Stanza | None = None, folder: str = "") -> None:
    """Raises HostFailed for the first segment of a recovery that is missing, damaged, or cannot be unpacked here.

    Of those of a ``stanza`` that are not read only the names are known; others are unpacked in ``folder``.
    """
    if stanza:
        stanza.wal()  # all at once, for the threads
    reach = chosen.reach
    numbers = range(reach.first, chosen.last + 1)
    size = reach.line.segment_bytes

    def stretch(number: int) -> Stretch:
        start = number * size
        return Stretch(repository, generation, reach.line.timeline_of(number), start, start + size, size)

    samples = _samples(chosen, map(stretch, numbers), stanza)
    for compression in samples:
        commits.check_program(compression, "The WAL is")
    own = (chosen.chain[-1].manifest.stop_lsn - 1) // size
    for number in sorted({reach.first, own, *numbers[-LAST:], *samples.values()}):
        for wrong in _damaged(stretch(number), stanza, folder):
            _refuse(chosen, number, wrong)


def _samples(chosen: Choice, stretches: Iterable[Stretch], stanza: Stanza | None) -> dict[str, int]:
    """By compression the number of a segment that has it, once all have been looked at. Raises HostFailed."""
    found: dict[str, int] = {}
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            looked = pool.map(lambda one: (one.numbers.start, *_looked_at(one, stanza)), stretches)
            for number, compression, wrong in looked:
                if wrong:
                    _refuse(chosen, number, wrong)
                found[compression] = number
    except OSError as error:
        raise failure(error, f"{error.filename or 'WAL'} cannot be read") from error
    return found


def _damaged(stretch: Stretch, stanza: Stanza | None, folder: str) -> list[str]:
    """What is wrong with a segment, which is read as a whole. Raises HostFailed."""
    if stanza is None or stretch.stored(stretch.numbers.start):
        return list(segments.damaged(stretch))
    with scratch.made(folder) as made:
        return list(wal_problems(stanza, stretch, os.path.join(made, "wal")))


def _looked_at(stretch: Stretch, stanza: Stanza | None) -> tuple[str, str]:
    """The compression of a segment, and what is wrong with it by its size and first bytes. Raises OSError."""
    name = stretch.name(stretch.numbers.start)
    present = stretch.stored(stretch.numbers.start)
    if present is None:
        elsewhere = stanza.stored(name) if stanza else None
        return (elsewhere.compression, "") if elsewhere else ("none", f"{name} is missing")
    path, compression = present
    found = os.lstat(path)
    if not stat.S_ISREG(found.st_mode):
        return compression, f"{path} is no file"
    if compression == "none":
        whole = found.st_size == stretch.segment_bytes
        return compression, "" if whole else _incomplete(path, found.st_size, stretch.segment_bytes)
    magic = MAGIC[compression]
    with open(path, "rb", buffering=0) as file:
        head = file.read(len(magic))
    return compression, "" if head == magic else f"{path} is not compressed by {compression}"


def _incomplete(path: str, there: int, size: int) -> str:
    return f"{path} is an incomplete WAL segment: it has {there} bytes, and not {size}"


def _refuse(chosen: Choice, number: int, wrong: str) -> NoReturn:
    """Raises HostFailed with what is left to be reached."""
    begin = number * chosen.reach.line.segment_bytes
    stop = chosen.chain[-1].manifest.stop_lsn
    left = (
        f"What is before LSN {wal.lsn(begin)} can be reached."
        if begin > stop
        else "Nothing can be reached from that backup; choose a moment before it."
    )
    raise HostFailed(
        f"The WAL that follows backup {chosen.chain[-1].name} cannot be replayed: {wrong}.",
        f"{left} Or restore the file from a copy of the repository.",
    )


def check_programs(chosen: Choice) -> None:
    """Raises HostFailed where a program is missing by which the backups are unpacked."""
    for kept in chosen.chain:
        if kept.manifest.layout == "tar":
            commits.check_program(kept.manifest.compression, f"Backup {kept.name} is")
