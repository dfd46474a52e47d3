# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster's repository: a directory that only its initialisation makes, with a generation for every system
identifier and major version that the cluster has had."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import Conflict, HostFailed, InvalidInput
from ..host import files
from ..host.files import Directory, Entry, EntryChange, File, Found
from ..host.identity import acting_as
from .archiver import IDENTITY as GENERATION_FILE

FORMAT = 1
IDENTITY = "repository.json"
NOT_OURS_TO_MIND = frozenset({"lost+found", ".snapshot", ".zfs"})
"""What a file system has in its topmost directory by itself."""


@dataclass(frozen=True)
class Generation:
    """One life of a cluster: pg_upgrade, and nothing else, begins another. ``segment_bytes`` is the size of a WAL
    segment."""

    system_identifier: str
    major: int
    segment_bytes: int

    @property
    def name(self) -> str:
        """The name of its directory."""
        return f"{self.system_identifier}-{self.major}"


@dataclass(frozen=True)
class Wanted:
    """The repository that an instance is to archive into. ``mount`` is the directory at which its file system has to
    be mounted, '' where it may be part of another; ``owner`` and ``group`` run the server. A ``standby`` makes
    nothing: what it made would hide that it does not see its primary's file system."""

    path: str
    cluster: str
    generation: Generation
    owner: str
    group: str
    mount: str = ""
    another_server: bool = False
    standby: bool = False


@dataclass(frozen=True)
class Present:
    """What is there. ``cluster`` is None where there is no repository; ``generations`` map names to what their
    identity files hold; ``strange`` are other things in the directory."""

    parent: bool = True
    mounted: bool = True
    cluster: str | None = None
    generations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    strange: tuple[str, ...] = ()
    found: Mapping[str, Found | None] = field(default_factory=dict)


def entries(wanted: Wanted) -> list[Entry]:
    """What makes up a repository with one generation; identity files come after what they stand for."""
    whole = (wanted.owner, wanted.group)
    generation = os.path.join(wanted.path, wanted.generation.name)
    about = {
        "system_identifier": wanted.generation.system_identifier,
        "major": wanted.generation.major,
        "wal_segment_size": wanted.generation.segment_bytes,
    }
    return [
        Directory(wanted.path, 0o750, *whole),
        File(os.path.join(wanted.path, IDENTITY), _document({"cluster": wanted.cluster}), 0o640, *whole),
        Directory(generation, 0o750, *whole),
        Directory(os.path.join(generation, "wal"), 0o750, *whole),
        File(os.path.join(generation, GENERATION_FILE), _document(about), 0o640, *whole),
    ]


def _document(data: Mapping[str, Any]) -> bytes:
    return (json.dumps({"format": FORMAT, **data}, indent=2, sort_keys=True) + "\n").encode()


def read(wanted: Wanted) -> Present:
    """What is there now.

    Raises HostFailed.
    """
    parent = os.path.isdir(os.path.dirname(wanted.path))
    mounted = not wanted.mount or os.path.ismount(wanted.mount)
    if not os.path.isdir(wanted.path):
        return Present(parent, mounted)
    try:
        names = sorted(set(os.listdir(wanted.path)) - NOT_OURS_TO_MIND)
    except OSError as error:
        raise files.failure(error, f"{wanted.path} cannot be read") from error
    identity = _read(os.path.join(wanted.path, IDENTITY))
    known = generations(wanted.path, names)
    return Present(
        parent,
        mounted,
        cluster=str(identity.get("cluster")) if identity else None,
        generations=known,
        # A run that was killed leaves the generation's directory without its identity file.
        strange=tuple(name for name in names if name not in {*known, IDENTITY, wanted.generation.name}),
        found={entry.path: files.read(entry.path) for entry in entries(wanted)},
    )


