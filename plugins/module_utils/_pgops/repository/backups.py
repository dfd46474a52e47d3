# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The backups in a generation of a repository: found, begun, published, read, removed. All as the server's user.

    GENERATION/backup/lock                        one at a time takes or expires backups
    GENERATION/backup/attempt.json                is there from the start of a backup until it is published
    GENERATION/backup/NAME/manifest.json          makes the directory a backup: written last, removed first
    GENERATION/backup/NAME/lock                   who reads the backup shares it, who removes it has it alone
    GENERATION/backup/NAME/checked.json           what the last verification found
    GENERATION/backup/NAME/pin.json               keeps the backup, with all that it needs
    GENERATION/backup/NAME/data/                  what the engine wrote
    GENERATION/backup/NAME/tablespaces/OID/       tablespaces of a plain backup
    GENERATION/backup/NAME/configuration/         configuration files from outside of the data directory

A directory without a manifest is one that is being written, or what a killed run has left. All that decides is in
these files, nothing in their times or owners: a copy of a repository is one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from ..errors import Busy, HostFailed, InvalidInput
from ..host import files
from ..host.files import File
from . import archiver, generations, manifests
from .manifests import Document, Manifest

MANIFEST, LOCK, PIN, CHECKED, ATTEMPT = "manifest.json", "lock", "pin.json", "checked.json", "attempt.json"
DATA, TABLESPACES, CONFIGURATION = "data", "tablespaces", "configuration"
PIN_FORMAT = 1
CHECKED_FORMAT = 1
ATTEMPT_FORMAT = 1
Entry = TypeVar("Entry")
PATIENCE = 60.0
"""Seconds to wait for who locks a backup without removing it, which takes moments."""


@dataclass(frozen=True)
class Kept:
    """A backup that is in the repository: the name of its directory, what it is, and why it is pinned, None if it is
    not. ``checked_at`` is when it was last verified after it was taken, and ``problems`` what that found."""

    name: str
    manifest: Manifest
    pin: str | None = None
    checked_at: datetime | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """What is there: backups in the order of the WAL, names of directories without a manifest, and by their names
    the backups whose manifests cannot be read, with the reason."""

    backups: tuple[Kept, ...] = ()
    unfinished: tuple[str, ...] = ()
    damaged: Mapping[str, str] = field(default_factory=dict)

    def by_id(self) -> dict[str, Kept]:
        """The backups by their UUIDs."""
        return {kept.manifest.id: kept for kept in self.backups}


def folder(repository: str, generation: str) -> str:
    """The directory of a generation's backups."""
    return os.path.join(repository, generation, "backup")


def prepared(repository: str, generation: str) -> str:
    """The same, created if it does not exist in a generation that does.

    Raises HostFailed if this is no generation: is its file system mounted?
    """
    try:
        archiver.check_identity(repository, generation)
        made = folder(repository, generation)
        archiver.make_directory(made)
        return made
    except archiver.Failure as error:
        raise HostFailed(f"{error}.") from error
    except OSError as error:
        raise files.failure(error, f"{repository} cannot be written") from error


def listed(place: str) -> Listing:
    """The backups in a directory; none if it does not exist.

    Raises HostFailed.
    """

    def kept(name: str, text: str, path: str) -> Kept:
        return Kept(name, manifests.parse(text, path), pinned(place, name), *checked(place, name))

    found, unfinished, damaged = entries(place, kept)
    found.sort(key=lambda kept: (kept.manifest.position, kept.manifest.id))
    return Listing(tuple(found), tuple(unfinished), damaged)


