# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent's program on a host: versions beside each other, each complete, and tried by its users before it is
switched to."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pwd
import shutil
import stat
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..errors import HostFailed
from ..host import commands, files
from ..host.files import File
from ..instance.layout import Layout
from ..plan import HostChange
from ..sources import Sources
from ..version import VERSION

COMMAND = "bin/pgops"
COMPILING = 60.0
"""Seconds for which a version that a killed run had begun is waited for."""
LAUNCHER = """#!{python} -I
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.realpath(__file__))))

from pgops.cli import main

sys.exit(main())
"""


@dataclass(frozen=True)
class Program:
    """The files of one version, by their path below its directory, and the Python that runs it."""

    files: Mapping[str, str] = field(repr=False)
    python: str

    @property
    def version(self) -> str:
        """The directory's name: another for every content, so that no file ever changes under a run."""
        return f"{VERSION}-{self.digest[:12]}"

    @property
    def digest(self) -> str:
        """SHA-256 over names, modes and contents of all files and directories."""
        folders = {os.path.dirname(path) for path in self.files}
        return _digest(
            {
                **{path: (_mode(path), text.encode()) for path, text in self.files.items()},
                **{folder: (0o755, b"") for below in folders for folder in _upwards(below)},
            }
        )


def program(sources: Sources, python: str) -> Program:
    """The program that the collection's files make."""
    library = {f"pgops/{path}": text for path, text in sources.items()}
    return Program({**library, COMMAND: LAUNCHER.format(python=python)}, python)


def _mode(path: str) -> int:
    return 0o755 if path == COMMAND else 0o644


def _upwards(folder: str) -> list[str]:
    """A relative directory and those above it; the topmost is the empty string."""
    return [folder, *_upwards(os.path.dirname(folder))] if folder else [""]


def _digest(entries: Mapping[str, tuple[int, bytes]]) -> str:
    """Directories have no content."""
    whole = hashlib.sha256()
    for path, (mode, content) in sorted(entries.items()):
        whole.update(f"{path}\0{mode:o}\0{len(content)}\0".encode() + content)
    return whole.hexdigest()


# --- trying


def tried(command: list[str], users: Iterable[str]) -> None:
    """Run a command as each of the users who will run it later, or where there are none as who runs this.

    Raises HostFailed, which names the user who cannot.
    """
    for user in users:
        try:
            commands.run(command, owner=pwd.getpwnam(user).pw_uid)
        except KeyError as error:
            raise HostFailed(f"This host has no user {user}.") from error
        except HostFailed as error:
            raise HostFailed(f"User {user} cannot run it: {error.message}", error.hint or HINT) from error
    if not users:
        commands.run(command)


HINT = "Set pgops_python (python of pg_ops_agent) to a Python that this user can run, such as /usr/bin/python3."


@dataclass(frozen=True)
class Executable(File):
    """A program of one file, which its ``users`` run with the arguments ``trial`` before it takes the place of the
    present one."""

    users: tuple[str, ...] = ()
    trial: tuple[str, ...] = ()

    def make(self) -> None:
        """Write it beside the present one, try it, rename it.

        Raises HostFailed with the present one in its place.
        """
        beside = f"{self.path}.new"
        try:
            files.write(File(beside, self.content, self.mode, self.owner, self.group))
            tried([beside, *self.trial], self.users)
            os.replace(beside, self.path)
        except HostFailed as error:
            raise HostFailed(f"{self.path} is left as it was: {error.message}", error.hint) from error
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(beside)
        files.sync(os.path.dirname(self.path))


# --- reading


@dataclass(frozen=True)
class Installed:
    """``digest`` is the wanted version's, None where it is not there; ``current`` the version in use.

    ``others`` are all other versions, the newest first; ``leftovers`` what killed runs left half made.
    """

    digest: str | None = None
    current: str = ""
    others: tuple[str, ...] = ()
    leftovers: tuple[str, ...] = ()


def read(layout: Layout, wanted: str) -> Installed:
    """What is on the host.

    Raises HostFailed.
    """
    folder = layout.versions
    try:
        names = os.listdir(folder) if os.path.isdir(folder) else []
        others = sorted(
            (name for name in names if not name.startswith(".") and name != wanted),
            key=lambda name: os.lstat(os.path.join(folder, name)).st_mtime,
            reverse=True,
        )
        return Installed(
            digest=_installed(os.path.join(folder, wanted)) if wanted in names else None,
            current=os.path.basename(os.readlink(layout.current)) if os.path.islink(layout.current) else "",
            others=tuple(others),
            leftovers=tuple(sorted(name for name in names if name.startswith("."))),
        )
    except OSError as error:
        raise files.failure(error, f"{folder} cannot be read") from error


