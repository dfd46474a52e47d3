# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster's repository: a directory that only pg_ops_archiving creates, with a generation for every system
identifier and major version that the cluster has had."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import Conflict, HostFailed, InvalidInput
from ..host import files
from ..host.files import Directory, Entry, EntryChange, File, Found
from ..host.identity import as_user
from .archiver import IDENTITY as GENERATION_FILE

FORMAT = 1
IDENTITY = "repository.json"
IGNORED = frozenset({"lost+found", ".snapshot", ".zfs"})
"""Directories that file systems have at their top by themselves."""


@dataclass(frozen=True)
class Generation:
    """A generation of a cluster: only pg_upgrade starts another. ``segment_bytes`` is the size of a WAL
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
    """The repository for an instance's WAL. ``mount`` is the mount point of its file system, '' if none is required;
    ``owner`` and ``group`` run the server. A ``standby`` creates nothing: that would hide that it does not see its
    primary's file system."""

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
    """The present state. ``cluster`` is None if there is no repository; ``generations`` map names to the contents of
    their identity files; ``strange`` are other entries of the directory. ``theirs``: the server's user can change a
    directory that it is in; ``makeable``: and make it there."""

    parent: bool = True
    mounted: bool = True
    theirs: bool = False
    makeable: bool = True
    cluster: str | None = None
    generations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    strange: tuple[str, ...] = ()
    found: Mapping[str, Found | None] = field(default_factory=dict)


def entries(wanted: Wanted) -> list[Entry]:
    """The entries of a repository with one generation; identity files come after what they identify."""
    owned = (wanted.owner, wanted.group)
    generation = os.path.join(wanted.path, wanted.generation.name)
    about = {
        "system_identifier": wanted.generation.system_identifier,
        "major": wanted.generation.major,
        "wal_segment_size": wanted.generation.segment_bytes,
    }
    return [
        Directory(wanted.path, 0o750, *owned),
        File(os.path.join(wanted.path, IDENTITY), _document({"cluster": wanted.cluster}), 0o640, *owned),
        Directory(generation, 0o750, *owned),
        Directory(os.path.join(generation, "wal"), 0o750, *owned),
        File(os.path.join(generation, GENERATION_FILE), _document(about), 0o640, *owned),
    ]


def _document(data: Mapping[str, Any]) -> bytes:
    return (json.dumps({"format": FORMAT, **data}, indent=2, sort_keys=True) + "\n").encode()


def read(wanted: Wanted) -> Present:
    """The present state, as the server's user sees it, who can change all of it.

    Raises HostFailed.
    """
    try:
        seen = as_user(uid(wanted), lambda: _seen(wanted))
    except OSError as error:
        raise HostFailed(
            f"{wanted.path} cannot be looked at by user {wanted.owner}: {error.strerror or error}.",
            "The server's user needs access to it, and to the directories above it.",
        ) from error
    found = {path: files.unpacked(one) for path, one in seen.pop("found").items()}
    # Where the server's user may not look there is nothing of a repository, but there may be a directory for one.
    found[wanted.path] = files.read(wanted.path)
    return Present(**{**seen, "strange": tuple(seen["strange"]), "found": found})


def uid(wanted: Wanted) -> int:
    """The uid of the server's user. Raises HostFailed."""
    try:
        return pwd.getpwnam(wanted.owner).pw_uid
    except KeyError as error:
        raise HostFailed(f"This host has no user {wanted.owner}.") from error


def _seen(wanted: Wanted) -> dict[str, Any]:
    """The fields of `Present`, as JSON."""
    present = _present(wanted)
    return {**vars(present), "found": {path: files.packed(one) for path, one in present.found.items()}}


def _present(wanted: Wanted) -> Present:
    above = os.path.dirname(wanted.path)
    parent, theirs = _is_directory(above), _theirs(wanted.path)
    makeable = not theirs or os.access(above, os.W_OK)
    mounted = not wanted.mount or os.path.ismount(wanted.mount)
    if not _is_directory(wanted.path):
        return Present(parent, mounted, theirs, makeable)
    try:
        names = sorted(set(os.listdir(wanted.path)) - IGNORED)
    except OSError as error:
        raise files.failure(error, f"{wanted.path} cannot be read") from error
    identity = _read(os.path.join(wanted.path, IDENTITY))
    known = generations(wanted.path, names)
    return Present(
        parent,
        mounted,
        theirs,
        makeable,
        cluster=str(identity.get("cluster")) if identity else None,
        generations=known,
        # A run that was killed leaves the generation's directory without its identity file.
        strange=tuple(name for name in names if name not in {*known, IDENTITY, wanted.generation.name}),
        found={entry.path: files.read(entry.path) for entry in entries(wanted)},
    )


def _theirs(path: str) -> bool:
    """Whether the user of this process can change what is on the way to a path, so that root must not act there."""
    above = os.path.dirname(path)
    if os.access(above, os.W_OK):
        return True
    higher = [above[: at or 1] for at, character in enumerate(above) if character == "/"]
    # Where each may only move what is their own, as in /tmp, nobody moves what is root's.
    return any(os.access(folder, os.W_OK) and not os.stat(folder).st_mode & stat.S_ISVTX for folder in higher)


