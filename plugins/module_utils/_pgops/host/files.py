# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files, directories and links of a host: read, planned, and written so that a crash leaves old or new."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import grp
import os
import pwd
import shutil
import stat
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import Busy, Conflict, HostFailed
from ..plan import HostChange, difference


@dataclass(frozen=True)
class Found:
    """What is at a path now. ``kind`` is file, directory, link or other."""

    kind: str
    mode: int
    owner: str
    group: str
    content: bytes = b""
    to: str = ""


@dataclass(frozen=True)
class Entry(ABC):
    """What is to be at a path."""

    path: str

    @abstractmethod
    def make(self) -> None:
        """Make it so, at once as others see it. Raises HostFailed and OSError."""

    @abstractmethod
    def as_found(self, present: Found | None) -> Found:
        """What is found there once it is so; what is not declared stays as ``present``."""


@dataclass(frozen=True)
class File(Entry):
    """A file as it is to be. A diff shows the content, of a ``secret`` file nothing but that it changes.
    ``owner`` and ``group`` None leave them to who runs this."""

    content: bytes = field(repr=False)
    mode: int = 0o644
    owner: str | None = None
    group: str | None = None
    secret: bool = False

    def make(self) -> None:
        """Write beside, flush to disk, rename over."""
        write(self)

    def as_found(self, present: Found | None) -> Found:
        """With the declared content."""
        return Found("file", self.mode, *_owners(self.owner, self.group, present), self.content)


@dataclass(frozen=True)
class Directory(Entry):
    """A directory as it is to be."""

    mode: int = 0o755
    owner: str | None = None
    group: str | None = None

    def make(self) -> None:
        """Make it with those above it, if need be."""
        os.makedirs(self.path, exist_ok=True)
        os.chmod(self.path, self.mode)
        own(self.path, self.owner, self.group)

    def as_found(self, present: Found | None) -> Found:
        """Whatever is in it."""
        return Found("directory", self.mode, *_owners(self.owner, self.group, present))


@dataclass(frozen=True)
class Link(Entry):
    """A symbolic link as it is to be."""

    to: str

    def make(self) -> None:
        """Make it beside, rename over."""
        temporary = f"{self.path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        os.symlink(self.to, temporary)
        os.replace(temporary, self.path)
        sync_directory(os.path.dirname(self.path))

    def as_found(self, present: Found | None) -> Found:
        """Leading where it is to."""
        return replace(present, to=self.to) if present else Found("link", 0o777, "", "", to=self.to)


def _owners(owner: str | None, group: str | None, present: Found | None) -> tuple[str, str]:
    return owner or (present.owner if present else ""), group or (present.group if present else "")


