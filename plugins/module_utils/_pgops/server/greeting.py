# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a server takes sessions and gives out transaction ids, asked without a client library, so that nothing but
a deadline decides how long that takes.

A server whose processes are stopped still takes connections, since the kernel does that; it only never answers.
Source: PostgreSQL, "Frontend/Backend Protocol", "Message Flow" and "Message Formats".
"""

from __future__ import annotations

import os
import socket
import struct
import time
from dataclasses import dataclass, field

from . import discovery

READY, FULL, REFUSES, ABSENT, SILENT, UNKNOWN = "ready", "full", "refuses", "absent", "silent", "unknown"
"""It takes sessions, if perhaps none of ours; all its connections are taken; it refuses all sessions, as while it
starts; nothing listens; it does not answer; it cannot be asked from here."""

PROTOCOL = 196608
"""Version 3.0."""
LARGEST = 1024 * 1024
"""Bytes of a message that are read; a server before version 3 of the protocol, or none at all, says otherwise."""
TOO_MANY = "53300"
OF_OURS = ("CheckMyDatabase", "InitializeSessionUserId")
"""The server's functions that say TOO_MANY of a database or role, and not of the server; they are not translated."""
CANNOT = ("53", "57", "58", "XX")
"""Classes of SQLSTATE that are about the server, and not about who asks: without resources, told to stop or starting,
errors of the system and internal ones."""

RECOVERY = "SELECT pg_catalog.pg_is_in_recovery()"
WRITE = "SELECT pg_catalog.pg_current_xact_id()"
"""What a server that refuses new transaction ids refuses; in a transaction that is rolled back, so that nothing waits
for a disk or a standby."""


@dataclass(frozen=True)
class Greeting:
    """How a server answers: ``word`` is READY, FULL ..., ``text`` says why it is not READY. ``in_recovery`` and
    ``refusal`` (why no transaction id was given out, '' if one was) are None where no session came about."""

    word: str
    text: str = ""
    in_recovery: bool | None = None
    refusal: str | None = None


@dataclass
class _Wire:
    """The connection, with a deadline."""

    socket: socket.socket
    until: float
    step: str = "no answer"
    """What is wrong if time is up."""
    found: dict[str, bool | str] = field(default_factory=dict)

    def send(self, data: bytes) -> None:
        self._patience()
        self.socket.sendall(data)

    def message(self) -> tuple[bytes, bytes]:
        """The kind of the next message, and its content."""
        head = self._exactly(5)
        length = struct.unpack("!I", head[1:])[0] - 4
        if not 0 <= length <= LARGEST:
            # Who cannot even start a process for a session says so in the words of an older protocol.
            return b"E", b"M" + head[1:] + self._rest()
        return head[:1], self._exactly(length)

    def _exactly(self, size: int) -> bytes:
        found = b""
        while len(found) < size:
            self._patience()
            part = self.socket.recv(size - len(found))
            if not part:
                raise ConnectionError("the connection was closed without an answer")
            found += part
        return found

    def _rest(self) -> bytes:
        self._patience()
        return self.socket.recv(1000).split(b"\n")[0] + b"\0"

    def _patience(self) -> None:
        left = self.until - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self.socket.settimeout(left)


def greet(host: str, port: int, user: str, database: str, seconds: float) -> Greeting:
    """Ask a server for a session and end it at once; ``host`` is the directory of its socket, or a host name. If it
    needs no password, a transaction id is asked for as well, unless the server is a standby.

    A host name may take longer than ``seconds`` to be resolved.
    """
    until = time.monotonic() + seconds
    try:
        with _connected(host, port, until) as connection:
            wire = _Wire(connection, until)
            try:
                return _asked(wire, user, database)
            except (TimeoutError, socket.timeout):  # which are one from Python 3.10 on
                return _late(wire, seconds)
    except (OSError, struct.error, IndexError) as error:
        return _unanswered(error, host, seconds)


