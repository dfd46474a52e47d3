# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Verification of a plain backup against its backup_manifest, where there is no pg_verifybackup of its version: from
PostgreSQL 17 on, that reads the control file too, whose format is its own version's."""

from __future__ import annotations

import os
from collections.abc import Iterator

from ..host import files
from . import contents
from .contents import Digested

SPACES = b"pg_tblspc"


def problems(folder: str) -> list[str]:
    """What is wrong with the files of a backup in a directory, its tablespaces included; empty where nothing is.

    Raises InvalidInput for a damaged backup_manifest, and HostFailed.
    """
    read: dict[bytes, Digested] = {}
    root = os.fsencode(folder)
    for name in _names(root, b""):
        path = os.path.join(root, name)
        try:
            with open(path, "rb") as file:
                read[name] = contents.digested(file)
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        except FileNotFoundError:  # a link that leads nowhere
            continue
        except OSError as error:
            raise files.failure(error, f"{os.fsdecode(path)} cannot be read") from error
    return contents.problems(os.path.join(folder, contents.NAME), read)


def _names(root: bytes, below: bytes) -> Iterator[bytes]:
    """The files of a data directory by their paths in it; tablespaces are links to directories.

    Raises HostFailed.
    """
    try:
        entries = sorted(os.scandir(os.path.join(root, below)), key=lambda entry: entry.name)
    except OSError as error:
        raise files.failure(error, f"{os.fsdecode(os.path.join(root, below))} cannot be read") from error
    for entry in entries:
        name = os.path.join(below, entry.name)
        if entry.is_dir(follow_symlinks=below == SPACES):
            yield from _names(root, name)
        else:
            yield name