def read(path: str) -> Found | None:
    """What is at a path, without following a link; None where nothing is.

    Raises HostFailed.
    """
    try:
        status = os.lstat(path)
        owner, group = _user_name(status.st_uid), group_name(status.st_gid)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            return Found("link", mode, owner, group, to=os.readlink(path))
        if stat.S_ISDIR(status.st_mode):
            return Found("directory", mode, owner, group)
        if not stat.S_ISREG(status.st_mode):
            return Found("other", mode, owner, group)
        # Neither what a link leads to nor a pipe, if somebody puts one there now.
        with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
            return Found("file", mode, owner, group, content=file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise failure(error, f"{path} cannot be read") from error


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def group_name(gid: int) -> str:
    """A group's name, or its number where it has none."""
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


@dataclass(frozen=True)
class EntryChange(HostChange):
    """A file, directory or link that is made or made anew."""

    entry: Entry = field(repr=False, compare=False)

    @property
    def path(self) -> str:
        """Where it is."""
        return self.entry.path

    def apply(self) -> None:
        """Make it, with nothing half written."""
        apply([self.entry])


@dataclass(frozen=True)
class PathRemoval(HostChange):
    """Whatever is at a path is removed."""

    path: str = field(compare=False)

    def apply(self) -> None:
        """Remove it, a directory with all that is in it."""
        discard(self.path)


def plan(wanted: Iterable[Entry], found: Mapping[str, Found | None]) -> tuple[EntryChange, ...]:
    """The changes that make paths what they are to be.

    Raises Conflict where a thing of another kind is at a path, which is somebody's.
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
            f"{entry.path} is a {present.kind}, and has to be a {kind}.",
            "Mount the other filesystem there instead; links are not followed."
            if (kind, present.kind) == ("directory", "link")
            else "See whose it is, and move it out of the way.",
        )
    if present == wanted:
        return ()
    if kind == "link":
        there = {"to": present.to} if present else None
        return (EntryChange(f"link {entry.path}", there, {"to": wanted.to}, entry),)
    secret = isinstance(entry, File) and entry.secret
    before = _shown(present, secret) if present else None
    after = _shown(wanted, secret)
    if secret and present and present.content != wanted.content:
        after["content"] = "another (hidden)"
    return difference(EntryChange(f"{kind} {entry.path}", before, after, entry))


def _shown(found: Found, secret: bool) -> dict[str, Any]:
    described: dict[str, Any] = {"mode": f"{found.mode:04o}", "owner": found.owner, "group": found.group}
    if found.kind == "file":
        described["content"] = "(hidden)" if secret else "\n" + found.content.decode("utf-8", "backslashreplace")
    return {key: value for key, value in described.items() if value != ""}


def apply(entries: Iterable[Entry]) -> None:
    """Make paths what they are to be.

    Raises HostFailed, with nothing half written.
    """
    for entry in entries:
        try:
            entry.make()
        except OSError as error:
            raise failure(error, f"{entry.path} cannot be written") from error


def discard(path: str) -> None:
    """Remove what is at a path, if anything is.

    Raises HostFailed.
    """
    try:
        remove(path)
    except OSError as error:
        raise failure(error, f"{path} cannot be written") from error


def write(file: File) -> None:
    """Write beside, flush to disk, rename over.

    The file beside has always the same name, so that one which a killed run left is used up by the next.
    """
    folder, name = os.path.split(file.path)
    temporary = os.path.join(folder, f".{name}.pgops-new")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(file.content)
            handle.flush()
            os.fchmod(handle.fileno(), file.mode)
            own(handle.fileno(), file.owner, file.group)
            os.fsync(handle.fileno())
        os.replace(temporary, file.path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(folder)


def own(where: int | str, owner: str | None, group: str | None) -> None:
    """Give a file, or what an open one's number stands for, to an owner and a group: names, or numbers as text.

    Raises HostFailed for one that the host does not know, and OSError.
    """
    if not owner and not group:
        return
    try:
        uid = -1 if not owner else int(owner) if owner.isdigit() else pwd.getpwnam(owner).pw_uid
        gid = -1 if not group else int(group) if group.isdigit() else grp.getgrnam(group).gr_gid
    except KeyError as error:
        raise HostFailed(f"This host has no such user or group: {error.args[0]}.") from error
    if isinstance(where, int):
        os.fchown(where, uid, gid)
    else:
        os.lchown(where, uid, gid)


def remove(path: str) -> None:
    """Remove a file, a link or a whole directory; nothing there is well, too."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
        return
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def sync_directory(path: str) -> None:
    """Make renames in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def failure(error: OSError, what: str) -> HostFailed:
    """The operating system's refusal with what to do about it."""
    hint = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hint = "Make room on that filesystem and run this again."
    if isinstance(error, PermissionError) and os.geteuid():
        hint = "Run this as root (become: true), or see to whose the path is."
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
def exclusive(path: str, seconds: float) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is not there; it is released however the process ends.

    Raises Busy where another holds it for longer than ``seconds``.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    except OSError as error:
        raise failure(error, f"{path} cannot be written") from error
    try:
        _lock(descriptor, path, time.monotonic() + seconds)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, path: str, deadline: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise Busy(f"Another run holds {path}; nothing was done.") from None
            time.sleep(0.1)
        else:
            return