def _is_directory(path: str) -> bool:
    """Raises OSError where that may not be seen."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def generations(path: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The contents of the identity files, by name, of those names in a repository that are generations.

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
        raise HostFailed(
            f"{path} cannot be read: {error}.", "Restore it, or find out whose repository this is."
        ) from error


def plan(wanted: Wanted, present: Present) -> tuple[EntryChange, ...]:
    """What creates the repository, or a generation in it.

    Raises InvalidInput, and Conflict if its place does not exist or belongs to another cluster.
    """
    _check_place(wanted, present)
    _check_whose(wanted, present)
    return () if wanted.standby else files.plan(entries(wanted), present.found)


def _check_place(wanted: Wanted, present: Present) -> None:
    hint = "Use a path like /backup/orders."
    if not os.path.isabs(wanted.path) or os.path.normpath(wanted.path) != wanted.path or wanted.path == "/":
        raise InvalidInput(f"repository must be a normalised absolute path, not {wanted.path!r}.", hint)
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
            f"{os.path.dirname(wanted.path)} does not exist.",
            "Mount its file system, or create the directory. It is not created automatically, so that the wrong disk "
            "is not filled.",
        )


def _check_whose(wanted: Wanted, present: Present) -> None:
    own = present.found.get(wanted.path)
    if present.theirs and own and own.owner != wanted.owner:
        raise _not_theirs(wanted, own.owner)
    if not present.makeable and not own and not wanted.standby:
        raise Conflict(
            f"{wanted.owner} cannot make {wanted.path}, and can change a directory above it, so that root does not.",
            f"Create it, and give it to {wanted.owner}.",
        )
    if present.cluster is None and (present.strange or present.generations):
        raise Conflict(
            f"{wanted.path} is not a repository of pgops.fleet, and not empty: {', '.join(present.strange[:5])}.",
            "Use another directory for this cluster.",
        )
    if present.cluster not in (None, wanted.cluster):
        raise Conflict(
            f"{wanted.path} is the repository of cluster {present.cluster}; this cluster is {wanted.cluster}.",
            "Use a separate directory for each cluster.",
        )
    others = [found for name, found in present.generations.items() if name != wanted.generation.name]
    newest = max((int(found.get("major", 0)) for found in others), default=0)
    if wanted.generation.name in present.generations or wanted.another_server or newest < wanted.generation.major:
        return
    identifiers = ", ".join(str(found.get("system_identifier")) for found in others)
    raise Conflict(
        f"{wanted.path} has WAL of PostgreSQL {newest} with the system identifier {identifiers}. This server has the "
        f"system identifier {wanted.generation.system_identifier} and no newer version: it is another server, or was "
        "created anew.",
        "Use another repository; or set another_server (pgops_archive_another_server) if this server replaces that "
        "one.",
    )


def _not_theirs(wanted: Wanted, owner: str) -> Conflict:
    return Conflict(
        f"{wanted.path} belongs to {owner}, in a directory that {wanted.owner} can change.",
        f"Give it to {wanted.owner}, if it is for this server. Root does not, since {wanted.owner} could have put it "
        "there.",
    )


def apply(wanted: Wanted, changes: tuple[EntryChange, ...]) -> None:
    """Carry a plan out, after a test that the file system can do what archiving needs.

    Raises HostFailed.
    """
    if not changes:
        return
    owner = uid(wanted)
    own = tuple(change for change in changes if change.path == wanted.path)
    rest = tuple(change for change in changes if change.path != wanted.path)
    # The directory alone first, and no identity before the test is passed. All of it as the server's user, who could
    # lead root elsewhere; only in a directory that is not that user's, root makes the repository's.
    if own and not as_user(owner, lambda: _make_own(wanted, own)):
        for change in own:
            change.apply()
    as_user(owner, lambda: _fill(wanted, rest))
    if own:
        files.sync(os.path.dirname(wanted.path))


def _make_own(wanted: Wanted, changes: Sequence[EntryChange]) -> bool:
    """Make the repository's directory as the server's user; False where that user may not, so that root may."""
    if not _theirs(wanted.path):
        return False
    there = files.read(wanted.path)
    if there and there.owner != wanted.owner:
        raise _not_theirs(wanted, there.owner)
    for change in changes:
        change.apply()
    return True


def _fill(wanted: Wanted, changes: Sequence[EntryChange]) -> None:
    try_file_system(wanted.path)
    for change in changes:
        change.apply()


def try_file_system(path: str) -> None:
    """Try, as the server's user, what archiving needs: writing, flushing, link without overwriting, and rename.

    Raises HostFailed with what does not work.
    """
    one, other = (os.path.join(path, f".pgops-try-{name}") for name in ("one", "other"))
    try:
        _remove(one, other)
        _try(path, one, other)
    except OSError as error:
        raise HostFailed(
            f"The file system of {path} cannot be used for a repository: {error.strerror or error}.",
            "The server's user must be able to write, fsync, link and rename. Use another file system.",
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
        raise OSError(None, "link() to an existing name does not fail")
    os.rename(one, other)
    files.sync(path)


def _remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
