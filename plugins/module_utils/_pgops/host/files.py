# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files, directories and links of a host: read, planned, and written so that a crash leaves the old or the new
one."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import shutil
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors import Busy, Conflict, HostFailed
from ..plan import HostChange, difference
from .directories import reached
from .identity import working_as

SYNCING = 16
"""Files that are flushed to disk at a time."""


@dataclass(frozen=True)
class Found:
    """The current content of a path. ``kind`` is file, directory, link or other."""

    kind: str
    mode: int
    owner: str
    group: str
    content: bytes = b""
    to: str = ""


@dataclass(frozen=True)
class Entry(ABC):
    """The wanted content of a path."""

    path: str

    @abstractmethod
    def make(self) -> None:
        """Create or replace it, in one step for other processes. Raises HostFailed and OSError."""

    @abstractmethod
    def as_found(self, present: Found | None) -> Found:
        """What read() returns after that; properties not declared stay as ``present``."""


@dataclass(frozen=True)
class File(Entry):
    """A wanted file. A diff shows the content, but for a ``secret`` file only that it changes. ``owner`` and
    ``group`` None: those of the process."""

    content: bytes = field(repr=False)
    mode: int = 0o644
    owner: str | None = None
    group: str | None = None
    secret: bool = False

    def make(self) -> None:
        """Write a new file, flush it to disk, rename it."""
        write(self)

    def as_found(self, present: Found | None) -> Found:
        """With the declared content."""
        return Found("file", self.mode, *_owners(self.owner, self.group, present), self.content)


@dataclass(frozen=True)
class Directory(Entry):
    """A wanted directory."""

    mode: int = 0o755
    owner: str | None = None
    group: str | None = None

    def make(self) -> None:
        """Create it with its parents, if necessary."""
        with reached(self.path, create=True) as descriptor:
            os.fchmod(descriptor, self.mode)
            own(descriptor, self.owner, self.group)

    def as_found(self, present: Found | None) -> Found:
        """Whatever is in it."""
        return Found("directory", self.mode, *_owners(self.owner, self.group, present))


@dataclass(frozen=True)
class Link(Entry):
    """A wanted symbolic link."""

    to: str

    def make(self) -> None:
        """Create a new link, rename it."""
        folder, name = os.path.split(self.path)
        temporary = f"{name}.new"
        with reached(folder) as place:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=place)
            os.symlink(self.to, temporary, dir_fd=place)
            os.replace(temporary, name, src_dir_fd=place, dst_dir_fd=place)
            os.fsync(place)

    def as_found(self, present: Found | None) -> Found:
        """With the declared target."""
        mode, owner, group = (present.mode, present.owner, present.group) if present else (0o777, "", "")
        return Found("link", mode, owner, group, to=self.to)


def _owners(owner: str | None, group: str | None, present: Found | None) -> tuple[str, str]:
    return owner or (present.owner if present else ""), group or (present.group if present else "")


def read(path: str) -> Found | None:
    """The content of a path, without following a link; None if it does not exist.

    Raises HostFailed.
    """
    try:
        status = os.lstat(path)
        owner, group = user_name(status.st_uid), group_name(status.st_gid)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            return Found("link", mode, owner, group, to=os.readlink(path))
        if stat.S_ISDIR(status.st_mode):
            return Found("directory", mode, owner, group)
        if not stat.S_ISREG(status.st_mode):
            return Found("other", mode, owner, group)
        # Safe if another user replaces it by a link or a pipe just now.
        return Found("file", mode, owner, group, content=contents(path, follow=False))
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failure(error, f"{path} cannot be read") from error


def packed(found: Found | None) -> dict[str, Any] | None:
    """What is at a path, as JSON."""
    return {**asdict(found), "content": found.content.decode("latin-1")} if found else None


def unpacked(document: Mapping[str, Any] | None) -> Found | None:
    """The same from JSON."""
    return Found(**{**document, "content": document["content"].encode("latin-1")}) if document else None


WRITING = 30.0
"""Seconds for which what a killed run has started, such as a compiler, may go on writing into a directory."""

LARGEST = 64 * 1024 * 1024
"""Bytes of the largest file that is read."""


