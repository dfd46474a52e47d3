# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The backup_manifest of PostgreSQL: the files of a backup with their checksums, and the WAL that it needs. Pure,
except for reading the file, line by line: it has one for each file of a server, which may be millions.

Source: PostgreSQL, src/backend/backup/backup_manifest.c, and its documentation, "Backup Manifest Format".
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO

from ..errors import InvalidInput
from ..host import files
from ..repository.archiver import CHUNK

NAME = "backup_manifest"
DAMAGED = "Take another backup; restore from this one only what its verification does not name."
IGNORED = frozenset({b"backup_manifest", b"postgresql.auto.conf", b"recovery.signal", b"standby.signal"})
"""What may be there without being listed, as for pg_verifybackup."""
MOST = 20
"""Problems of a backup that are told."""
TAIL = 65536
"""Bytes at the end of the file that hold all that follows the files."""


@dataclass(frozen=True)
class Listed:
    """A file: its path in the data directory (bytes: PostgreSQL knows no encoding of file names), its size in bytes,
    and its SHA-256 in hexadecimal."""

    path: bytes
    size: int
    checksum: str


@dataclass(frozen=True)
class Span:
    """The WAL that a backup needs, in bytes of the WAL on one timeline."""

    timeline: int
    start: int
    stop: int


def span(path: str) -> Span:
    """The WAL that a backup needs, of its backup_manifest.

    Raises InvalidInput if it is damaged, or the timeline changed while the backup was taken.
    """
    try:
        with open(path, "rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL))
            tail = file.read().decode("utf-8", "surrogateescape")
        ranges = json.loads("{" + tail[tail.rindex('"WAL-Ranges"') :])["WAL-Ranges"]
        found = [Span(int(one["Timeline"]), byte(one["Start-LSN"]), byte(one["End-LSN"])) for one in ranges]
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is damaged: {error!r}.", DAMAGED) from error
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error
    if len(found) != 1:
        raise InvalidInput(
            f"The server changed its timeline while it was backed up: {path} needs WAL of {len(found)} timelines.",
            "Take the backup again.",
        )
    return found[0]


def byte(lsn: str) -> int:
    """A place in the WAL, 16/B374D848, as the number of its byte. Raises ValueError."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


def listed(path: str) -> Iterator[Listed]:
    """The files that a backup_manifest lists.

    Raises InvalidInput if it is damaged, and HostFailed.
    """
    try:
        with open(path, "rb") as file:
            for line in file:
                if line.startswith((b'{ "Path"', b'{ "Encoded-Path"')):
                    yield _listed(line.strip().rstrip(b","))
    except (ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is damaged: {error!r}.", DAMAGED) from error
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error


def _listed(line: bytes) -> Listed:
    found = json.loads(line)
    encoded = found.get("Encoded-Path")
    name = bytes.fromhex(encoded) if encoded is not None else str(found["Path"]).encode("utf-8", "surrogateescape")
    if found["Checksum-Algorithm"] != "SHA256":
        raise ValueError(f"its checksums are {found['Checksum-Algorithm']}")
    return Listed(name, int(found["Size"]), str(found["Checksum"]))


def digest(path: str) -> str:
    """The SHA-256 of a file in hexadecimal. Raises HostFailed."""
    try:
        with open(path, "rb", buffering=0) as file:
            return digested(file).checksum.hex()
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error


@dataclass(frozen=True)
class Digested:
    """A file of a backup that was read: its size in bytes, its SHA-256, and of what it is a part, '' for itself."""

    size: int
    checksum: bytes
    part_of: str = ""


def digested(file: IO[bytes], part_of: str = "") -> Digested:
    """Read a file to its end. Raises what reading it does."""
    hashed, size = hashlib.sha256(), 0
    while chunk := file.read(CHUNK):
        hashed.update(chunk)
        size += len(chunk)
    return Digested(size, hashed.digest(), part_of)


def problems(path: str, files_read: dict[bytes, Digested], others: Sequence[str] = ()) -> list[str]:
    """What is wrong with the files of a backup, by its backup_manifest, beside ``others``. What is listed is removed
    from ``files_read``: it may be millions.

    Raises InvalidInput where the manifest is damaged, and HostFailed.
    """
    found = list(others)
    for one in listed(path):
        there = files_read.pop(one.path, None)
        if there is None:
            wrong = "" if one.path in IGNORED else "is missing"
        elif there.size != one.size:
            wrong = f"has {there.size} bytes, and not {one.size}"
        else:
            wrong = "" if there.checksum.hex() == one.checksum else "has another checksum"
        found += [_told(one.path, there, wrong)] if wrong else []
    for name, there in files_read.items():
        if name not in IGNORED and not name.startswith(b"pg_wal/"):
            found.append(_told(name, there, "is not listed"))
    return found[:MOST] + ([f"and {len(found) - MOST} more"] if len(found) > MOST else [])


def _told(path: bytes, there: Digested | None, wrong: str) -> str:
    return f"{there.part_of}: {shown(path)} {wrong}" if there and there.part_of else f"{shown(path)} {wrong}"


def shown(path: bytes) -> str:
    """A path for a message."""
    return path.decode("utf-8", "backslashreplace")
