# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Directories by their descriptors: what is done in them is done there, whoever renames them or puts links in the
way."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Iterator

DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
MOST_LINKS = 40
"""As in Linux, path_resolution(7)."""


@contextlib.contextmanager
def reached(path: str, create: bool = False) -> Iterator[int]:
    """The descriptor of a directory; with ``create`` it and its parents are made if they do not exist.

    For root each step is one from an open directory to the next: a link is followed only where root alone can have
    put it, so that nobody leads root elsewhere.

    Raises OSError, ELOOP for another's link.
    """
    if os.geteuid() != 0:
        if create:
            os.makedirs(path, exist_ok=True)
        descriptor = os.open(path, DIRECTORY)
    else:
        descriptor = _walked(path, create)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _walked(path: str, create: bool) -> int:
    # Only passed through: reading a directory on the way may not be allowed, as to root on a network's file system.
    here = os.open("/", DIRECTORY | os.O_PATH)
    steps, links = _steps(os.path.abspath(path)), 0
    try:
        while steps:
            step = steps.pop()
            found = _look(here, step, create)
            if found is not None and stat.S_ISLNK(found.st_mode):
                links += 1
                if links > MOST_LINKS or not _by_root(os.fstat(here), found):
                    raise OSError(errno.ELOOP, f"{step} is a link that another user can change", path)
                to = os.readlink(step, dir_fd=here)
                steps += _steps(to)
                step = "/" if os.path.isabs(to) else "."
            following = os.open(step, DIRECTORY | os.O_PATH | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = following
        return os.open(".", DIRECTORY, dir_fd=here)
    finally:
        os.close(here)


def _steps(path: str) -> list[str]:
    """The parts of a path, the last one first."""
    return [step for step in reversed(path.split("/")) if step not in ("", ".")]


def _look(folder: int, name: str, create: bool) -> os.stat_result | None:
    try:
        return os.lstat(name, dir_fd=folder)
    except FileNotFoundError:
        if not create:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, 0o777, dir_fd=folder)
    return None


def _by_root(folder: os.stat_result, link: os.stat_result) -> bool:
    """Whether only root can have put a link into a directory."""
    shared = folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    sticky = bool(folder.st_mode & stat.S_ISVTX) and link.st_uid == 0
    return folder.st_uid == 0 and (not shared or sticky)


@contextlib.contextmanager
def opened(path: str) -> Iterator[int]:
    """The descriptor of a file or directory in another user's directory, which is no link.

    Raises OSError.
    """
    folder, name = os.path.split(path)
    with reached(folder) as place:
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
