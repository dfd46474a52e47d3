# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Verification of a backup in tar files against its backup_manifest, as they are: nothing is unpacked onto a disk.

pg_verifybackup reads tar files from PostgreSQL 18 on only, and unpacking a backup would need the room that it was
compressed to save.
"""

from __future__ import annotations

import os
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import IO, cast

from ..errors import HostFailed
from ..host import files, streams
from ..repository import archiver
from . import contents
from .contents import Digested


def problems(folder: str, compression: str, look: Callable[[], None] = lambda: None) -> list[str]:
    """What is wrong with the tar files in a directory, by their backup_manifest there; empty where nothing is.
    ``look`` is called for each of their files.

    Raises HostFailed if a program that unpacks is missing, and InvalidInput for a damaged backup_manifest.
    """
    read = Reading(compression, look)
    for name in sorted(os.listdir(folder)):
        path = os.path.join(folder, name)
        if read.takes(name):
            read.tar(path, archiver.unpacked(path, compression))
        elif name != contents.NAME:
            read.wrong.append(f"{name} does not belong to the backup")
    return contents.problems(os.path.join(folder, contents.NAME), read.files, read.wrong)


@dataclass
class Reading:
    """The files in tar files as they are read, and what is wrong with the tar files themselves."""

    compression: str
    look: Callable[[], None] = lambda: None
    files: dict[bytes, Digested] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    @property
    def ending(self) -> str:
        """Of the names of tar files."""
        return f".tar{archiver.ENDINGS[self.compression]}"

    def takes(self, name: str) -> bool:
        """Whether a file is such a tar file, by its name."""
        return name.endswith(self.ending)

    def tar(self, path: str, content: Iterator[bytes]) -> None:
        """Read one, of which this is the unpacked content. Raises HostFailed."""
        name = os.path.basename(path)
        stem = name[: -len(self.ending)]
        prefix = b"" if stem == "base" else f"pg_tblspc/{stem}/".encode()
        stream: IO[bytes] = streams.stream(content)
        try:
            with streams.opened(stream) as tar:
                for member in tar:
                    tar.members = []  # type: ignore[attr-defined]  # of millions nothing is kept
                    self.look()
                    if member.isreg():
                        inside = prefix + os.path.normpath(member.name).encode("utf-8", "surrogateescape")
                        self.files[inside] = contents.digested(cast("IO[bytes]", tar.extractfile(member)), name)
            rest = b""
            while chunk := stream.read(archiver.CHUNK):  # a compressed file has its checksum behind the tar
                rest = rest or chunk.strip(b"\0")
            if rest:  # tarfile takes a header that it cannot read for the end
                self.wrong.append(f"{name} is damaged: the header of a file in it cannot be read")
        except (archiver.Damaged, tarfile.TarError, EOFError) as error:
            self.wrong.append(f"{name} is damaged: {error}")
        except OSError as error:  # which says nothing about what is stored
            raise files.failure(error, f"{path} cannot be read") from error
        except archiver.Failure as error:
            raise HostFailed(f"{path} cannot be read: {error}.") from error
