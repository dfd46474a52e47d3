# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The directories that a restore fills: checked before, made, and put back if it fails. All as the server's user.

Old data is moved aside and never deleted: the directory is renamed, and where that is a mount point or its parent is
not ours, its content goes into a directory within it. What a killed restore has left is known by MARKER, which also
says what was moved where; the next restore goes on from that.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from ..errors import Busy, Conflict, HostFailed, TooLittleSpace
from ..host import files
from ..server import discovery
from . import scratch
from .configuring import SIGNAL
from .copying import INSIDE, MARKER, NOT_OURS

ASIDE = ".before-restore-"
FORMAT = 1
MOVING = ".moving"
"""Of the name of a directory into which old content is being moved."""
NEW = ".pgops-new"
RECOVERING = "recover"
"""The phase from which on a server runs in the directory."""


@dataclass(frozen=True)
class Place:
    """A data directory, and the directories of its tablespaces by their OIDs."""

    data: str
    spaces: Mapping[int, str] = field(default_factory=dict)
    in_place: bool = False

    @property
    def every(self) -> tuple[str, ...]:
        """All directories."""
        return (self.data, *self.spaces.values())

    # --- before

    def check(self, identifier: str) -> list[str]:
        """Raises Conflict and HostFailed for all that forbids to fill it; ``identifier`` is the cluster's. Returns
        warnings."""
        for path in self.every:
            self._check_parent(path)
        if len(set(self.every)) < len(self.every) or any(
            one != other and f"{other}/".startswith(f"{one}/") for one in self.every for other in self.every
        ):
            raise Conflict(f"The directories {', '.join(self.every)} are not apart.", "Choose others.")
        if unfinished(self.data) is None:
            _refuse_running(self.data)
        warnings = self._check_old(identifier) if self.in_place else self._check_empty()
        within = [path for path in self.every if self.in_place and contents(path) and _stays(path)]
        warnings += [
            f"{path} cannot be renamed: its old content is kept in {os.path.join(path, INSIDE)}<time>. Backups take "
            "that along until it is removed."
            for path in within
        ]
        for path in self.spaces.values():
            _refuse_used(path)
        return warnings

    def beside(self) -> str:
        """A directory for what is unpacked before, which is on the file system of the data directory if it can be.

        Raises Conflict and HostFailed where the data directory could not be made.
        """
        self._check_parent(self.data)
        parent = _existing(os.path.dirname(self.data))
        if not os.path.isdir(self.data) or not os.access(self.data, os.W_OK | os.X_OK):
            return parent
        other = os.stat(parent).st_dev != os.stat(self.data).st_dev
        return self.data if other or not os.access(parent, os.W_OK | os.X_OK) else parent

    def _check_parent(self, path: str) -> None:
        if not os.path.isabs(path) or os.path.normpath(path) in ("/", "/tmp"):  # noqa: S108 - refused
            raise Conflict(f"{path} cannot be a data directory.", "Name an absolute path of its own.")
        if os.path.lexists(path) and (os.path.islink(path) or not os.path.isdir(path)):
            raise Conflict(f"{path} is no directory.", "Name the directory itself.")
        stays = os.path.isdir(path) and (not self.in_place or _stays(path))
        here = path if stays else _existing(os.path.dirname(path))
        if not os.access(here, os.W_OK | os.X_OK):
            name = files.user_name(os.geteuid())
            hint = (
                f"Create {path} as root, empty and owned by {name}" if not self.in_place else f"Give {here} to {name}"
            )
            raise HostFailed(f"User {name} may not write into {here}.", f"{hint}, or choose another directory.")

    def _check_empty(self) -> list[str]:
        left = unfinished(self.data)
        ours = [self.data, *left["spaces"]] if left is not None else []
        for path in self.every:
            if path not in ours and contents(path):
                raise Conflict(
                    f"{path} is not empty.",
                    "Choose another directory; one of a tablespace by tablespace_map. "
                    "To replace a server by its restored data, use in_place.",
                )
        return [f"{self.data} has what a restore has left that did not end; it is removed."] if ours else []

    def _check_old(self, identifier: str) -> list[str]:
        if unfinished(self.data) is not None or read_marker(self.data + NEW) is not None:
            return [f"{self.data} has what a restore has left that did not end; it is removed."]
        if not contents(self.data):
            return []
        found = discovery.system_identifier(self.data)
        if found != identifier:
            raise Conflict(
                f"{self.data} is not the data directory of the cluster with the system identifier {identifier}"
                f"{f', but of {found}' if found else ''}.",
                "Restore to another directory. If it is damaged, move it away: then nothing is in the way.",
            )
        wal = os.path.join(self.data, "pg_wal")
        linked = os.path.islink(wal)
        return [f"{wal} is a link; the restored one will be inside the data directory."] if linked else []

    # --- making

    @contextlib.contextmanager
    def begun(self, stop: Callable[[], None]) -> Iterator[dict[str, Any]]:
        """The empty directories, with the old ones moved aside where it is in place; the content of MARKER. If it
        fails, the old ones are put back. ``stop`` ends a server that a killed restore has left.

        Raises Busy, Conflict and HostFailed.
        """
        with contextlib.ExitStack() as held:
            try:
                state = self._start(held)
                stop()
                self._clear()
            except OSError as error:
                raise files.failure(error, f"{error.filename or self.data} cannot be written") from error
            try:
                yield state
            except BaseException:
                stop()
                self._put_back(state)
                raise

    def _start(self, held: contextlib.ExitStack) -> dict[str, Any]:
        """Hold the lock of the data directory, and of what takes its place. Raises Busy, HostFailed and OSError."""
        if not self.in_place:
            os.makedirs(self.data, 0o700, exist_ok=True)  # what is locked
        if os.path.isdir(self.data):
            _hold(held, self.data)
        state = unfinished(self.data)
        if state is not None:
            return self._resumed(state)
        # Since it was checked, somebody may have started one, or that of a killed restore has promoted itself.
        _refuse_running(self.data)
        state = {"format": FORMAT, "spaces": list(self.spaces.values()), "moved": {}}
        if self.in_place and (contents(self.data) or read_marker(self.data + NEW) is not None):
            return self._moved_within(state) if _stays(self.data) else self._moved(held, state)
        os.makedirs(self.data, 0o700, exist_ok=True)
        os.chmod(self.data, 0o700)
        if self.in_place:
            # The disk of the data was lost, and not those of tablespaces.
            state["moved"] = _asides(path for path in self.spaces.values() if contents(path))
        write_marker(self.data, state)
        _move_aside(state["moved"])
        return state

    def _moved(self, held: contextlib.ExitStack, state: dict[str, Any]) -> dict[str, Any]:
        """Move the old directories aside, and a new one in place of the data directory."""
        new = self.data + NEW
        os.makedirs(new, 0o700, exist_ok=True)
        _hold(held, new)
        known = read_marker(new)
        if known is None:
            state["moved"] = _asides(path for path in self.every if os.path.lexists(path))
            write_marker(new, state)
        state = known or state
        self._refuse_strangers(state)
        try:
            _move_aside(state["moved"])
            # One that was started meanwhile would write into the new files: its control file's path is absolute.
            _refuse_running(state["moved"].get(self.data, ""))
        except (Conflict, HostFailed):
            _move_back(state["moved"])
            shutil.rmtree(new, ignore_errors=True)
            raise
        os.rename(new, self.data)
        files.sync(os.path.dirname(self.data))
        return state

    def _moved_within(self, state: dict[str, Any]) -> dict[str, Any]:
        """Move the old content aside, and keep the data directory itself."""
        state["moved"] = _asides(path for path in self.every if contents(path))
        write_marker(self.data, state)
        _move_aside(state["moved"])
        try:
            _refuse_running(self.data)
        except Conflict:
            _move_back(state["moved"])
            raise
        return state

    def _resumed(self, state: dict[str, Any]) -> dict[str, Any]:
        """Go on from what a run has left that did not end: what it was to move aside, it may not have moved yet.

        Raises Conflict and HostFailed.
        """
        self._refuse_strangers(state)
        _move_aside(state["moved"])
        return state

    def _refuse_strangers(self, state: Mapping[str, Any]) -> None:
        """Raises Conflict where a directory is in use that the run which did not end has not known."""
        known = {self.data, *state["spaces"]}
        strange = [path for path in self.spaces.values() if path not in known and contents(path)]
        if strange:
            raise Conflict(
                f"{', '.join(strange)} is not empty, and was not a part of the restore that did not end.",
                "Repeat that restore with the same tablespaces, or move the directory away.",
            )

    def recovering(self, state: dict[str, Any]) -> None:
        """Note that the server is started now: from its promotion on it is one like any other, whatever becomes of
        the restore. Raises HostFailed."""
        state["phase"] = RECOVERING
        write_marker(self.data, state)

    def _clear(self) -> None:
        """Remove what is left of a run that was killed."""
        for path in self.every:
            _empty(path)

    def _put_back(self, state: Mapping[str, Any]) -> None:
        """Move old data back. A new directory keeps what there is, with its MARKER, for whoever wants to look."""
        if not self.in_place:
            return
        # The data directory comes last: it has MARKER.
        for path, aside in reversed(list(state["moved"].items())):
            if os.path.lexists(aside) and _is_within(aside, path):
                _empty(path)
                _return(path, aside)
            elif os.path.lexists(aside):
                shutil.rmtree(path, ignore_errors=True)
                os.rename(aside, path)
                files.sync(os.path.dirname(path))

    def done(self) -> None:
        """It is a data directory from now on. Raises HostFailed."""
        files.discard(os.path.join(self.data, MARKER))
        files.sync(self.data)


