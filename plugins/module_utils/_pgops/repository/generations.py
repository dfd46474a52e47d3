# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A cluster's repository: a directory that only pg_ops_archiving creates, with a generation for every system
identifier and major version that the cluster has had.

All of it belongs to the server's user, who alone works on it: root may have fewer rights there, as on NFS, and could
be led elsewhere by what that user puts there.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pwd
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..errors import Conflict, HostFailed, InvalidInput
from ..host import files
from ..host.directories import DIRECTORY, reached
from ..host.files import Directory, Entry, EntryChange, File, Found
from ..host.identity import as_user
from . import archiver
from .stanza import NAME as STANZA

FORMAT = 1
IDENTITY = "repository.json"
IGNORED = frozenset({"lost+found", ".snapshot", ".zfs"})
"""Directories that file systems have at their top by themselves."""
TRIED = (".pgops-try-one", ".pgops-try-other")
"""The files by which a file system is tried."""
UNFINISHED = frozenset({*TRIED, files.unfinished(IDENTITY)})
"""What a run that was killed leaves at the top of a repository, and the next one removes."""


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
    ``owner`` and ``group`` run the server, whose data directory is ``data``. A ``standby`` creates nothing: that
    would hide that it does not see its primary's file system. ``stanza`` is the content of the file that names the
    stanza of pgBackRest which has the WAL, empty where the repository itself has it."""

    path: str
    cluster: str
    generation: Generation
    owner: str
    group: str
    data: str = ""
    mount: str = ""
    another_server: bool = False
    standby: bool = False
    stanza: bytes = b""


@dataclass(frozen=True)
class Present:
    """The present state. ``cluster`` is None if there is no repository; ``generations`` map names to the contents of
    their identity files; ``strange`` are other entries of the directory. ``foreign`` are paths of another user, and
    that user's name, or number where it has none; then the rest is not looked at. ``inside``: it would be in the data
    directory. ``makeable``: where it does not exist, the server's user can make it, or root may."""

    parent: bool = True
    mounted: bool = True
    inside: bool = False
    makeable: bool = True
    foreign: Mapping[str, str] = field(default_factory=dict)
    cluster: str | None = None
    generations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    strange: tuple[str, ...] = ()
    found: Mapping[str, Found | None] = field(default_factory=dict)


def entries(wanted: Wanted) -> list[Entry]:
    """The entries of a repository with one generation; identity files come after what they identify. Their owner is
    who makes them."""
    generation = os.path.join(wanted.path, wanted.generation.name)
    about = {
        "system_identifier": wanted.generation.system_identifier,
        "major": wanted.generation.major,
        "wal_segment_size": wanted.generation.segment_bytes,
    }
    return [
        Directory(wanted.path, 0o750),
        File(os.path.join(wanted.path, IDENTITY), _document({"cluster": wanted.cluster}), 0o640),
        Directory(generation, 0o750),
        Directory(os.path.join(generation, "wal"), 0o750),
        File(os.path.join(generation, archiver.IDENTITY), _document(about), 0o640),
        *([File(os.path.join(generation, STANZA), wanted.stanza, 0o640)] if wanted.stanza else []),
    ]


def _document(data: Mapping[str, Any]) -> bytes:
    return (json.dumps({"format": FORMAT, **data}, indent=2, sort_keys=True) + "\n").encode()


def read(wanted: Wanted) -> Present:
    """The present state, as the server's user sees it.

    Raises HostFailed.
    """
    seen = as_user(uid(wanted), lambda: _seen(wanted))
    found = {path: files.unpacked(one) for path, one in seen.pop("found").items()}
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
    try:
        about = _look(wanted)
        if about.foreign or not os.path.isdir(wanted.path):
            return about
        names = sorted(set(os.listdir(wanted.path)) - IGNORED - UNFINISHED)
    except OSError as error:
        raise HostFailed(
            f"{error.filename or wanted.path} cannot be read by {wanted.owner}, who runs the server: "
            f"{error.strerror or error}.",
            "That user must be able to pass all directories above the repository, and needs rights on all of it.",
        ) from error
    identity = _read(os.path.join(wanted.path, IDENTITY))
    known = generations(wanted.path, names)
    return replace(
        about,
        cluster=str(identity.get("cluster")) if identity else None,
        generations=known,
        # A run that was killed leaves the generation's directory without its identity file.
        strange=tuple(name for name in names if name not in {*known, IDENTITY, wanted.generation.name}),
        found={entry.path: files.read(entry.path) for entry in entries(wanted)},
    )