def _unanswered(error: Exception, host: str, seconds: float) -> Greeting:
    """What it means that no answer came."""
    known: tuple[tuple[tuple[type[Exception], ...], str, str], ...] = (
        ((BlockingIOError, TimeoutError, socket.timeout), SILENT, f"it takes no connection for {seconds:g} s"),
        ((PermissionError,), UNKNOWN, "its socket is closed to the agent"),
        ((FileNotFoundError,), ABSENT, f"it has no socket in {host}"),
        ((struct.error, IndexError), ABSENT, "what answers is no PostgreSQL server"),
    )
    found = [Greeting(word, text) for kinds, word, text in known if isinstance(error, kinds)]
    reason = error.strerror if isinstance(error, OSError) else None
    said = str(reason or error)
    return found[0] if found else Greeting(ABSENT, said[:1].lower() + said[1:])


def _connected(host: str, port: int, until: float) -> socket.socket:
    left = max(0.1, until - time.monotonic())
    if not host.startswith("/"):
        return socket.create_connection((host, port), left)
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.settimeout(left)
        connection.connect(os.path.join(host, f".s.PGSQL.{port}"))
        _check(host, port)
    except BaseException:
        connection.close()
        raise
    return connection


def _check(host: str, port: int) -> None:
    """Whoever else listens in its place does not live for it."""
    if discovery.server_at(host, port) is None:
        raise ConnectionRefusedError(None, "what listens on its socket is no PostgreSQL server")


def _late(wire: _Wire, seconds: float) -> Greeting:
    if wire.step == WRITE:
        return Greeting(READY, "", False, f"it gave out no transaction id within {seconds:g} s")
    return Greeting(SILENT, f"{wire.step} within {seconds:g} s")


def _asked(wire: _Wire, user: str, database: str) -> Greeting:
    wire.send(_startup(user, database))
    refused = _session(wire)
    if refused is not None:
        return refused
    wire.step = "it takes sessions, and answered no query"
    rows, error = _query(wire, RECOVERY)
    if error or rows != [b"f"]:
        _end(wire)
        return Greeting(READY, "", None if error else True)
    wire.step = WRITE
    _rows, begun = _query(wire, "BEGIN")
    _rows, error = _query(wire, WRITE)
    _query(wire, "ROLLBACK")
    _end(wire)
    return Greeting(READY, "", False, (begun or error).get("M", ""))


def _startup(user: str, database: str) -> bytes:
    given = {"user": user, "database": database, "application_name": "pgops watch", "client_encoding": "UTF8"}
    words = b"".join(os.fsencode(word) + b"\0" for pair in given.items() for word in pair) + b"\0"
    return struct.pack("!II", len(words) + 8, PROTOCOL) + words


def _session(wire: _Wire) -> Greeting | None:
    """What a server answers that gives no session; None if it does."""
    while True:
        kind, content = wire.message()
        if kind == b"E":
            return refusal(_fields(content))
        if kind == b"R" and content[:4] != b"\0\0\0\0":
            return Greeting(READY)  # it wants a password: it lives
        if kind == b"Z":
            return None


def refusal(error: dict[str, str]) -> Greeting:
    """What an error means by which a server refuses a session, with its fields. Pure.

    >>> refusal({"C": "53300", "R": "InitProcess", "M": "sorry, too many clients already"}).word
    'full'
    """
    state, text = error.get("C", ""), error.get("M", "")
    if state == TOO_MANY:
        return Greeting(READY) if error.get("R") in OF_OURS else Greeting(FULL, text)
    return Greeting(REFUSES, text) if state[:2] in CANNOT or not state else Greeting(READY)


def _query(wire: _Wire, text: str) -> tuple[list[bytes], dict[str, str]]:
    """The first columns of a statement's rows, and the fields of its error."""
    body = text.encode() + b"\0"
    wire.send(b"Q" + struct.pack("!I", len(body) + 4) + body)
    rows: list[bytes] = []
    error: dict[str, str] = {}
    while True:
        kind, content = wire.message()
        if kind == b"Z":
            return rows, error
        if kind == b"D":
            size = struct.unpack("!i", content[2:6])[0]
            rows.append(content[6 : 6 + max(size, 0)])
        if kind == b"E":
            error = _fields(content)
            if error.get("S") == "FATAL" or error.get("V") == "FATAL":
                return rows, error


def _end(wire: _Wire) -> None:
    try:
        wire.send(b"X\0\0\0\4")
    except OSError:
        return  # it ended first


def _fields(content: bytes) -> dict[str, str]:
    """The fields of an error, by their letters."""
    parts = [part for part in content.split(b"\0") if part]
    return {part[:1].decode("latin-1"): part[1:].decode("utf-8", "replace") for part in parts}