def contents(path: str, limit: int = LARGEST, follow: bool = True) -> bytes:
    """The bytes of a regular file, at most ``limit``; with ``follow`` also of one that a link leads to.

    Raises OSError, also for a larger file, and at once for a pipe or a device, on which others wait for ever.
    """
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC | (0 if follow else os.O_NOFOLLOW)
    descriptor = os.open(path, flags)
    with open(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", path)
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has more than {limit} bytes", path)
    return content


def user_name(uid: int) -> str:
    """A user's name, or its number if it has none."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """A group's name, or its number if it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


@dataclass(frozen=True)
class EntryChange(HostChange):
    """A file, directory or link that is created or replaced."""

    entry: Entry = field(repr=False, compare=False)

    @property
    def path(self) -> str:
        """Where it is."""
        return self.entry.path

    def apply(self) -> None:
        """Create or replace it, never half written."""
        apply([self.entry])


@dataclass(frozen=True)
class PathRemoval(HostChange):
    """Whatever is at a path is removed."""

    path: str = field(compare=False)

    def apply(self) -> None:
        """Remove it, a directory with its content."""
        discard(self.path)


def plan(wanted: Iterable[Entry], found: Mapping[str, Found | None]) -> tuple[EntryChange, ...]:
    """The changes that create or replace paths as wanted.

    Raises Conflict if a path is of another kind: then it is not ours.
    """
    return tuple(change for entry in wanted for change in _entry(entry, found.get(entry.path)))


def removal(paths: Iterable[str], found: Mapping[str, Found | None]) -> tuple[PathRemoval, ...]:
    """The changes that remove what is at the paths."""
    return tuple(
        PathRemoval(f"{present.kind} {path}", _shown(present, secret=True), None, path)
        for path in paths
        for present in [found.get(path)]
        if present is not None
    )


def _entry(entry: Entry, present: Found | None) -> tuple[EntryChange, ...]:
    wanted = entry.as_found(present)
    kind = wanted.kind
    if present and present.kind != kind:
        raise Conflict(
            f"{entry.path} is a {present.kind}, but must be a {kind}.",
            "Links are not followed. To use another file system, mount it there."
            if (kind, present.kind) == ("directory", "link")
            else "Find out who created it, and move it away.",
        )
    if present == wanted:
        return ()
    if kind == "link":
        before = {"to": present.to} if present else None
        return (EntryChange(f"link {entry.path}", before, {"to": wanted.to}, entry),)
    secret = isinstance(entry, File) and entry.secret
    old = _shown(present, secret) if present else None
    new = _shown(wanted, secret)
    if secret and present and present.content != wanted.content:
        new["content"] = "another (hidden)"
    return difference(EntryChange(f"{kind} {entry.path}", old, new, entry))


def _shown(found: Found, secret: bool) -> dict[str, Any]:
    described: dict[str, Any] = {"mode": f"{found.mode:04o}", "owner": found.owner, "group": found.group}
    if found.kind == "file":
        described["content"] = "(hidden)" if secret else "\n" + found.content.decode("utf-8", "backslashreplace")
    return {key: value for key, value in described.items() if value != ""}


def apply(entries: Iterable[Entry]) -> None:
    """Create or replace paths as wanted.

    Raises HostFailed; nothing is left half written.
    """
    for entry in entries:
        try:
            entry.make()
        except OSError as error:
            raise failure(error, f"{entry.path} cannot be written") from error


@contextlib.contextmanager
def opened_directory(path: str) -> Iterator[int]:
    """The descriptor of a directory, which is no link: what is in it is reached by that, whoever may rename it.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def discard(path: str) -> None:
    """Remove a path, if it exists.

    Raises HostFailed.
    """
    try:
        remove(path)
    except OSError as error:
        raise failure(error, f"{path} cannot be written") from error


def write(file: File) -> None:
    """Write a new file, flush it to disk, rename it.

    The new file always has the same temporary name, so that one left by a killed run is replaced by the next.
    """
    folder, name = os.path.split(file.path)
    temporary = unfinished(name)
    with reached(folder) as place:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=place)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600, dir_fd=place)
        try:
            with os.fdopen(descriptor, "wb") as handle:
                handle.write(file.content)
                handle.flush()
                own(handle.fileno(), file.owner, file.group)
                os.fchmod(handle.fileno(), file.mode)
                os.fsync(handle.fileno())
            os.replace(temporary, name, src_dir_fd=place, dst_dir_fd=place)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=place)
            raise
        os.fsync(place)


def unfinished(name: str) -> str:
    """The name of a file until all of it is written."""
    return f".{name}.pgops-new"


def own(descriptor: int, owner: str | None, group: str | None) -> None:
    """Change the owner and group (names, or numbers as text) of an open file or directory.

    Raises HostFailed if the host has no such user or group, and OSError.
    """
    if not owner and not group:
        return
    try:
        uid = -1 if not owner else int(owner) if owner.isdigit() else pwd.getpwnam(owner).pw_uid
        gid = -1 if not group else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise HostFailed(f"This host has no such user or group: {error.args[0]}.") from error
    os.fchown(descriptor, uid, gid)


def rewrite(path: str, old: bytes, new: bytes) -> None:
    """Replace the content of a file of the user of this process, in whose place it is; its mode stays, and its group
    where that is one of the user's.

    Raises Conflict if it is not what it was when it was read, HostFailed and OSError.
    """
    found = read(path)
    if found is None or found.kind != "file" or found.content != old:
        raise Conflict(f"{path} has just been changed by somebody else.", "Retry.")
    group = os.lstat(path).st_gid
    apply([File(path, new, found.mode, None, str(group) if group in os.getgroups() else None)])


def remove(path: str) -> None:
    """Remove a file, a link or a directory with its content, if it exists."""
    if os.path.isdir(path) and not os.path.islink(path):
        _remove_tree(path, time.monotonic() + WRITING)
        return
    folder, name = os.path.split(path)
    with contextlib.suppress(FileNotFoundError), reached(folder) as place:
        os.unlink(name, dir_fd=place)


def _remove_tree(path: str, until: float) -> None:
    """Remove a directory, until a time again if something is put into it meanwhile."""
    while True:
        try:
            shutil.rmtree(path)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY or time.monotonic() > until:
                raise
            time.sleep(0.05)
        else:
            return


def sync_tree(root: str) -> None:
    """Flush all files and directories below ``root`` to disk: once all are written, and several at a time, for which
    the file system writes its journal once. That takes a fraction of the time that each one at once would.

    Raises OSError.
    """
    from concurrent.futures import ThreadPoolExecutor  # which takes 40 ms to load, and few need

    paths = _below(root)
    taking = threading.Lock()

    def work() -> None:
        while True:
            with taking:
                path = next(paths, None)
            if path is None:
                return
            sync(path)

    with ThreadPoolExecutor(SYNCING) as pool:
        for one in [pool.submit(work) for _number in range(SYNCING)]:
            one.result()


def _below(root: str) -> Iterator[str]:
    """All files, and each directory behind those in it."""
    for folder, _folders, names in os.walk(root):
        yield from (os.path.join(folder, name) for name in names)
        yield folder


def sync(path: str) -> None:
    """Flush a file to disk, or the renames in a directory."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def failure(error: OSError, what: str) -> HostFailed:
    """The error of the operating system, with a hint."""
    hint = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Free space on that file system, then retry."
    if isinstance(error, PermissionError) and os.geteuid():
        hint = "Run as root (become: true), or check the owner of the path."
        if working_as():
            hint = f"User {working_as()} must have access, to it and to the directories above it."
    return HostFailed(f"{what}: {error.strerror or error}.", hint)


@contextlib.contextmanager
def umask(mask: int) -> Iterator[None]:
    """Another umask inside."""
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextlib.contextmanager
def exclusive(path: str, seconds: float) -> Iterator[int]:
    """Hold the lock of a file, which is created if it does not exist; it is released however the process ends. The
    descriptor that holds it may be given to a program, which then holds it as well.

    Raises Busy if another process holds it for longer than ``seconds``.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise failure(error, f"{path} cannot be written") from error
    try:
        _lock(descriptor, path, time.monotonic() + seconds)
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def occupied(folder: str, seconds: float = 0.0) -> Iterator[int]:
    """Hold the lock of a directory, as ``exclusive`` that of a file: a program that was given the descriptor may go
    on to write into it when the run that started it was killed.

    Raises Busy as that does, and OSError where the directory cannot be opened.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        _lock(descriptor, folder, time.monotonic() + seconds)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Busy(f"Another run is using {path}; nothing was changed.") from None
            time.sleep(0.1)
        else:
            return
