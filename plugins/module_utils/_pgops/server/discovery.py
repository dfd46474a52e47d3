# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The PostgreSQL instances of a host, found by reading files only, so that servers that are down count too."""

from __future__ import annotations

import contextlib
import glob
import os
import pwd
import re
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .target import SOCKET_DIRECTORIES

DEBIAN = "/etc/postgresql"
DEFAULT_PORT = 5432
ASSIGNMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.]*)\s*(?:=|\s)\s*('(?:[^']|'')*'|[^\s#']+)")
SOCKET = re.compile(r"\.s\.PGSQL\.(\d{1,5})\Z")
DATA_DIRECTORY = 1
"""The line of a lock file that names it, counted from 0; PostgreSQL, src/include/utils/pidfile.h."""
DEEPEST_INCLUDE = 10
"""As in PostgreSQL (guc-file.l): deeper nesting is an error there, too."""


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
    for directory, port in _sockets(os.path.join(root, directory[1:]) for directory in SOCKET_DIRECTORIES):
        # A server may have sockets in several directories; but its port is its own.
        if (directory, port) not in taken and port not in ports:
            owner = owner_of(os.path.join(directory, f".s.PGSQL.{port}"))
            found.append(Instance(f"port-{port}", port, directory, socket=True, owner=owner))
            ports.add(port)
    return found


def owner_of(path: str) -> str | None:
    """The name of the user who owns a file; None if it does not exist, or its user has no name."""
    try:
        return pwd.getpwuid(os.stat(path).st_uid).pw_name
    except (OSError, KeyError):
        return None


# --- Debian's clusters


def _cluster(path: str) -> Instance | None:
    configuration = os.path.join(path, "postgresql.conf")
    if not os.path.exists(configuration):
        return None
    version, name = path.split(os.sep)[-2:]
    settings = dict(_settings(configuration))
    data = settings.get("data_directory", "")
    settings.update(_settings(os.path.join(data, "postgresql.auto.conf")))
    directories = settings.get("unix_socket_directories", SOCKET_DIRECTORIES[0]).split(",")
    directory = directories[0].strip() or SOCKET_DIRECTORIES[0]
    port = int(settings["port"]) if settings.get("port", "").isdigit() else DEFAULT_PORT
    # The running server's own values come first: its files may have changed since it started.
    port, directory = listening_at(data) or (port, directory)
    role, identifier = _data(data)
    return Instance(
        name=f"{version}-{name}",
        port=port,
        socket_directory=directory,
        socket=trusted(directory, port, os.stat(path).st_uid),
        version=version,
        data_directory=data or None,
        role=role,
        system_identifier=identifier,
        owner=owner_of(data) or owner_of(path),
        start=_start(os.path.join(path, "start.conf")),
    )


def _start(path: str) -> str:
    """How a cluster is started, from its start.conf (postgresql-common, pg_createcluster(1))."""
    words = [line.partition("#")[0].strip() for line in _lines(path)]
    return next(filter(None, words), "auto")


def _settings(path: str, depth: int = 0) -> Iterator[tuple[str, str]]:
    """A configuration file's settings in their order, included files in their place; a later one wins."""
    for line in _lines(path):
        match = ASSIGNMENT.match(line)
        if match is None:
            continue
        key, value = match.group(1).lower(), match.group(2)
        value = value[1:-1].replace("''", "'") if value.startswith("'") else value
        if key in ("include", "include_if_exists", "include_dir"):
            for included in _included(key, os.path.join(os.path.dirname(path), value)):
                if depth < DEEPEST_INCLUDE:
                    yield from _settings(included, depth + 1)
        else:
            yield key, value


def _included(key: str, path: str) -> list[str]:
    return sorted(glob.glob(os.path.join(glob.escape(path), "[!.]*.conf"))) if key == "include_dir" else [path]


def _lines(path: str) -> list[str]:
    """A text file's lines; none if it does not exist or cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


def postmaster(data: str) -> int | None:
    """The process of the server that runs in a data directory, from its lock file; None if none does."""
    process = (_lines(os.path.join(data, "postmaster.pid")) or [""])[0]
    return int(process) if process.isdigit() and os.path.exists(f"/proc/{process}") else None


def starting(data: str) -> bool:
    """Whether the server of a data directory is still starting, or recovering without accepting connections."""
    lines = _lines(os.path.join(data, "postmaster.pid"))
    return postmaster(data) is not None and len(lines) >= 8 and lines[7].strip() == "starting"


def listening_at(data: str) -> tuple[int, str] | None:
    """Port and socket directory of the server that runs in a data directory, from its lock file.

    Source: PostgreSQL, src/include/utils/pidfile.h.
    """
    lines = _lines(os.path.join(data, "postmaster.pid"))
    if len(lines) < 5 or not lines[3].isdigit() or not lines[4]:
        return None
    return (int(lines[3]), lines[4]) if postmaster(data) is not None else None


def _data(data: str) -> tuple[str | None, str | None]:
    """Role and system identifier from a data directory's files (PostgreSQL, src/include/catalog/pg_control.h)."""
    try:
        with open(os.path.join(data, "global", "pg_control"), "rb") as file:
            (identifier,) = struct.unpack("=Q", file.read(8))
    except (OSError, struct.error):
        return None, None
    standby = os.path.exists(os.path.join(data, "standby.signal"))
    return "standby" if standby else "primary", str(identifier)


# --- sockets


def _sockets(directories: Iterable[str]) -> Iterator[tuple[str, int]]:
    """Directory and port of each socket, each directory once."""
    for directory in dict.fromkeys(os.path.realpath(directory) for directory in directories):
        names = sorted(os.listdir(directory)) if os.access(directory, os.R_OK) else []
        for match in filter(None, map(SOCKET.match, names)):
            if trusted(directory, int(match.group(1))):
                yield directory, int(match.group(1))


def trusted(directory: str, port: int, owner: int | None = None) -> bool:
    """Whether a socket belongs to a server, and not to any local user.

    In a directory where all may write, a local user could create a socket to receive connections and passwords.
    There the socket must belong to ``owner``, to the user of this process, to root or to postgres.
    """
    try:
        found, folder = os.stat(os.path.join(directory, f".s.PGSQL.{port}")), os.stat(directory)
    except (OSError, ValueError):
        return False
    if not stat.S_ISSOCK(found.st_mode):
        return False
    owners = {0, os.geteuid()} | ({owner} if owner is not None else set())
    with contextlib.suppress(KeyError):
        owners.add(pwd.getpwnam("postgres").pw_uid)
    return not folder.st_mode & stat.S_IWOTH or found.st_uid in owners
