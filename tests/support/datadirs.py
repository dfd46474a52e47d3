# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""New data directories: initdb makes one of a kind, which is kept, and others are its copies.

A copy takes a third of the time. It has a system identifier of its own, as if initdb had made it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import secrets
import shutil
import struct
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import binaries

CRC = struct.Struct("<I")
IDENTIFIER = struct.Struct("<Q")
IN_WAL = 24  # where the first page of a segment has it: behind the header that all pages have
POLYNOMIAL = 0x82F63B78  # of CRC-32C, reflected


def fill(place: Path, major: int, options: Sequence[str], initdb: Callable[[Path], object]) -> None:
    """Make ``place`` a new data directory as initdb makes it with these options; ``initdb`` runs it on a directory.

    Where an option names a path, what initdb makes is not in the directory alone, and is not kept.
    """
    if any("/" in option for option in options):
        initdb(place)
        return
    _copy(_kept(major, options, place.parent, initdb), place)
    identify(place)


def _copy(directory: Path, to: Path) -> None:
    """As fast as can be: to keep the times of files as well takes several times as long."""
    subprocess.run(["cp", "-r", "--preserve=mode,ownership", str(directory), str(to)], check=True)


def _kept(major: int, options: Sequence[str], beside: Path, initdb: Callable[[Path], object]) -> Path:
    """The directory that copies are made of. Its owner is that of ``beside``, in which initdb runs."""
    owner = beside.stat().st_uid
    key = hashlib.sha256(f"{binaries.build(major)} {owner} {options}".encode()).hexdigest()[:16]
    kept = binaries.store() / "data" / key
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        made = beside / "made"
        initdb(made)
        with tempfile.TemporaryDirectory(dir=kept.parent) as scratch:
            _copy(made, Path(scratch, "data"))
            shutil.rmtree(made)
            with contextlib.suppress(OSError):  # somebody else was faster
                Path(scratch, "data").rename(kept)
    return kept


def identify(data: Path) -> int:
    """Give a data directory that no server has run on a new system identifier, which it returns.

    It is the first of pg_control's values, which end with their checksum, and stands in the first page of WAL.
    """
    identifier = int(time.time()) << 32 | secrets.randbits(32)
    control = data / "global" / "pg_control"
    image = bytearray(control.read_bytes())
    end = next(end for end, checksum in enumerate(checksums(image)) if CRC.unpack_from(image, end)[0] == checksum)
    IDENTIFIER.pack_into(image, 0, identifier)
    CRC.pack_into(image, end, next(itertools.islice(checksums(image), end, None)))
    control.write_bytes(image)
    for segment in (path for path in (data / "pg_wal").iterdir() if path.is_file()):
        with segment.open("r+b") as file:
            file.seek(IN_WAL)
            file.write(IDENTIFIER.pack(identifier))
    return identifier


def checksums(data: bytes | bytearray) -> Iterator[int]:
    """The CRC-32C, as PostgreSQL has it, of no byte, of the first, of the first two ..."""
    value = 0xFFFFFFFF
    for byte in data:
        yield value ^ 0xFFFFFFFF
        value ^= byte
        for _bit in range(8):
            value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
