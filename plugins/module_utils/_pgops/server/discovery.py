# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The PostgreSQL instances of a host, found by reading files only, so that servers that are down count too.

Who runs a server owns these files, and root reads them as that user.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import stat
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from ..errors import HostFailed
from ..host.files import contents, user_name
from ..host.identity import as_user
from .target import SOCKET_DIRECTORIES

DEBIAN = "/etc/postgresql"
DEFAULT_PORT = 5432
ASSIGNMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*(?:=|\s)\s*('(?:[^']|'')*'|[^\s#']+)")
SOCKET = re.compile(r"\.s\.PGSQL\.(\d{1,5})\Z")
DATA_DIRECTORY = 1
"""The line of a lock file that names it, counted from 0; PostgreSQL, src/include/utils/pidfile.h."""
DEEPEST_INCLUDE = 10
"""As in PostgreSQL (guc-file.l): deeper nesting is an error there, too."""
MOST_FILES = 200
"""Configuration files of a cluster that are read, with all that they include."""
LARGEST_FILE = 1024 * 1024
"""Bytes of a configuration file; a larger one counts as unreadable."""
LARGEST_LOCK = 65536
"""Bytes of a lock file."""
READING = 10.0
"""Seconds for the files of a cluster: a file system may hang."""


@dataclass(frozen=True)
class Instance:
    """One server of this host. ``socket``: whether there is one that can be trusted; a server that crashed leaves its
    socket behind, so only a connection shows whether it runs.

    ``version`` is the major version, and ``owner`` the user who runs the server. They, ``data_directory``, ``role``
    and ``system_identifier`` are None if no file shows them, or if the files cannot be read. ``start`` is how Debian
    starts the cluster: auto, manual or disabled. ``asked``: the user named it, so a connection is tried whatever the
    files show.
    """

    name: str
    port: int
    socket_directory: str
    socket: bool
    version: str | None = None
    data_directory: str | None = None
    role: str | None = None
    system_identifier: str | None = None
    owner: str | None = None
    start: str | None = None
    asked: bool = False


def instances(root: str = "/") -> list[Instance]:
    """All instances of the host: Debian's clusters by their configuration, then others by their sockets.

    ``root`` is where the host's files begin.
    """
    clusters = [_cluster(path) for path in sorted(glob.glob(os.path.join(root, DEBIAN[1:], "*", "*")))]
    found = [cluster for cluster in clusters if cluster is not None]
    taken = {(os.path.realpath(instance.socket_directory), instance.port) for instance in found}
    ports = {instance.port for instance in found if instance.socket}
    for directory, port in _sockets(root):
        # A server may have sockets in several directories; but its port is its own.
        if (directory, port) not in taken and port not in ports and trusted(directory, port):
            owner = _name(server_at(directory, port))
            if owner is not None:
                found.append(Instance(f"port-{port}", port, directory, socket=True, owner=owner))
                ports.add(port)
    return found


def _name(uid: int | None) -> str | None:
    """The name of a user who can run a server, which root cannot; None if there is none."""
    if not uid:
        return None
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


# --- Debian's clusters


def _cluster(path: str) -> Instance | None:
    configuration = os.path.join(path, "postgresql.conf")
    if not os.path.lexists(configuration):
        return None
    version, name = path.split(os.sep)[-2:]
    unread = Instance(f"{version}-{name}", DEFAULT_PORT, SOCKET_DIRECTORIES[0], socket=False, version=version)
    try:
        keeper = _keeper(path)
        # One process in most cases: who keeps the configuration runs the server, too.
        found = _as(keeper, lambda: _with_data(_read(path, unread)) if keeper else _read(path, unread))
        owner = _owner(found.data_directory or "") or keeper
        if owner != keeper or not keeper:
            found = _as(owner, lambda: _with_data(found))
    except (HostFailed, OSError):
        return unread
    return replace(found, owner=_name(owner), socket=trusted(found.socket_directory, found.port, owner or None))


def _as(uid: int, read: Callable[[], Instance]) -> Instance:
    """What a user reads. Where all of it is root's, nobody else says what root reads."""
    return Instance(**as_user(uid, lambda: asdict(read()), READING)) if uid else read()


def _keeper(path: str) -> int:
    """The uid of the user who can change a cluster's configuration, and so says what is in it; 0 if only root can.

    Raises OSError.
    """
    main, version = os.path.join(path, "postgresql.conf"), os.path.dirname(path)
    folders = (path, version, os.path.dirname(version))
    owners = (os.stat(path).st_uid, os.lstat(main).st_uid, *(os.stat(folder).st_uid for folder in folders))
    return next((uid for uid in owners if uid), 0)


