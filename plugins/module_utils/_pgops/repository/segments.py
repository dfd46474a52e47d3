# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The WAL that a backup needs, as it is in the repository: there, whole, and readable."""

from __future__ import annotations

import hashlib
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ..errors import HostFailed
from ..host import files
from . import archiver, wal

PAGE = 8192
"""Bytes of a page of the WAL, where its header does not say so."""
PAGES = frozenset(1024 << power for power in range(7))
"""The sizes that a server can be built with."""
SHORT_HEADER = struct.Struct("=HHIQ")
"""Of each page: magic, info, timeline, page address (PostgreSQL, src/include/access/xlog_internal.h)."""


@dataclass(frozen=True)
class Stretch:
    """WAL of one timeline of a generation, from byte ``start`` to before byte ``stop``."""

    repository: str
    generation: str
    timeline: int
    start: int
    stop: int
    segment_bytes: int

    @property
    def numbers(self) -> range:
        """The numbers of its segments."""
        return range(self.start // self.segment_bytes, (max(self.stop - 1, self.start)) // self.segment_bytes + 1)

    def name(self, number: int) -> str:
        """The name of a segment."""
        return wal.name(self.timeline, number, self.segment_bytes)

    def stored(self, number: int) -> tuple[str, str] | None:
        """The path of a segment in the repository, and its compression; None if it is not there."""
        return archiver.stored(archiver.place(self.repository, self.generation, self.name(number)))


def newest(repository: str, generation: str, timeline: int, segment_bytes: int) -> int | None:
    """The number of the newest segment of a timeline in the repository, None if there is none. Raises OSError."""
    folder, prefix = os.path.join(repository, generation, "wal"), f"{timeline:08X}"
    directories = (name for name in os.listdir(folder) if name.startswith(prefix) and "." not in name)
    for directory in sorted(directories, reverse=True):
        places = (wal.place(name[:24], segment_bytes) for name in os.listdir(os.path.join(folder, directory)))
        numbers = [one.segment for one in places if one is not None and one.segment is not None]
        if numbers:
            return max(numbers)
    return None


def stored_share(repository: str, generation: str, segment_bytes: int) -> float:
    """The part of its size that WAL takes in the repository, compressed as the newest is; 1 where there is none.

    Raises OSError.
    """
    folder = os.path.join(repository, generation, "wal")
    newest_directory = max((name for name in os.listdir(folder) if "." not in name), default="")
    entries = os.scandir(os.path.join(folder, newest_directory)) if newest_directory else ()
    sizes = [one.stat().st_size for one in entries if archiver.kind(wal.parted(one.name)[0]) == "segment"]
    return min(1.0, sum(sizes) / len(sizes) / segment_bytes) if sizes else 1.0


def absent(stretch: Stretch) -> list[str]:
    """The names of the segments that are not in the repository, in their order."""
    return [stretch.name(number) for number in stretch.numbers if stretch.stored(number) is None]


def damaged(stretch: Stretch) -> Iterator[str]:
    """What is wrong with the segments that are there. Each is read as a whole."""
    for number in stretch.numbers:
        problem = wrong(stretch, number)
        if problem:
            path, _compression = stretch.stored(number) or (stretch.name(number), "")
            yield f"{os.path.relpath(path, stretch.repository)} {problem}"


def wrong(stretch: Stretch, number: int) -> str:
    """Why a stored segment is not the one that it should be, by its size and the headers of its pages; '' if it is,
    or is not there. It is read as a whole.

    Raises HostFailed where it cannot be read.
    """
    stored = stretch.stored(number)
    return _problem(stretch, number, *stored) if stored else ""


def _problem(stretch: Stretch, number: int, path: str, compression: str) -> str:
    try:
        size, head, pages = 0, b"", _Pages(number * stretch.segment_bytes)
        for chunk in archiver.unpacked(path, compression):
            head = (head + chunk)[: archiver.LONG_HEADER.size] if len(head) < archiver.LONG_HEADER.size else head
            size += len(chunk)
            pages.add(chunk)
        return _wrong(stretch, number, head, size) or pages.wrong
    except (archiver.Damaged, struct.error) as error:
        return f"cannot be read: {error}"
    except OSError as error:  # which says nothing about what is stored
        raise files.failure(error, f"{path} cannot be read") from error
    except archiver.Failure as error:
        raise HostFailed(f"{path} cannot be read: {error}.") from error


def _wrong(stretch: Stretch, number: int, head: bytes, size: int) -> str:
    if size != stretch.segment_bytes:
        return f"is incomplete: it has {size} bytes, and not {stretch.segment_bytes}"
    _magic, info, timeline, address, _length, identifier, _segment, _block = archiver.LONG_HEADER.unpack(head)
    if not info & archiver.XLP_LONG_HEADER or address != number * stretch.segment_bytes:
        return "has the header of another segment"
    if str(identifier) != stretch.generation.partition("-")[0]:
        return f"belongs to system identifier {identifier}"
    return "" if timeline <= stretch.timeline else f"is of timeline {timeline}"


class _Pages:
    """The headers of a segment's pages, as they come by."""

    def __init__(self, start: int) -> None:
        self.at, self.rest, self.magic, self.wrong = start, b"", 0, ""
        self.page, self.ended = 0, False

    def add(self, chunk: bytes) -> None:
        """Look at what comes next."""
        content = self.rest + chunk
        if not self.page and len(content) >= archiver.LONG_HEADER.size:
            said = archiver.LONG_HEADER.unpack_from(content)[-1]
            self.page = said if said in PAGES else PAGE
        whole = len(content) - len(content) % self.page if self.page else 0
        for offset in range(0, whole, self.page or PAGE):
            self._page(*SHORT_HEADER.unpack_from(content, offset))
        self.rest = content[whole:]

    def _page(self, magic: int, _info: int, _timeline: int, address: int) -> None:
        self.magic = self.magic or magic
        # A segment that was ended early (pg_switch_wal) has nothing but zeros from there on.
        self.ended = self.ended or (magic, address) == (0, 0)
        if not self.wrong and (magic, address) != ((0, 0) if self.ended else (self.magic, self.at)):
            self.wrong = f"has the header of another page at {wal.lsn(self.at)}"
        self.at += self.page


def digest(path: str) -> str:
    """The SHA-256 of a file's stored content in hexadecimal; '' if it cannot be read."""
    digested = hashlib.sha256()
    try:
        with open(path, "rb", buffering=0) as file:
            while chunk := file.read(archiver.CHUNK):
                digested.update(chunk)
            # Otherwise a backlog of terabytes would push the server's own data out of the page cache.
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    except OSError:
        return ""
    return digested.hexdigest()