def entries(place: str, read: Callable[[str, str, str], Entry]) -> tuple[list[Entry], list[str], dict[str, str]]:
    """What is in the directories of one, by their manifests: ``read`` gets the directory's name, the text, and its
    path. What it makes of them, the names of directories without a manifest, and by their names why others cannot be
    read.

    Raises HostFailed.
    """
    found: list[Entry] = []
    unfinished: list[str] = []
    damaged: dict[str, str] = {}
    try:
        names = sorted(entry.name for entry in os.scandir(place) if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        names = []
    except OSError as error:
        raise files.failure(error, f"{place} cannot be read") from error
    for name in names:
        path = os.path.join(place, name, MANIFEST)
        try:
            found.append(read(name, files.contents(path).decode("utf-8", "replace"), path))
        except FileNotFoundError:
            unfinished.append(name)
        except OSError as error:
            damaged[name] = f"{path} cannot be read: {error.strerror or error}."
        except InvalidInput as error:
            damaged[name] = str(error)
    return found, unfinished, damaged


def everywhere(repository: str) -> list[tuple[str, Kept]]:
    """The backups of all generations of a repository, each with the name of its generation, in the order of the WAL.

    Raises HostFailed.
    """
    places = [(name, folder(repository, name)) for name in generations.present(repository)]
    return [(name, kept) for name, place in places for kept in listed(place).backups]


def checked(place: str, name: str) -> tuple[datetime | None, tuple[str, ...]]:
    """When a backup was last verified, and what that found. What cannot be read is of no verification."""
    try:
        found = json.loads(files.contents(os.path.join(place, name, CHECKED)))
        return manifests.read_time(found["at"]), tuple(map(str, found["problems"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None, ()


def pinned(place: str, name: str) -> str | None:
    """Why a backup is pinned. A pin that cannot be read keeps it as well."""
    try:
        content = files.contents(os.path.join(place, name, PIN))
        return str(json.loads(content)["reason"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return "its pin cannot be read"


@contextlib.contextmanager
def alone(place: str, seconds: float = 0) -> Iterator[int]:
    """Keep all others from taking or expiring backups of the generation; the descriptor is the lock's. A program that
    has it too keeps them away even where this process is killed.

    Raises Busy if another does for longer than ``seconds``.
    """
    try:
        with files.exclusive(os.path.join(place, LOCK), seconds) as lock:
            yield lock
    except Busy as error:
        raise Busy(
            f"Another run is taking or expiring backups in {place}; nothing was changed.", "Wait for its end."
        ) from error


@contextlib.contextmanager
def begun(place: str, name: str) -> Iterator[str]:
    """The directory of a new backup, to be published inside: otherwise it is removed again at the end.

    To be used inside `alone`. Raises HostFailed.
    """
    path = os.path.join(place, name)
    attempt(place, name)
    try:
        os.mkdir(path, 0o750)
        files.sync(place)
    except OSError as error:
        raise files.failure(error, f"{path} cannot be written") from error
    try:
        yield path
    finally:
        if not os.path.lexists(os.path.join(path, MANIFEST)):
            discard(path)


def attempt(place: str, name: str) -> None:
    """Note that a backup is attempted, which `begun` does too: until one is published, that has failed. To be used
    inside `alone`.

    Raises HostFailed.
    """
    content: dict[str, Any] = {"format": ATTEMPT_FORMAT, "name": name}
    files.apply([File(os.path.join(place, ATTEMPT), (json.dumps(content) + "\n").encode(), 0o640)])


def failed(place: str) -> bool:
    """Whether the newest attempt of a backup has failed, or was killed; also true while one is running."""
    return os.path.lexists(os.path.join(place, ATTEMPT))


def publish(path: str, manifest: Document, settled: bool = True) -> None:
    """Make a directory, all of whose files are on disk, a backup. If it is not ``settled``, more has to be done until
    the attempt counts as a good one.

    Raises HostFailed.
    """
    files.apply(
        [
            File(os.path.join(path, LOCK), b"", 0o640),
            File(os.path.join(path, MANIFEST), manifest.text().encode(), 0o640),
        ]
    )
    if settled:
        settle(os.path.dirname(path))


def settle(place: str) -> None:
    """The attempt to take a backup was a good one. Raises HostFailed."""
    files.discard(os.path.join(place, ATTEMPT))


@contextlib.contextmanager
def reading(place: str, names: Sequence[str]) -> Iterator[None]:
    """Keep backups from being removed, with the WAL that leads from them to anywhere.

    Raises HostFailed if one of them is gone, or is being removed.
    """
    until = time.monotonic() + PATIENCE
    with contextlib.ExitStack() as held:
        for name in names:
            path = os.path.join(place, name)
            descriptor = _locked(path, fcntl.LOCK_SH)
            while descriptor is None and os.path.exists(os.path.join(path, MANIFEST)) and time.monotonic() < until:
                time.sleep(0.05)
                descriptor = _locked(path, fcntl.LOCK_SH)
            if descriptor is None:
                raise HostFailed(f"Backup {name} is being removed from {place}.", "Choose another one.")
            held.callback(os.close, descriptor)
            if not os.path.exists(os.path.join(path, MANIFEST)):
                raise HostFailed(f"Backup {name} is no longer in {place}.", "Choose another one.")
        yield


@contextlib.contextmanager
def unread(place: str, names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Keep backups from being read for a moment: who wants to waits. Gives the names of those that are being read.

    Raises HostFailed.
    """
    with contextlib.ExitStack() as held:
        busy = []
        for name in names:
            descriptor = _locked(os.path.join(place, name), fcntl.LOCK_EX)
            if descriptor is None:
                busy.append(name)
            else:
                held.callback(os.close, descriptor)
        yield tuple(busy)


def being_read(place: str, name: str) -> bool:
    """Whether somebody reads a backup now."""
    descriptor = _locked(os.path.join(place, name), fcntl.LOCK_EX)
    if descriptor is None:
        return True
    os.close(descriptor)
    return False


def remove(place: str, name: str, gone: Callable[[], None] = lambda: None) -> bool:
    """Remove a backup: its manifest, then its files, so that a crash leaves garbage and never a lie; False if it is
    being read, or pinned. ``gone`` is called once it no longer counts. To be used inside `alone`.

    Raises HostFailed.
    """
    path = os.path.join(place, name)
    descriptor = _locked(path, fcntl.LOCK_EX)
    if descriptor is None:
        return False
    try:
        # Who pins a backup shares its lock.
        if os.path.lexists(os.path.join(path, PIN)):
            return False
        os.unlink(os.path.join(path, MANIFEST))
        files.sync(path)
        gone()
    except OSError as error:
        raise files.failure(error, f"{path} cannot be removed") from error
    finally:
        os.close(descriptor)
    # Without its manifest nobody reads it. On NFS a directory with an open file in it cannot be removed.
    discard(path)
    return True


def sweep(place: str) -> tuple[str, ...]:
    """Remove what killed runs have left; the names. To be used inside `alone`: nobody else is writing a backup.

    Raises HostFailed.
    """
    left = listed(place).unfinished
    for name in left:
        discard(os.path.join(place, name))
    return left


def discard(path: str) -> None:
    """Remove the directory of what is no backup. Raises HostFailed."""
    try:
        files.remove(path)
        files.sync(os.path.dirname(path))
    except OSError as error:
        raise files.failure(error, f"{path} cannot be removed") from error


def _locked(path: str, how: int) -> int | None:
    """The descriptor that holds the lock of a backup, None if another holds it. Raises HostFailed."""
    try:
        # A copy of a repository may be readable only, and locks of the network's file systems want what they lock
        # to be open for writing.
        flags = os.O_CLOEXEC | os.O_NOFOLLOW
        lock = os.path.join(path, LOCK)
        descriptor = os.open(lock, flags | (os.O_RDWR if os.access(lock, os.W_OK) else os.O_RDONLY))
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return None
        raise files.failure(error, f"{path} cannot be locked") from error
    return descriptor


def note_checked(place: str, name: str, problems: Sequence[str], when: datetime) -> None:
    """Note what a verification of a backup has found. Raises HostFailed."""
    content = {"format": CHECKED_FORMAT, "at": manifests.written(when), "problems": list(problems)}
    files.apply([File(os.path.join(place, name, CHECKED), (json.dumps(content) + "\n").encode(), 0o640)])


def pin(place: str, name: str, reason: str) -> None:
    """Keep a backup, with all that it needs, until it is unpinned. Raises HostFailed, also where it is gone."""
    content: dict[str, Any] = {"format": PIN_FORMAT, "reason": reason}
    with reading(place, [name]):
        files.apply([File(os.path.join(place, name, PIN), (json.dumps(content) + "\n").encode(), 0o640)])


def unpin(place: str, name: str) -> None:
    """Let a backup expire as others do. Raises HostFailed."""
    files.discard(os.path.join(place, name, PIN))