def _owner(path: str) -> int | None:
    """The uid of a path's owner; None if it does not exist."""
    try:
        return os.stat(path).st_uid
    except (OSError, ValueError):
        return None


def _read(path: str, unread: Instance) -> Instance:
    """What a cluster's configuration says about it."""
    settings = Settings()
    settings.read(os.path.join(path, "postgresql.conf"))
    found = _placed(unread, settings.values)
    data = settings.values.get("data_directory") or None
    return replace(found, data_directory=data, start=_start(os.path.join(path, "start.conf")))


def _with_data(found: Instance) -> Instance:
    """With what the files of the data directory say."""
    data = found.data_directory or ""
    settings = Settings()
    settings.read(os.path.join(data, "postgresql.auto.conf"))
    found = _placed(found, settings.values)
    # The running server's own values come first: its files may have changed since it started.
    port, directory = _listening_at(data) or (found.port, found.socket_directory)
    role, identifier = _data(data)
    return replace(found, port=port, socket_directory=directory, role=role, system_identifier=identifier)


def _placed(found: Instance, values: Mapping[str, str]) -> Instance:
    """With the port and the socket directory of settings, as far as they name them."""
    directories = values.get("unix_socket_directories", found.socket_directory).split(",")
    port = int(values["port"]) if values.get("port", "").isdigit() else found.port
    return replace(found, port=port, socket_directory=directories[0].strip() or SOCKET_DIRECTORIES[0])


def _start(path: str) -> str:
    """How a cluster is started, from its start.conf (postgresql-common, pg_createcluster(1))."""
    words = [line.partition("#")[0].strip() for line in _lines(path)]
    return next(filter(None, words), "auto")


class Settings:
    """The settings of configuration files in their order, included files in their place; a later one wins."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.files = 0

    def read(self, path: str, depth: int = 0) -> None:
        """Read a file with what it includes, so much of it as a configuration can have."""
        self.files += 1
        if depth > DEEPEST_INCLUDE or self.files > MOST_FILES:
            return
        for key, value in _assignments(_lines(path)):
            if key in ("include", "include_if_exists", "include_dir"):
                for included in _included(key, os.path.join(os.path.dirname(path), value)):
                    self.read(included, depth + 1)
            else:
                self.values[key] = value


def _assignments(lines: Iterable[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        match = ASSIGNMENT.match(line)
        if match is not None:
            value = match.group(2)
            yield match.group(1).lower(), value[1:-1].replace("''", "'") if value.startswith("'") else value


def _included(key: str, path: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(path), "[!.]*.conf"))) if key == "include_dir" else [path]


def _lines(path: str) -> list[str]:
    """A text file's lines; none if it does not exist or cannot be read."""
    try:
        return contents(path, LARGEST_FILE).decode("utf-8", "replace").splitlines()
    except (OSError, ValueError):
        return []


# --- the server of a data directory, by its lock file


def postmaster(data: str, owner: int) -> int | None:
    """The process of the server that runs in a data directory, from its lock file; None if none does.

    ``owner`` is the uid of the server's user. Raises HostFailed.
    """
    process = (_status(data, owner) or [""])[0]
    return int(process) if _lives(process, owner) else None


def starting(data: str, owner: int) -> bool:
    """Whether the server of a data directory is still starting, or recovering without accepting connections."""
    lines = _status(data, owner)
    return len(lines) >= 8 and _lives(lines[0], owner) and lines[7].strip() == "starting"


def accepts(data: str, owner: int) -> bool:
    """Whether the server of a data directory accepts connections, perhaps for reading only."""
    lines = _status(data, owner)
    return len(lines) >= 8 and _lives(lines[0], owner) and lines[7].strip() in ("ready", "standby")


def listening_at(data: str, owner: int) -> tuple[int, str] | None:
    """Port and socket directory of the server that runs in a data directory, from its lock file; None unless there is
    a socket of its user's."""
    found = as_user(owner, lambda: _listening_at(data), READING)
    if not found or server_at(str(found[1]), int(found[0])) != owner:
        return None
    return int(found[0]), str(found[1])


def _listening_at(data: str) -> tuple[int, str] | None:
    """Source: PostgreSQL, src/include/utils/pidfile.h."""
    lines = _lines(os.path.join(data, "postmaster.pid"))
    if len(lines) < 5 or not lines[3].isdigit() or not lines[4] or not _lives(lines[0]):
        return None
    return int(lines[3]), lines[4]