def _asides(paths: Iterable[str]) -> dict[str, str]:
    """Where directories are moved to."""
    stamp = datetime.now(timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    return {path: os.path.join(path, INSIDE + stamp) if _stays(path) else f"{path}{ASIDE}{stamp}" for path in paths}


def _stays(path: str) -> bool:
    """Whether a directory that exists cannot be renamed."""
    if not os.path.isdir(path):
        return False
    return os.path.ismount(path) or not os.access(os.path.dirname(path), os.W_OK | os.X_OK)


def _is_within(aside: str, path: str) -> bool:
    return os.path.dirname(aside) == path


def _old(path: str) -> list[str]:
    """What is in a directory, without our marker and what was moved aside within it; what makes it a data directory
    comes first: without that no server starts in it. Raises HostFailed."""
    names = [name for name in contents(path) if name != MARKER and not name.startswith(INSIDE)]
    return sorted(names, key=lambda name: name != "PG_VERSION")


def _empty(path: str) -> None:
    for name in _old(path):
        files.remove(os.path.join(path, name))


def _move_within(path: str, aside: str) -> None:
    """Move the content of a directory into one within it, whose name it gets once it has all. Raises OSError."""
    if os.path.lexists(aside):
        return
    moving = f"{aside}{MOVING}"
    os.makedirs(moving, 0o700, exist_ok=True)
    for name in _old(path):
        os.rename(os.path.join(path, name), os.path.join(moving, name))
    files.sync(moving)
    os.rename(moving, aside)
    files.sync(path)


def _return(path: str, aside: str) -> None:
    """Move the content back. From the first step on it is as if it had not been moved completely: a restore that is
    begun after we were killed moves it again. Raises OSError."""
    moving = f"{aside}{MOVING}"
    if os.path.lexists(aside):
        os.rename(aside, moving)
    if not os.path.lexists(moving):
        return
    for name in sorted(os.listdir(moving), key=lambda name: name == "PG_VERSION"):
        os.rename(os.path.join(moving, name), os.path.join(path, name))
    os.rmdir(moving)
    files.sync(path)
    files.discard(os.path.join(path, MARKER))


def _move_aside(moved: Mapping[str, str]) -> None:
    """Rename directories; where a run was killed in between, some are renamed already. Where one cannot be, all are
    as before.

    Raises HostFailed.
    """
    for path, aside in moved.items():
        try:
            if _is_within(aside, path):
                _move_within(path, aside)
            elif os.path.lexists(path) and not os.path.lexists(aside):
                os.rename(path, aside)
        except OSError as error:
            _move_back(moved)
            raise HostFailed(
                f"{path} cannot be moved aside: {error.strerror}. Nothing was changed.",
                "Its file system does not rename it, as those of containers do not what comes from their image. "
                "Restore to another directory.",
            ) from error


def _move_back(moved: Mapping[str, str]) -> None:
    """Rename directories back that were moved aside. Raises OSError."""
    for path, aside in reversed(list(moved.items())):
        if _is_within(aside, path):
            _return(path, aside)
        elif os.path.lexists(aside) and not os.path.lexists(path):
            os.rename(aside, path)


def _hold(held: contextlib.ExitStack, path: str) -> None:
    """Keep other restores out of a directory. Raises Busy and OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    held.callback(os.close, descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Busy(f"Another restore fills {path}; nothing was changed.", "Wait for its end.") from None


def contents(path: str) -> list[str]:
    """The names in a directory, without those of file systems and of searches; none if it does not exist.

    Raises HostFailed.
    """
    try:
        names = set(os.listdir(path)) - set(NOT_OURS)
        return sorted(name for name in names if not name.startswith(scratch.PREFIX))
    except FileNotFoundError:
        return []
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error


def read_marker(data: str) -> dict[str, Any] | None:
    """What the marker of a directory says; None without one. Raises HostFailed."""
    try:
        content = files.contents(os.path.join(data, MARKER), 1 << 20, follow=False)
        return dict(json.loads(content))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise HostFailed(f"{os.path.join(data, MARKER)} cannot be read: {error}.", "Look at it.") from error


def _refuse_running(data: str) -> None:
    """Raises Conflict where a server runs in a directory."""
    running = server_in(data)
    if running:
        stop = "Stop it first (systemctl stop, pg_ctlcluster stop or pg_ctl stop)."
        raise Conflict(f"A server runs in {data} (process {running}).", stop)


def unfinished(data: str) -> dict[str, Any] | None:
    """What a restore into a directory has left that did not end; None where there is nothing, and where its server
    has been promoted: its data is nobody's to remove. Raises HostFailed."""
    state = read_marker(data)
    promoted = state and state.get("phase") == RECOVERING and not os.path.lexists(os.path.join(data, SIGNAL))
    return None if promoted else state


def _refuse_used(path: str) -> None:
    """Raises Conflict if a running server of this user has a tablespace in a directory, wherever its data is."""
    try:
        here = os.stat(path)
    except OSError:
        return
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if not os.path.basename(os.readlink(f"/proc/{name}/exe")).startswith("postgres"):
                continue
            spaces = os.path.join(os.readlink(f"/proc/{name}/cwd"), "pg_tblspc")
            used = any(_same(os.path.join(spaces, space), here) for space in os.listdir(spaces))
            if used:
                raise Conflict(
                    f"{path} is used by the server in {os.path.dirname(spaces)} (process {name}).",
                    "Map the tablespace elsewhere, or stop that server if it is the one to be restored.",
                )


def _same(path: str, other: os.stat_result) -> bool:
    try:
        return os.path.samestat(os.stat(path), other)
    except OSError:
        return False


def write_marker(data: str, state: Mapping[str, Any]) -> None:
    """Say that a directory is being restored. Raises HostFailed."""
    files.apply([files.File(os.path.join(data, MARKER), json.dumps(state).encode(), 0o600)])


def server_in(data: str) -> int | None:
    """The process of a server that runs in a directory, also one whose lock file was removed; None if none does."""
    # No server is root's: to root it shows by its process only.
    running = discovery.postmaster(data, os.geteuid()) if os.geteuid() else None
    if running:
        return running
    try:
        here = os.stat(data)
    except OSError:
        return None
    for name in os.listdir("/proc"):
        with contextlib.suppress(OSError):
            program = os.readlink(f"/proc/{name}/exe") if name.isdigit() else ""
            if os.path.basename(program).startswith("postgres") and os.path.samestat(
                os.stat(f"/proc/{name}/cwd"), here
            ):
                return int(name)
    return None


def _existing(path: str) -> str:
    """The nearest directory above that exists."""
    while not os.path.isdir(path):
        path = os.path.dirname(path)
    return path


def check_space(needed: Mapping[str, int]) -> dict[str, Any]:
    """Compare what directories will take, in bytes, with what their file systems have; needs and free bytes by
    directory.

    Raises TooLittleSpace.
    """
    systems: dict[int, list[str]] = {}
    for path in needed:
        systems.setdefault(os.stat(_existing(path)).st_dev, []).append(path)
    for paths in systems.values():
        free = free_bytes(paths[0])
        whole = sum(needed[path] for path in paths)
        if whole > free:
            raise TooLittleSpace(
                f"{', '.join(paths)} would take {_mb(whole)} MB, and {_mb(free)} MB are free.",
                "Free space there, or choose another file system.",
            )
    return {path: {"needed": size, "free": free_bytes(path)} for path, size in needed.items()}


def free_bytes(path: str) -> int:
    """What the file system of a directory, which may not exist yet, has for users."""
    status = os.statvfs(_existing(path))
    return status.f_bavail * status.f_frsize


def _mb(size: int) -> int:
    return -(-size // (1 << 20))


def mapped(paths: Sequence[tuple[int, str]], asked: Mapping[str, str], below: str = "") -> dict[int, str]:
    """Where tablespaces go, by their OIDs: ``asked`` maps the original's directories to others. Those that it leaves
    out go where they were, or with ``below`` into directories there.

    Raises Conflict for one that is asked for and is none's.
    """
    known = {path for _oid, path in paths}
    unknown = sorted(set(asked) - known)
    if unknown:
        raise Conflict(
            f"The backup has no tablespace in {', '.join(unknown)}.",
            f"It has them in {', '.join(sorted(known)) or 'no other directory'}.",
        )
    places = {oid: os.path.join(below, str(oid)) if below else path for oid, path in paths}
    return {oid: os.path.normpath(asked.get(path, places[oid])) for oid, path in paths}
