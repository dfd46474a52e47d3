# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What settings name outside of the server: directories, files, addresses, memory. Looked at as the server's user."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .parameters import WORDS, elements, truth

NAMES = (
    "hba_file",
    "huge_pages",
    "ident_file",
    "listen_addresses",
    "log_directory",
    "logging_collector",
    "port",
    "shared_buffers",
    "unix_socket_directories",
)
"""The settings that are looked at here."""
STRICT = 2
"""vm.overcommit_memory: no more is given than there is (Linux, Documentation/mm/overcommit-accounting)."""


@dataclass(frozen=True)
class Places:
    """``values`` of NAMES with which the server would start; ``written`` are the names of those that are changed now.
    ``port`` is where it listens now, ``buffers`` the shared buffers in MB."""

    values: Mapping[str, str] = field(default_factory=dict)
    written: tuple[str, ...] = ()
    port: int = 0
    buffers: int = 0


def wrong(where: Places, data_directory: str) -> str:
    """What keeps a server from starting, or from doing what a setting that is changed says; empty for nothing.

    Every place must be usable of a setting that is changed, of others one: the server starts with that.
    """
    found = [_log_directory(where, data_directory), _rules(where, data_directory)]
    return next(filter(None, [*found, _sockets(where, data_directory), _addresses(where)]), "")


def memory(needed: int, where: Places) -> str:
    """Whether this host could ever give the shared memory that is ``needed``, in MB; 0 if unknown."""
    needed = needed or where.buffers
    with contextlib.suppress(OSError, ValueError, KeyError):
        with open("/proc/sys/vm/overcommit_memory", encoding="utf-8") as file:
            strict = int(file.read()) == STRICT
        with open("/proc/meminfo", encoding="utf-8") as file:
            host = {
                name: int(rest.split()[0]) // 1024 for name, _colon, rest in (line.partition(":") for line in file)
            }
        most = host["CommitLimit"] if strict else host["MemTotal"] + host["SwapTotal"]
        return too_much(needed, most, where, host)
    return ""


def too_much(needed: int, most: int, where: Places, host: Mapping[str, int]) -> str:
    """The same for a host with ``most`` MB, and these MB and pages (/proc/meminfo). Pure."""
    if where.values.get("huge_pages", "").lower() in WORDS["on"] and not host.get("HugePages_Total", 1):
        return "huge_pages is on, but this host has none (vm.nr_hugepages)."
    if needed > most:
        return f"shared memory of {needed} MB cannot be allocated: this host has {most} MB."
    return ""


def _log_directory(where: Places, data: str) -> str:
    if not truth(where.values.get("logging_collector", "off")):
        return ""
    path = os.path.join(data, where.values.get("log_directory", "log"))
    # The server makes one that does not exist, but not its parent.
    looked = path if os.path.lexists(path) else os.path.dirname(path.rstrip("/"))
    said = _directory(looked)
    return f"log_directory = {path}: {looked}: {said}." if said else ""


def _directory(path: str) -> str:
    """What keeps the user of this process from writing into a directory."""
    try:
        if not os.path.isdir(path):
            os.stat(path)
            return os.strerror(errno.ENOTDIR)
        return "" if os.access(path, os.W_OK | os.X_OK) else os.strerror(errno.EACCES)
    except OSError as error:
        return error.strerror or str(error)


def _rules(where: Places, data: str) -> str:
    """Without readable access rules a server does not start; without ident_file it does, but lets nobody in by it."""
    names = ["hba_file", *(name for name in where.written if name == "ident_file")]
    for name in names:
        path = where.values.get(name)
        if path:
            path = os.path.join(data, path)
            try:
                with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb"):
                    pass
            except OSError as error:
                return f"{name} = {path}: {error.strerror}."
    return ""


def _sockets(where: Places, data: str) -> str:
    name = "unix_socket_directories"
    paths = _listed(where.values.get(name, ""))
    if not paths and name in where.written:
        return f"{name} is empty: without a local socket nobody on this host could log in to restore anything."
    said = [(path, _directory(os.path.join(data, path))) for path in paths if not path.startswith("@")]
    bad = [f"{name} = {path}: {words}." for path, words in said if words]
    return bad[0] if bad and (name in where.written or len(bad) == len(paths)) else ""


def _addresses(where: Places) -> str:
    port = int(where.values.get("port") or 0)
    if not 0 < port < 65536:
        return ""
    hosts = _listed(where.values.get("listen_addresses", ""))
    said = [_unusable(host, port, port == where.port) for host in hosts]
    bad = [f"listen_addresses = {host}: {words}." for host, words in zip(hosts, said) if words]
    asked = {"listen_addresses", "port"} & set(where.written)
    return bad[0] if bad and (asked or len(bad) == len(hosts)) else ""


def _unusable(host: str, port: int, own: bool) -> str:
    """Why no server can listen on any address of a host name; with ``own`` the port is the server's already."""
    words = ""
    try:
        for family, kind, protocol, _name, address in _resolved(host, port):
            words = _bound(family, kind, protocol, address, own)
            if not words:
                return ""
    except socket.gaierror as error:
        words = error.strerror or str(error)
    return words


def _resolved(host: str, port: int) -> Sequence[Any]:
    # As bytes: for text Python looks for a codec, in files that may be closed to the server's user.
    wanted = None if host == "*" else host.encode()
    return socket.getaddrinfo(wanted, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)


def _bound(family: int, kind: int, protocol: int, address: Any, own: bool) -> str:
    try:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(address)
    except OSError as error:
        if own and error.errno == errno.EADDRINUSE:
            return ""
        return f"{address[0]}:{address[1]}: {error.strerror}"
    return ""


def _listed(text: str) -> tuple[str, ...]:
    with contextlib.suppress(ValueError):
        return elements(text)
    return ()


def lines(rows: Sequence[Mapping[str, object]]) -> Iterator[str]:
    """The lines of access rules that a server could not start with, from pg_hba_file_rules."""
    for row in rows:
        yield f"{row['file']}, line {row['line']}: {row['error']}"