def major_at(socket_path: str, owner: int) -> int | None:
    """The major version of the server of a local socket, from the files of its user ``owner``; None if they do not
    show it, as to others."""
    with contextlib.suppress(HostFailed):
        found = as_user(owner, lambda: _version(f"{socket_path}.lock"), READING)
        return int(found) if found.isdigit() else None
    return None


def _version(lock_file: str) -> str:
    lines = _lines(lock_file)
    data = lines[DATA_DIRECTORY] if len(lines) > DATA_DIRECTORY else ""
    return next((line.strip() for line in _lines(os.path.join(data, "PG_VERSION"))), "")


def _status(data: str, owner: int) -> list[str]:
    return list(as_user(owner, lambda: _lines(os.path.join(data, "postmaster.pid")), READING))


def _lives(process: str, owner: int | None = None) -> bool:
    """Whether a process lives, of a user if one is named. One that nobody has reaped, as in a container without an
    init, does not."""
    found = _owner(f"/proc/{process}") if process.isdigit() else None
    return found is not None and owner in (None, found) and not _ended(process)


def _ended(process: str) -> bool:
    """Source: proc_pid_stat(5), the state behind the name in parentheses."""
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{process}/stat", "rb") as file:
        return file.read().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    return False


def _data(data: str) -> tuple[str | None, str | None]:
    """Role and system identifier from a data directory's files (PostgreSQL, src/include/catalog/pg_control.h)."""
    try:
        (identifier,) = struct.unpack("=Q", contents(os.path.join(data, "global", "pg_control"))[:8])
    except (OSError, ValueError, struct.error):
        return None, None
    standby = os.path.exists(os.path.join(data, "standby.signal"))
    return "standby" if standby else "primary", str(identifier)


def system_identifier(data: str) -> str | None:
    """The system identifier of a data directory; None if its files do not show one."""
    return _data(data)[1]


# --- sockets


def _sockets(root: str) -> Iterator[tuple[str, int]]:
    """Directory and port of each socket of the usual names, each directory once."""
    directories = (os.path.join(root, directory[1:]) for directory in SOCKET_DIRECTORIES)
    for directory in dict.fromkeys(os.path.realpath(directory) for directory in directories):
        names = sorted(os.listdir(directory)) if os.access(directory, os.R_OK) else []
        for match in filter(None, map(SOCKET.match, names)):
            if _socket(directory, int(match.group(1))):
                yield directory, int(match.group(1))


def _socket(directory: str, port: int) -> os.stat_result | None:
    """A socket; None if there is none."""
    try:
        found = os.lstat(os.path.join(directory, f".s.PGSQL.{port}"))
    except (OSError, ValueError):
        return None
    return found if stat.S_ISSOCK(found.st_mode) else None


def poolers(root: str = "/") -> list[dict[str, Any]]:
    """The sockets that are named like a server's and are none's, as those of a pooler: ``port``,
    ``socket_directory`` and ``owner``."""
    return [
        {"port": port, "socket_directory": directory, "owner": user_name(found.st_uid)}
        for directory, port in _sockets(root)
        for found in [_socket(directory, port)]
        if found is not None and server_at(directory, port) is None
    ]


def server_at(directory: str, port: int) -> int | None:
    """The uid of the server's user that a socket belongs to; None if it is no server's.

    A server has a lock file beside its socket, of the same user, from before it listens until it is gone (PostgreSQL,
    CreateSocketLockFile). A pooler has none.
    """
    found = _socket(directory, port)
    try:
        lock = os.lstat(os.path.join(directory, f".s.PGSQL.{port}.lock"))
    except OSError:
        return None
    if found is None or not stat.S_ISREG(lock.st_mode) or lock.st_uid != found.st_uid:
        return None
    return found.st_uid


def trusted(directory: str, port: int, owner: int | None = None) -> bool:
    """Whether a socket belongs to a server of whom it should be, and not to any local user.

    It must belong to ``owner`` where that is known. Otherwise, in a directory where others than its owner may create
    sockets, and so receive connections and passwords, it must belong to that owner, to the user of this process or to
    postgres. No server is root's.
    """
    uid = server_at(directory, port)
    if not uid:
        return False
    if owner is not None:
        return uid == owner
    folder = os.stat(directory)
    owners = {folder.st_uid, os.geteuid()}
    with contextlib.suppress(KeyError):
        owners.add(pwd.getpwnam("postgres").pw_uid)
    return not folder.st_mode & (stat.S_IWGRP | stat.S_IWOTH) or uid in owners