def _installed(root: str) -> str:
    """The digest of a version's directory; any other owner than who runs this makes it another."""
    entries: dict[str, tuple[int, bytes]] = {}
    for folder, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name != "__pycache__"]
        for path in [folder, *(os.path.join(folder, name) for name in names)]:
            status = os.lstat(path)
            mode = stat.S_IMODE(status.st_mode) if status.st_uid == os.geteuid() else -1
            content = b""
            if path != folder:
                with open(path, "rb") as file:
                    content = file.read()
            relative = os.path.relpath(path, root)
            entries["" if relative == "." else relative] = (mode, content)
    return _digest(entries)


# --- planning


@dataclass(frozen=True)
class NewVersion(HostChange):
    """A version's files are written, compiled and tried, and moved into place at once."""

    path: str = field(compare=False)
    program: Program = field(repr=False, compare=False)
    users: tuple[str, ...] = field(default=(), compare=False)

    def apply(self) -> None:
        """Leave nothing behind where it fails."""
        install(self.path, self.program, self.users)


@dataclass(frozen=True)
class OldVersion(HostChange):
    """A version is removed."""

    path: str = field(compare=False)

    def apply(self) -> None:
        """Remove it at once, as others see it."""
        remove(self.path)


def plan(
    layout: Layout, installed: Installed, wanted: Program, users: tuple[str, ...] = ()
) -> tuple[NewVersion, ...]:
    """What puts the wanted version beside the others, tried by its users; it is not yet switched to."""
    if installed.digest == wanted.digest:
        return ()
    path = os.path.join(layout.versions, wanted.version)
    before = {"sha256": installed.digest, "state": "edited by hand"} if installed.digest else None
    after = {"sha256": wanted.digest, "state": "as shipped"}
    return (NewVersion(f"agent {wanted.version}", before, after, path, wanted, users),)


def outdated(layout: Layout, installed: Installed, wanted: str) -> tuple[OldVersion, ...]:
    """What removes older versions, but for the one in use until now, which a run may still be reading."""
    before = installed.current if installed.current != wanted else next(iter(installed.others), "")
    return tuple(
        OldVersion(f"agent {name}", {"state": state}, None, os.path.join(layout.versions, name))
        for state, names in (("installed", installed.others), ("left by a killed run", installed.leftovers))
        for name in names
        if name != before
    )


# --- applying


def install(path: str, wanted: Program, users: tuple[str, ...] = ()) -> None:
    """Write, compile, try as its users, and rename a version into place.

    Raises HostFailed with nothing left behind.
    """
    folder = os.path.dirname(path)
    try:
        temporary = tempfile.mkdtemp(prefix=".new-", dir=folder)
    except OSError as error:
        raise files.failure(error, f"{folder} cannot be written") from error
    try:
        with files.umask(0o022):
            _fill(temporary, wanted.files)
            with files.occupied(temporary) as held:
                compiling = commands.Watch(lambda: None, (held,))
                commands.run([wanted.python, "-I", "-m", "compileall", "-q", temporary], watch=compiling)
        tried([os.path.join(temporary, *COMMAND.split("/")), "version"], users)
        files.sync_tree(temporary)
        before = _aside(path)
        os.rename(temporary, path)
        files.sync(folder)
        files.remove(before)
    except OSError as error:
        raise files.failure(error, f"{path} cannot be written") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _fill(folder: str, program_files: Mapping[str, str]) -> None:
    """All files of a version, in a directory that nobody looks at yet."""
    os.chmod(folder, 0o755)  # noqa: S103 - every user may run the command
    for path, text in program_files.items():
        target = os.path.join(folder, path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        with open(target, "xb") as file:
            file.write(text.encode())
            os.fchmod(file.fileno(), _mode(path))


def remove(path: str) -> None:
    """Remove a version: at once, as others see it, so that half of one is never taken for one.

    Of a killed run it may still be compiled, which is waited for: what is written later would be left.
    Raises HostFailed, Busy.
    """
    try:
        if not os.path.basename(path).startswith("."):
            files.remove(_aside(path))
        elif os.path.isdir(path) and not os.path.islink(path):
            with files.occupied(path, COMPILING):
                files.remove(path)
        else:
            files.remove(path)
    except OSError as error:
        raise files.failure(error, f"{path} cannot be removed") from error


def _aside(path: str) -> str:
    """Where a version is out of the way; it is moved there if it exists."""
    folder, name = os.path.split(path)
    hidden = os.path.join(folder, f".old-{name}")
    if os.path.lexists(path):
        files.remove(hidden)
        os.rename(path, hidden)
    return hidden
