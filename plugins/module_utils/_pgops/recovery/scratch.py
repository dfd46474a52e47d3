# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A directory for what is only looked at. It is removed in the end; what a killed run has left, by the next one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator

from ..host.files import failure

PREFIX = ".pgops-search-"
ATTEMPTS = 10


@contextlib.contextmanager
def made(folder: str) -> Iterator[str]:
    """A new directory in ``folder``, locked while it is used: of one whose lock is free nobody is left.

    Raises HostFailed.
    """
    try:
        sweep(folder)
        path, descriptor = _locked(folder)
    except OSError as error:
        raise failure(error, f"{folder} cannot be written to") from error
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _locked(folder: str) -> tuple[str, int]:
    for _attempt in range(ATTEMPTS):
        path = tempfile.mkdtemp(prefix=PREFIX, dir=folder)
        with contextlib.suppress(FileNotFoundError):  # another one has swept it before it was locked
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            if _lock(descriptor) and os.path.lexists(path):
                return path, descriptor
            os.close(descriptor)
    raise OSError(f"new directories in {folder} vanish")


def _lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def sweep(folder: str) -> None:
    """Remove such directories of this user that nobody uses any more. Raises OSError."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        if not name.startswith(PREFIX) or os.lstat(path).st_uid != os.geteuid():
            continue
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                if _lock(descriptor):
                    shutil.rmtree(path, ignore_errors=True)
            finally:
                os.close(descriptor)
