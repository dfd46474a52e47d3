# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files, directories and links of a host: read, planned, and written so that a crash leaves old or new."""

from __future__ import annotations

import contextlib
import fcntl
import grp
import hashlib
import os
import pwd
import shutil
import stat
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Union

from .errors import Busy, HostFailed
from .plan import Change, difference


@dataclass(frozen=True)
class File:
    """A file as it is to be. A diff shows the content of a ``shown`` file and only a digest of others;
    a secret shows nothing but that it changes. ``owner`` and ``group`` None leave them to who runs this."""

    path: str
    content: bytes = field(repr=False)
    mode: int = 0o644
    owner: str | None = None
    group: str | None = None
    shown: bool = True
    secret: bool = False


@dataclass(frozen=True)
class Directory:
    """A directory as it is to be."""

    path: str
    mode: int = 0o755
    owner: str | None = None
    group: str | None = None


@dataclass(frozen=True)
class Link:
    """A symbolic link as it is to be."""

    path: str
    to: str


Entry = Union[File, Directory, Link]


@dataclass(frozen=True)
class Found:
    """What is at a path now. ``kind`` is file, directory, link or other."""

    kind: str
    mode: int
    owner: str
    group: str
    content: bytes = b""
    to: str = ""


def read(path: str) -> Found | None:
    """What is at a path, without following a link; None where nothing is.

    Raises HostFailed.
    """
    try:
        status = os.lstat(path)
        owner, group = _user_name(status.st_uid), _group_name(status.st_gid)
        mode = stat.S_IMODE(status.st_mode)
        if stat.S_ISLNK(status.st_mode):
            return Found("link", mode, owner, group, to=os.readlink(path))
        if stat.S_ISDIR(status.st_mode):
            return Found("directory", mode, owner, group)
        if not stat.S_ISREG(status.st_mode):
            return Found("other", mode, owner, group)
        with open(path, "rb") as file:
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


def _group_name(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def plan(wanted: Iterable[Entry], found: dict[str, Found | None]) -> tuple[Change, ...]:
    """The changes that make paths what they are to be; a change's step is the entry."""
    return tuple(change for entry in wanted for change in _entry(entry, found.get(entry.path)))


def removal(paths: Iterable[str], found: dict[str, Found | None]) -> tuple[Change, ...]:
    """The changes that remove what is at the paths; a change's step is the path."""
    return tuple(
        Change(f"{present.kind} {path}", _shown(present, shown=False, secret=False), None, path)
        for path in paths
        for present in [found.get(path)]
        if present is not None
    )


def _entry(entry: Entry, present: Found | None) -> tuple[Change, ...]:
    if isinstance(entry, Link):
        before = {"to": present.to} if present and present.kind == "link" else None
        return difference(f"link {entry.path}", before, {"to": entry.to}, entry)
    shown = isinstance(entry, File) and entry.shown and not entry.secret
    secret = isinstance(entry, File) and entry.secret
    kind = "file" if isinstance(entry, File) else "directory"
    wanted = Found(
        kind,
        entry.mode,
        entry.owner or (present.owner if present else ""),
        entry.group or (present.group if present else ""),
        entry.content if isinstance(entry, File) else b"",
    )
    if present == wanted:
        return ()
    before = _shown(present, shown, secret) if present else None
    after = _shown(wanted, shown, secret)
    if secret and present and present.content != wanted.content:
        after["content"] = "another (hidden)"
    return difference(f"{kind} {entry.path}", before, after, entry)


def _shown(found: Found, shown: bool, secret: bool) -> dict[str, Any]:
    described: dict[str, Any] = {"mode": f"{found.mode:04o}", "owner": found.owner, "group": found.group}
    if found.kind == "file":
        if secret:
            described["content"] = "(hidden)"
        elif shown:
            described["content"] = "\n" + found.content.decode("utf-8", "backslashreplace")
        else:
            described["content"] = f"sha256 {hashlib.sha256(found.content).hexdigest()}"
    return {key: value for key, value in described.items() if value != ""}


def apply(steps: Sequence[Any]) -> None:
    """Carry out the steps of a plan in their order.

    Raises HostFailed, with nothing half written.
    """
    for step in steps:
        try:
            if isinstance(step, File):
                write(step)
            elif isinstance(step, Directory):
                _make_directory(step)
            elif isinstance(step, Link):
                _make_link(step)
            else:
                remove(str(step))
        except OSError as error:
            path = step if isinstance(step, str) else step.path
            raise failure(error, f"{path} cannot be written") from error


def write(file: File) -> None:
    """Write beside, flush to disk, rename over."""
    folder = os.path.dirname(file.path)
    descriptor, temporary = tempfile.mkstemp(prefix=".pgops-", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(file.content)
            handle.flush()
            os.fchmod(handle.fileno(), file.mode)
            _own(handle.fileno(), file.owner, file.group)
            os.fsync(handle.fileno())
        os.replace(temporary, file.path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    sync_directory(folder)


def _make_directory(directory: Directory) -> None:
    os.makedirs(directory.path, exist_ok=True)
    os.chmod(directory.path, directory.mode)
    _own(directory.path, directory.owner, directory.group)


def _own(where: int | str, owner: str | None, group: str | None) -> None:
    if owner or group:
        uid = pwd.getpwnam(owner).pw_uid if owner else -1
        gid = grp.getgrnam(group).gr_gid if group else -1
        os.chown(where, uid, gid)


def _make_link(link: Link) -> None:
    temporary = f"{link.path}.new"
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)
    os.symlink(link.to, temporary)
    os.replace(temporary, link.path)
    sync_directory(os.path.dirname(link.path))


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
    hint = "Make room on that filesystem and run this again." if error.errno == 28 else ""
    if isinstance(error, PermissionError):
        hint = "Run this as root (become: true)."
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
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
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