def generations(path: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """What the identity files of generations hold, of those of the names in a repository that are generations.

    Raises HostFailed.
    """
    folders = [name for name in names if os.path.isdir(os.path.join(path, name))]
    found = {name: _read(os.path.join(path, name, GENERATION_FILE)) for name in folders}
    return {name: identity for name, identity in found.items() if identity is not None}


def _read(path: str) -> dict[str, Any] | None:
    present = files.read(path)
    if present is None or present.kind != "file":
        return None
    try:
        return dict(json.loads(present.content))
    except ValueError as error:
        raise HostFailed(f"{path} cannot be read: {error}.", "Restore it, or see whose repository it is.") from error


def plan(wanted: Wanted, present: Present) -> tuple[EntryChange, ...]:
    """What makes the repository, or opens a generation in it.

    Raises InvalidInput, and Conflict where the place is absent or somebody else's.
    """
    _check_place(wanted, present)
    _check_whose(wanted, present)
    return () if wanted.standby else files.plan(entries(wanted), present.found)


def _check_place(wanted: Wanted, present: Present) -> None:
    hint = "Give a directory like /backup/orders."
    if not os.path.isabs(wanted.path) or os.path.normpath(wanted.path) != wanted.path or wanted.path == "/":
        raise InvalidInput(f"The repository {wanted.path!r} is no absolute path in its plain form.", hint)
    if any(ord(character) < 32 for character in wanted.path):
        raise InvalidInput(f"The repository {wanted.path!r} has control characters in its path.", hint)
    if wanted.mount and os.path.commonpath([wanted.mount, wanted.path]) != os.path.normpath(wanted.mount):
        raise InvalidInput(
            f"The repository {wanted.path} is not below its mount {wanted.mount}.", "Correct one of the two."
        )
    if not present.mounted:
        raise Conflict(f"Nothing is mounted at {wanted.mount}.", "Mount the repository's file system first.")
    if not present.parent:
        raise Conflict(
            f"{os.path.dirname(wanted.path)} is not there.",
            "Mount its file system, or make the directory: it is not made, so that no disk is filled by accident.",
        )


def _check_whose(wanted: Wanted, present: Present) -> None:
    if present.cluster is None and (present.strange or present.generations):
        raise Conflict(
            f"{wanted.path} is no repository of pgops.fleet, and not empty: {', '.join(present.strange[:5])}.",
            "Give the cluster a directory of its own.",
        )
    if present.cluster not in (None, wanted.cluster):
        raise Conflict(
            f"{wanted.path} is the repository of cluster {present.cluster}, and this is {wanted.cluster}.",
            "Give each cluster a directory of its own.",
        )
    others = [found for name, found in present.generations.items() if name != wanted.generation.name]
    newest = max((int(found.get("major", 0)) for found in others), default=0)
    if wanted.generation.name in present.generations or wanted.another_server or newest < wanted.generation.major:
        return
    identifiers = ", ".join(str(found.get("system_identifier")) for found in others)
    raise Conflict(
        f"{wanted.path} has WAL of PostgreSQL {newest}, of the system identifier {identifiers}, and this server is "
        f"{wanted.generation.system_identifier} and no newer: it is another server, or was made anew.",
        "Give it a repository of its own; or, if it takes the cluster's place, set another_server.",
    )


def apply(wanted: Wanted, made: tuple[EntryChange, ...]) -> None:
    """Carry a plan out, once the file system has shown that it can do what archiving relies on.

    Raises HostFailed.
    """
    if not made:
        return
    # The directory alone first, and no identity before the test is passed.
    for change in made:
        if change.path == wanted.path:
            change.apply()
    found = os.stat(wanted.path)
    try_file_system(wanted.path, found.st_uid)
    # As the server's user, whose directory it is: root would follow whatever that user puts in the way.
    with acting_as(found.st_uid if os.geteuid() == 0 else None, found.st_gid):
        for change in made:
            if change.path != wanted.path:
                change.apply()
    files.sync_directory(os.path.dirname(wanted.path))


def try_file_system(path: str, owner: int) -> None:
    """Try, as the server's user, what archiving needs: writing, flushing, link without overwriting, and rename.

    Raises HostFailed with what does not work.
    """
    one, other = (os.path.join(path, f".pgops-try-{name}") for name in ("one", "other"))
    with acting_as(owner if os.geteuid() == 0 else None):
        try:
            _remove(one, other)
            _try(path, one, other)
        except OSError as error:
            raise HostFailed(
                f"The file system of {path} cannot hold a repository: {error.strerror or error}.",
                "It has to let the server's user write, fsync, link and rename; take another one.",
            ) from error
        finally:
            _remove(one, other)


def _try(path: str, one: str, other: str) -> None:
    with open(one, "xb") as file:
        file.write(b"pgops.fleet")
        file.flush()
        os.fsync(file.fileno())
    os.link(one, other)
    try:
        os.link(one, other)
    except FileExistsError:
        pass
    else:
        raise OSError(None, "a second link with the same name is not refused")
    os.rename(one, other)
    files.sync_directory(path)


def _remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