def _look(wanted: Wanted) -> Present:
    """Where the repository is, and whose. Raises OSError."""
    path, real = wanted.path, os.path.realpath(wanted.data)
    return Present(
        parent=_status(os.path.dirname(path)) is not None,
        mounted=not wanted.mount or os.path.ismount(wanted.mount),
        inside=bool(wanted.data) and os.path.commonpath([os.path.realpath(path), real]) == real,
        makeable=_status(path) is not None or os.access(os.path.dirname(path), os.W_OK) or not _theirs(path),
        foreign=_foreign(wanted),
    )


def _theirs(path: str) -> bool:
    """Whether this user can change a directory on the way to a path, so that root must not act there."""
    folders = [path[: at or 1] for at, character in enumerate(path) if character == "/"]
    # Where each may only move what is their own, as in /tmp, nobody moves what is root's.
    return any(os.access(folder, os.W_OK) and not os.stat(folder).st_mode & stat.S_ISVTX for folder in folders)


def _status(path: str) -> os.stat_result | None:
    """None for what does not exist. Raises OSError, as where its directory may not be searched."""
    try:
        return os.stat(path, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _foreign(wanted: Wanted) -> dict[str, str]:
    """Whose paths of the repository are that this user did not make, as far as they are reached."""
    wal = os.path.join(wanted.path, wanted.generation.name, "wal")
    foreign: dict[str, str] = {}
    for path in (*(entry.path for entry in entries(wanted)), os.path.join(wal, _newest(wal))):
        if any(path.startswith(f"{folder}/") for folder in foreign):
            continue
        found = _status(path)
        own = found is None or found.st_uid == os.geteuid() or stat.S_ISLNK(found.st_mode)
        if found is not None and not own and not mapped(path, found, os.W_OK):
            foreign[path] = files.user_name(found.st_uid)
    return foreign


def _newest(wal: str) -> str:
    """The name of the directory that WAL goes into now; '' if there is none."""
    try:
        return max((name for name in os.listdir(wal) if archiver.kind(f"{name}00000000") == "segment"), default="")
    except OSError:
        return ""


def mapped(path: str, found: os.stat_result, right: int) -> bool:
    """Whether this user has a right (R_OK or W_OK) to what is another's although its mode says no: then the file
    system maps users, as NFS does with all_squash."""
    allowed = right | (right << 3 if found.st_gid in {os.getegid(), *os.getgroups()} else 0)
    return not found.st_mode & allowed and os.access(path, right)


def present(path: str) -> dict[str, dict[str, Any]]:
    """The generations of a repository: the contents of their identity files by name, the oldest major version first.

    Raises HostFailed, also where there is none: is its file system mounted?
    """
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise HostFailed(f"{path} cannot be read: {error.strerror or error}.", "Is it mounted?") from error
    found = generations(path, names)
    if not found:
        raise HostFailed(f"{path} is not a repository with WAL.", "Is it mounted?")
    return dict(sorted(found.items(), key=_age))


def _age(generation: tuple[str, dict[str, Any]]) -> tuple[int, str]:
    major = generation[1].get("major")
    return (major if isinstance(major, int) else 0, generation[0])


def generations(path: str, names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The contents of the identity files, by name, of those names in a repository that are generations.

    Raises HostFailed.
    """
    folders = [name for name in names if os.path.isdir(os.path.join(path, name))]
    found = {name: _read(os.path.join(path, name, archiver.IDENTITY)) for name in folders}
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

    Raises InvalidInput, and Conflict if its place does not exist, or belongs to another cluster or user.
    """
    _check_place(wanted, present)
    _check_makeable(wanted, present)
    _check_owner(wanted, present)
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
    if present.inside:
        raise InvalidInput(
            f"The repository {wanted.path} is inside the data directory {wanted.data}.", "Choose another directory."
        )
    if not present.mounted:
        raise Conflict(f"Nothing is mounted at {wanted.mount}.", "Mount the repository's file system first.")
    if not present.parent:
        raise Conflict(
            f"{os.path.dirname(wanted.path)} does not exist.",
            "Mount its file system, or create the directory. It is not created automatically, so that the wrong disk "
            "is not filled.",
        )


def _check_makeable(wanted: Wanted, present: Present) -> None:
    if not present.makeable and not wanted.standby:
        raise _not_makeable(wanted)


def _not_makeable(wanted: Wanted) -> Conflict:
    return Conflict(
        f"{wanted.owner} cannot make {wanted.path}, and can change a directory above it, so that root does not.",
        f"Create it, and give it to {wanted.owner}.",
    )


def _check_owner(wanted: Wanted, present: Present) -> None:
    """Nothing is given to another user: on a file system of several hosts, that would take it from their servers."""
    for path, owner in present.foreign.items():
        number = " (this host has no such user)" if owner.isdigit() else ""
        raise Conflict(
            f"{path} belongs to user {owner}{number}, but the server of this host runs as {wanted.owner}, whose uid "
            f"is {uid(wanted)}: it could not archive there.",
            "The server's user needs the same uid on all nodes of the cluster, or the file system has to map users. "
            f"If only this host uses {wanted.path}, run: chown -R {wanted.owner} {wanted.path}",
        )


def _check_whose(wanted: Wanted, present: Present) -> None:
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


def apply(wanted: Wanted, changes: tuple[EntryChange, ...]) -> None:
    """Carry a plan out, after a test that the file system can do what archiving needs.

    Raises HostFailed.
    """
    if not changes:
        return
    owner = uid(wanted)
    own = [change for change in changes if change.path == wanted.path]
    # The directory alone first, and no identity before the test is passed.
    if own and not as_user(owner, lambda: _make_own(wanted, own)):
        _make_as_root(wanted)
    as_user(owner, lambda: _fill(wanted, [change for change in changes if change not in own]))


def _make_own(wanted: Wanted, changes: Sequence[EntryChange]) -> bool:
    """Make the repository's directory as the server's user; False where that user may not."""
    parent = os.path.dirname(wanted.path)
    if not os.path.isdir(wanted.path) and not os.access(parent, os.W_OK | os.X_OK):
        if _theirs(wanted.path):
            raise _not_makeable(wanted)
        return False
    for change in changes:
        change.apply()
    with contextlib.suppress(OSError):  # it may be another's, who lets this user pass only
        files.sync(parent)
    return True


def _make_as_root(wanted: Wanted) -> None:
    """Make the repository's directory where the server's user may not, as in one of root's."""
    parent, name = os.path.split(wanted.path)
    try:
        with reached(parent) as place:
            os.mkdir(name, 0o700, dir_fd=place)
            try:
                _give(place, name, wanted)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.rmdir(name, dir_fd=place)
                raise
            os.fsync(place)
    except (OSError, HostFailed) as error:
        raise HostFailed(
            f"{wanted.path} can be created neither by {wanted.owner}, who runs the server, nor by root: {error}",
            "Create it where root may, as on the host whose file system this is: "
            f"install -d -m 0750 -o {wanted.owner} {wanted.path}",
        ) from error


def _give(place: int, name: str, wanted: Wanted) -> None:
    """Give a directory that was just made in an open one to the server's user. One with something in it is another,
    which who owns the place has put there.

    Raises HostFailed and OSError.
    """
    descriptor = os.open(name, DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
    try:
        if os.listdir(descriptor):
            raise OSError(errno.ENOTEMPTY, "somebody else has just put another directory there")
        files.own(descriptor, wanted.owner, wanted.group)
        os.fchmod(descriptor, 0o750)
    finally:
        os.close(descriptor)


def _fill(wanted: Wanted, changes: Sequence[EntryChange]) -> None:
    try_file_system(wanted.path)
    for change in changes:
        change.apply()


def try_file_system(path: str) -> None:
    """Try, as the server's user, what archiving needs: writing, flushing, link without overwriting, and rename.

    Raises HostFailed with what does not work.
    """
    one, other = (os.path.join(path, name) for name in TRIED)
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
    os.unlink(other)  # rename() does nothing with two names of one file
    os.rename(one, other)
    if os.path.lexists(one):
        raise OSError(None, "rename() leaves the old name")
    files.sync(path)


def _remove(*paths: str) -> None:
    for path in paths:
        with contextlib.suppress(OSError):
            os.unlink(path)
