# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tar files that come in chunks, as from a program that unpacks them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from typing import IO, cast

SIZE = 1 << 20
"""Bytes that are taken at a time."""


def stream(chunks: Iterator[bytes]) -> IO[bytes]:
    """A file of what comes in chunks."""
    return cast("IO[bytes]", io.BufferedReader(_Chunks(chunks), SIZE))


def opened(source: IO[bytes]) -> tarfile.TarFile:
    """A tar file to be read from its beginning to its end, with names of any bytes. Raises tarfile.TarError."""
    return tarfile.open(fileobj=source, mode="r|", encoding="utf-8", errors="surrogateescape")


class _Chunks(io.RawIOBase):
    def __init__(self, chunks: Iterator[bytes]) -> None:
        super().__init__()
        self.chunks, self.left = chunks, memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: object) -> int:
        view = memoryview(buffer)  # type: ignore[arg-type]
        while not self.left:
            chunk = next(self.chunks, None)
            if chunk is None:
                return 0
            self.left = memoryview(chunk)
        count = min(len(view), len(self.left))
        view[:count] = self.left[:count]
        self.left = self.left[count:]
        return count
