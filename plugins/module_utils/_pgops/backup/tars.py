# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Verification of a backup in tar files against its backup_manifest, as they are: nothing is unpacked onto a disk.

pg_verifybackup reads tar files from PostgreSQL 18 on only, and unpacking a backup would need the room that it was
compressed to save.
"""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable, Iterator
from typing import IO, cast

from ..errors import HostFailed
from ..host import files
from ..repository import archiver
from . import contents
from .contents import Comparison


class _Stream(io.RawIOBase):
    """A file of what comes in chunks."""

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


def problems(folder: str, compression: str, look: Callable[[], None] = lambda: None) -> list[str]:
    """What is wrong with the tar files in a directory, by their backup_manifest there; empty where nothing is.
    ``look`` is called for each of their files.

    Raises HostFailed if a program that unpacks is missing, and InvalidInput for a damaged backup_manifest.
    """
    compared = Comparison(os.path.join(folder, contents.NAME))
    found: list[str] = []
    ending = f".tar{archiver.ENDINGS[compression]}"
    for name in sorted(os.listdir(folder)):
        if name.endswith(ending):
            stem = name[: -len(ending)]
            prefix = b"" if stem == "base" else f"pg_tblspc/{stem}/".encode()
            found += _tar(os.path.join(folder, name), compression, prefix, compared, look)
        elif name != contents.NAME:
            found.append(f"{name} does not belong to the backup")
    return compared.ended(found)


def _tar(path: str, compression: str, prefix: bytes, compared: Comparison, look: Callable[[], None]) -> list[str]:
    """The problems of one tar file."""
    stream: IO[bytes] = cast(
        "IO[bytes]", io.BufferedReader(_Stream(archiver.unpacked(path, compression)), archiver.CHUNK)
    )
    found: list[str] = []
    try:
        with tarfile.open(fileobj=stream, mode="r|", encoding="utf-8", errors="surrogateescape") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # of millions nothing is kept
                look()
                if member.isreg():
                    name = prefix + os.path.normpath(member.name).encode("utf-8", "surrogateescape")
                    wrong = compared.file(cast("IO[bytes]", tar.extractfile(member)), name)
                    found += [f"{os.path.basename(path)}: {one}" for one in wrong]
        rest = b""
        while chunk := stream.read(archiver.CHUNK):  # a compressed file has its checksum behind the tar
            rest = rest or chunk.strip(b"\0")
        if rest:  # tarfile takes a header that it cannot read for the end
            found.append(f"{os.path.basename(path)} is damaged: the header of a file in it cannot be read")
    except (archiver.Damaged, tarfile.TarError, EOFError) as error:
        found.append(f"{os.path.basename(path)} is damaged: {error}")
    except OSError as error:  # which says nothing about what is stored
        raise files.failure(error, f"{path} cannot be read") from error
    except archiver.Failure as error:
        raise HostFailed(f"{path} cannot be read: {error}.") from error
    return found
