# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Where drills take place: directories that are made for one drill, and removed with all that runs in them.

PLACE/drill-XXXXXXXX/data         the data directory of the restored server
PLACE/drill-XXXXXXXX/OID          its tablespaces

All as the server's user.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable

from ..errors import HostFailed, InvalidInput
from ..host import files
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from .configuring import PORT

PREFIX = "drill-"
OWN = "drill"
"""Of the directory below the agent's own, where none is declared."""
LONGEST_SOCKET = 107
"""Bytes of a socket's path, unix(7)."""
GENTLY = 20.0
"""Seconds in which a server must end that is told to end at once; then it is killed."""
PAUSE = 0.05


def place(declared: str, layout: Layout) -> str:
    """The directory in which an instance has its drills."""
    return os.path.join(declared, layout.instance) if declared else os.path.join(layout.keeping, OWN)


def prepared(path: str, configuration: Configuration) -> None:
    """Make that directory, unless it is there.

    Raises InvalidInput where it is among the server's own files or the repository's, and HostFailed.
    """
    real = os.path.realpath(path)
    taken = {*configuration.real_paths, *configuration.real_paths.values(), configuration.repository}
    inside = next((one for one in sorted(taken) if one.strip("/") and _is_within(real, os.path.realpath(one))), "")
    if inside:
        raise InvalidInput(f"Drills cannot take place in {path}: {inside} is in use.", "Set pgops_drill_directory.")
    parent = os.path.dirname(path)
    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        if os.path.islink(path) or os.stat(path).st_uid != os.geteuid():
            raise HostFailed(f"{path} is not a directory of {files.user_name(os.geteuid())}.", "Remove it.")
        os.chmod(path, 0o700)
    except OSError as error:
        name = files.user_name(os.geteuid())
        failed = files.failure(error, f"{path} cannot be made")
        failed.hint = f"Make its parent directory as root: install -d -o {name} -m 0700 {parent}"
        raise failed from error
    socket = os.path.join(path, f"{PREFIX}{'x' * 8}", "data", f".s.PGSQL.{PORT}")
    if len(socket.encode()) > LONGEST_SOCKET:
        raise InvalidInput(
            f"The path of the socket {socket} is too long.", "Set pgops_drill_directory to a shorter one."
        )


def made(path: str, drill: str) -> str:
    """A new directory of a drill, by its UUID. Raises HostFailed."""
    scratch = os.path.join(path, f"{PREFIX}{drill[:8]}")
    try:
        os.mkdir(scratch, 0o700)
    except OSError as error:
        raise files.failure(error, f"{scratch} cannot be made") from error
    return scratch


def left(path: str) -> list[str]:
    """The directories of drills that are there; none where the place is gone."""
    try:
        return sorted(os.path.join(path, name) for name in os.listdir(path) if name.startswith(PREFIX))
    except OSError:
        return []


def remove(scratch: str) -> None:
    """End all that runs in the directory of a drill, and remove it. Raises HostFailed."""
    end(scratch)
    try:
        files.remove(scratch)
    except OSError as error:
        raise files.failure(error, f"{scratch} cannot be removed") from error


def end(scratch: str) -> None:
    """End the servers and programs of a drill: the server's main process is told to, so that it gives back its shared
    memory; what is left after a while is killed."""
    until = time.monotonic() + GENTLY
    told: set[int] = set()
    while running := processes(scratch):
        gently = time.monotonic() < until
        for process in running:
            main = process not in told and _parent(process) not in running
            if main or not gently:
                told.add(process)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGQUIT if gently and _is_server(process) else signal.SIGKILL)
        time.sleep(PAUSE)


def processes(scratch: str) -> set[int]:
    """The processes of a drill: servers that run in its directory, and PostgreSQL's programs that work on it."""
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            program = os.path.basename(os.readlink(f"/proc/{name}/exe"))
            there = [os.readlink(f"/proc/{name}/cwd")] if program.startswith("postgres") else []
            if program.startswith(("pg_", "pgbackrest")):
                there += _words(name)
            if int(name) != os.getpid() and any(_is_within(word, scratch) for word in there) and not _ended(name):
                found.add(int(name))
    return found


def _is_within(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def _words(process: str) -> list[str]:
    """The command line of a process. Raises OSError."""
    with open(f"/proc/{process}/cmdline", "rb") as file:
        words = file.read().decode("utf-8", "surrogateescape").split("\0")
    return [part for word in words for part in word.split("=")]


def _stat(process: int | str) -> list[bytes]:
    """State, parent and so on of a process (proc_pid_stat(5)). Raises OSError."""
    with open(f"/proc/{process}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()


def _ended(process: str) -> bool:
    return _stat(process)[0] in (b"Z", b"X")


def _parent(process: int) -> int:
    with contextlib.suppress(OSError):
        return int(_stat(process)[1])
    return 0


def _is_server(process: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.basename(os.readlink(f"/proc/{process}/exe")).startswith("postgres")
    return False


def open_files(numbers: Iterable[int]) -> list[str]:
    """What processes have open: paths, and sockets as "socket:[INODE]"."""
    found = set()
    for number in numbers:
        with contextlib.suppress(OSError):
            for name in os.listdir(f"/proc/{number}/fd"):
                with contextlib.suppress(OSError):
                    found.add(os.readlink(f"/proc/{number}/fd/{name}"))
    return sorted(found)
