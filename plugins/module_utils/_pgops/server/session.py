# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Sessions with a server, and what is known about a server once a session is open.

The only file that imports psycopg. The import is guarded, so that a module can still report what is missing.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import re
import socket
import stat
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..errors import DriverMissing, LoginRefused, PgOpsError, QueryFailed, TooOld, Unreachable, Unsupported
from ..host.files import user_name
from ..host.identity import acting_as, peer
from . import discovery, encoding, majors, pins, refusals, tls
from .names import AGENT, EXPLAINER
from .target import DRIVER_HINT, Target

try:
    import psycopg
    from psycopg import sql
    from psycopg.adapt import Loader
except ImportError as error:
    IMPORT_ERROR: str | None = str(error)
else:
    IMPORT_ERROR = None

READS_FILES = 30.0
"""Seconds that the server may take to read its configuration files."""
USUAL, ALWAYS = "postgres", "template1"
"""The database to log in to where it does not matter, and the one of those that has none."""

ORDINARY = (AGENT, EXPLAINER)
"""Roles that are no superusers, which a run sees to."""

WAIT_FOR_END = 0.5
"""Seconds to wait for the end of a closed session's server process."""

_OPENING = """
SELECT {pins},
       pg_catalog.pg_backend_pid() AS pid,
       pg_catalog.current_setting('server_version_num')::integer AS version_num,
       pg_catalog.current_setting('is_superuser') OPERATOR(pg_catalog.=) 'on' AS superuser,
       pg_catalog.pg_is_in_recovery() AS in_recovery
"""


@dataclass(eq=False)
class Session:
    """An open session in autocommit mode, and properties of its server.

    ``version_num`` is PostgreSQL's own number, 170004 for 17.4.
    """

    target: Target
    connection: Any
    version_num: int
    superuser: bool
    in_recovery: bool
    user: str

    @property
    def database(self) -> str:
        """The database's name as it was given: inside, the server takes it for a text in that database's encoding."""
        return self.target.database

    @property
    def major(self) -> int:
        """The major version, 17 for 17.4."""
        return self.version_num // 10000

    def rows(self, query: Any, params: Sequence[Any] | Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """All rows of a query, each as a dict of column to value.

        Raises QueryFailed with the SQLSTATE.
        """
        with translated(), self.connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            cursor.execute(_query(query), params)
            return list(cursor.fetchall()) if cursor.description else []

    def row(self, query: Any, params: Sequence[Any] | Mapping[str, Any] | None = None) -> dict[str, Any] | None:
        """The first row, or None."""
        found = self.rows(query, params)
        return found[0] if found else None

    def value(self, query: Any, params: Sequence[Any] | Mapping[str, Any] | None = None) -> Any:
        """The first column of the first row, or None."""
        found = self.row(query, params)
        return next(iter(found.values())) if found else None

    def documents(self, query: str) -> list[dict[str, Any]]:
        """The JSON objects that a query of one column returns.

        In binary form, for which the protocol accepts a single statement only; as text, since names may have bytes
        that are not UTF-8: those are lone surrogates (see encoding).
        """
        with translated(), self.connection.cursor() as cursor:
            cursor.adapters.register_loader("text", _json_loader())
            cursor.execute(f"SELECT found.document::text FROM ({query}) AS found (document)".encode(), binary=True)
            return [json.loads(row[0]) for row in cursor.fetchall()]

    def described(self, query: str) -> list[tuple[str, int]]:
        """Run a query of a single statement, which the binary form guarantees, for its columns: (name, oid of type).

        Raises QueryFailed.
        """
        with translated(), self.connection.cursor() as cursor:
            cursor.execute(query.encode(), binary=True)
            return [(column.name, column.type_code) for column in cursor.description or ()]

    def parsed(self, query: str) -> list[tuple[str, int]]:
        """Parse a single statement, without planning or running it, for its columns: (name, oid of type).

        Raises QueryFailed.
        """
        with translated():
            self._prepare(query)
            found = self.connection.pgconn.describe_prepared(b"")
            names = [(found.fname(at) or b"").decode("utf-8", "backslashreplace") for at in range(found.nfields)]
            return [(name, found.ftype(at)) for at, name in enumerate(names)]

    def _prepare(self, text: str) -> None:
        parsed = self.connection.pgconn.prepare(b"", text.encode())
        if parsed.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(parsed)

    def single(self, text: str) -> Any:
        """The first column of the first row of one statement, whose parameters have no values: the extended protocol
        parses it, which refuses a second statement, and the simple one, which binds no value, runs it.

        Raises QueryFailed.
        """
        with translated():
            self._prepare(text)
        return self.value(text)

    def revive(self) -> None:
        """Log in anew if the server has ended the session: an error that does so is that of one step, and none of the
        next.

        Raises PgOpsError.
        """
        if self.connection.closed:
            self.__dict__.update(connect(self.target).__dict__)

    def abandon(self) -> None:
        """End the session from another thread, whatever it does: a function can catch statement_timeout, but not a
        termination, nor can it make this side wait longer."""
        with contextlib.suppress(PgOpsError), connect(self.target) as other:
            other.value("SELECT pg_terminate_backend(%s)", [self.connection.info.backend_pid])
        with contextlib.suppress(OSError, psycopg.Error), self._wire() as wire:
            wire.shutdown(socket.SHUT_RDWR)

    @contextlib.contextmanager
    def answering(self, seconds: float) -> Iterator[None]:
        """The server has to answer what is asked inside, in so many seconds: statement_timeout does not end a process
        of its that hangs, as in opening a pipe.

        Raises QueryFailed.
        """
        wire = self._wire()
        late = threading.Event()

        def hang_up() -> None:
            late.set()
            with contextlib.suppress(OSError):
                wire.shutdown(socket.SHUT_RDWR)

        timer = threading.Timer(seconds, hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except QueryFailed as error:
            if late.is_set():
                raise QueryFailed(
                    f"The server on {place(self.target)} did not answer within {seconds:g} seconds.",
                    "One of the files that it reads may be a pipe, or on a file system that hangs.",
                ) from error
            raise
        finally:
            timer.cancel()
            timer.join()
            wire.close()

    def execute(self, query: Any, params: Sequence[Any] | Mapping[str, Any] | None = None) -> None:
        """Run a statement for its effect."""
        with translated():
            self.connection.execute(_query(query), params)

    def script(self, *parts: Any) -> None:
        """Run statements and SQL texts of several statements, without parameters, in one round trip."""
        with translated():
            whole = [part.encode() if isinstance(part, str) else part.as_bytes(self.connection) for part in parts]
            self.connection.execute(b"\n;\n".join(whole))

    @contextlib.contextmanager
    def transaction(self, rollback: bool = False) -> Iterator[None]:
        """All statements inside, or none of them."""
        with translated(), self.connection.transaction(force_rollback=rollback):
            yield

    def scram(self, role: str, password: str) -> str:
        """The SCRAM verifier of a password, computed here, so that the password itself never reaches a log."""
        verifier: bytes = self.connection.pgconn.encrypt_password(password.encode(), role.encode(), b"scram-sha-256")
        return verifier.decode()

    def close(self) -> None:
        """End the session, and wait for the end of its server process: until then it uses one of the role's few
        connections.

        The process keeps its end of the connection open as long as it lives. For another host there is no wait: the
        network may be down.
        """
        wire = None
        with contextlib.suppress(OSError, psycopg.Error):  # for instance of a lost connection
            wire = self._wire() if self.target.local else None
        self.connection.close()
        if wire is None:
            return
        until = time.monotonic() + WAIT_FOR_END
        with wire, contextlib.suppress(OSError):
            while (left := until - time.monotonic()) > 0:
                wire.settimeout(left)
                if not wire.recv(65536):
                    break

    def _wire(self) -> socket.socket:
        """The connection itself, to be closed on its own; the session's stays open."""
        return socket.socket(fileno=os.dup(self.connection.fileno()))

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def connect(target: Target) -> Session:
    """Open a session whose search_path, formats and timeouts are pinned.

    As root, a local socket is opened as the operating system user that owns it, or as the target's ``os_user``, so
    that peer authentication works without becoming an unprivileged user first.

    Raises DriverMissing, Unreachable, LoginRefused, or Unsupported (a pooler, an old version).
    """
    if IMPORT_ERROR is not None:
        raise DriverMissing(f"psycopg 3 cannot be imported: {IMPORT_ERROR}.", DRIVER_HINT)
    try:
        return _begun(target)
    except _CutShort as cut:
        return _begun(replace(target, major=cut.major, cut_short=True))


class _CutShort(Exception):
    """A default of the server's has ended a session before it could pin anything. ``major`` is the server's version,
    or the least that it can be."""

    def __init__(self, major: int) -> None:
        super().__init__(major)
        self.major = major


def _begun(target: Target) -> Session:
    owner = socket_owner(target) if target.local else None
    switch = _identity(target, owner) if os.geteuid() == 0 and target.password is None else None
    user = target.user or (pwd.getpwuid(owner).pw_name if owner is not None else "postgres")
    target = replace(target, major=target.major or _major(target, user, owner))
    quiet = _quiet(target, user)
    try:
        with acting_as(switch), _in_environment(target.database):
            connection, told = _connection(target, user, quiet)
    except LoginRefused as error:
        if target.database != USUAL or error.password_used or not _names(USUAL, error):
            raise
        with contextlib.suppress(PgOpsError):  # somebody may have dropped it
            return connect(replace(target, database=ALWAYS))
        raise
    try:
        if owner is not None:
            _check_peer(target, owner, connection)
        known = target.triggers_at_login if user in ORDINARY else not told
        return _opened(replace(target, triggers_at_login=known), user, connection)
    except BaseException:
        connection.close()
        raise


def _names(database: str, error: LoginRefused) -> bool:
    """Whether a refusal can be about the database: one for too many connections of a role names the role alone."""
    return re.search(rf"\b{re.escape(database)}\b", error.message) is not None


def _major(target: Target, user: str, owner: int | None) -> int:
    """The version of a server on this host, as its files show it to its user and to root; 0 if unknown."""
    if user in ORDINARY or owner is None:
        return 0
    return discovery.major_at(target.socket_path, owner) or 0


def _quiet(target: Target, user: str) -> bool:
    """Whether to tell the server at login to run no event trigger: if it may have such on login, and the role may be
    a superuser. One that is known to be older is not asked in vain: it would log that.
    """
    if user in ORDINARY or target.triggers_at_login is not None:
        return user not in ORDINARY and not target.triggers_at_login
    return not target.major or target.major >= pins.EVENT_TRIGGERS_SINCE


def _connection(target: Target, user: str, quiet: bool) -> tuple[Any, bool]:
    """The connection, and whether the server was told to run no event trigger in it."""
    arguments = _arguments(target, user, quiet)
    try:
        return psycopg.connect(**arguments, autocommit=True, prepare_threshold=None), quiet
    except psycopg.Error as error:
        words = str(error)
        if quiet and pins.refused(words):
            return _once_more(target, user), False
        if target.major and pins.newer(words):
            return _connection(replace(target, major=0), user, quiet)
        if pins.cut_short(words) and not target.cut_short:
            raise _CutShort(max(target.major, pins.SINCE["transaction_timeout"][0])) from error
        if pins.unknown(words):
            with contextlib.suppress(psycopg.Error), psycopg.connect(**{**arguments, "options": ""}) as other:
                if pins.POOLER in words or other.info.server_version // 10000 < majors.OLDEST:
                    raise _unfit(target, other) from error
        raise refusal(target, user, error) from error


def _once_more(target: Target, user: str) -> Any:
    """The connection after a refused one, whose server process counts against its role's limit until it has gone."""
    until = time.monotonic() + WAIT_FOR_END
    while True:
        try:
            return _connection(target, user, quiet=False)[0]
        except LoginRefused:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


def _unfit(target: Target, connection: Any) -> Unsupported:
    """Why something does not take our parameters, though it lets us in without."""
    major = connection.info.server_version // 10000
    if major < majors.OLDEST:
        return TooOld(
            f"The server on {place(target)} is PostgreSQL {major}.",
            f"PostgreSQL {majors.OLDEST} is the oldest supported version: upgrade the server, or exclude this host.",
            major,
        )
    return Unsupported(
        f"A connection pooler answers on {place(target)}, not a PostgreSQL server.",
        "Use the server's own host and port: a pooler does not keep session settings.",
    )


@contextlib.contextmanager
def _in_environment(database: str) -> Iterator[None]:
    """psycopg's parameters are texts: a database whose name is none reaches libpq by its environment."""
    if encoding.is_text(database):
        yield
        return
    before = os.environb.get(b"PGDATABASE")
    os.environb[b"PGDATABASE"] = encoding.raw(database)
    try:
        yield
    finally:
        del os.environb[b"PGDATABASE"]
        if before is not None:
            os.environb[b"PGDATABASE"] = before


def _identity(target: Target, owner: int | None) -> int | None:
    try:
        return pwd.getpwnam(target.os_user).pw_uid if owner is not None and target.os_user else owner
    except KeyError:
        return owner


def _check_peer(target: Target, owner: int, connection: Any) -> None:
    """Raises Unreachable if somebody else's process answers than the owner of the socket's file."""
    _process, uid = peer(connection.fileno())
    if uid != owner:
        raise Unreachable(
            f"{target.socket_path} belongs to user {user_name(owner)}, but user {user_name(uid)} listens there.",
            "Find out what listens there.",
        )


def _opened(target: Target, user: str, connection: Any) -> Session:
    for name in ("text", "varchar", "bpchar", "name"):
        for loader in _lossy_loaders():
            connection.adapters.register_loader(name, loader)
    major = connection.info.server_version // 10000
    if major < majors.OLDEST:
        raise _unfit(target, connection)
    settings = pins.opening(major, target.as_users, target.as_is)
    try:
        with translated(), connection.cursor(row_factory=psycopg.rows.dict_row) as cursor:
            row = cursor.execute(_OPENING.replace("{pins}", settings).encode()).fetchone()
            if target.role:
                cursor.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(target.role)))
    except QueryFailed as error:
        if connection.closed and not target.cut_short:
            raise _CutShort(major) from error
        raise
    # A pooler gives its clients process ids of its own, and shares a server's session between them.
    if row["pid"] != connection.info.backend_pid:
        raise _unfit(target, connection)
    return Session(
        target=replace(target, major=major),
        connection=connection,
        version_num=row["version_num"],
        superuser=row["superuser"],
        in_recovery=row["in_recovery"],
        user=user,
    )


ENCRYPTED = ("require", "verify-ca", "verify-full")
BOUND = (
    "Channel binding is required, so pg_hba.conf has to ask for a password that is stored as scram-sha-256. Where "
    "it cannot, set ssl_mode=verify-full and ca_cert (in pgops_instances for a remote instance), or "
    "channel_binding=disable, with which whoever answers there can have the password."
)

GIVING_UP = {"keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3, "tcp_user_timeout": 60_000}
"""Seconds, a number, and milliseconds, after which a connection without answers is given up."""


def _arguments(target: Target, user: str, quiet: bool) -> dict[str, Any]:
    """libpq's connection parameters; those left empty stay libpq's defaults."""
    host = os.path.dirname(target.socket_path) if target.local else target.host
    sslmode, channel_binding = target.protection
    wanted = {
        "host": host,
        "port": target.port,
        "user": user,
        "password": target.password,
        "dbname": target.database if encoding.is_text(target.database) else "",
        "sslmode": sslmode,
        "sslrootcert": target.sslrootcert,
        "passfile": target.passfile,
        "channel_binding": channel_binding,
        "target_session_attrs": target.target_session_attrs,
        "application_name": target.application_name,
        "connect_timeout": target.connect_timeout,
        "client_encoding": "UTF8",
        "options": pins.options(
            _timeouts(target),
            target.as_users,
            target.as_is,
            event_triggers=not quiet,
            major=target.major,
            cut_short=target.cut_short,
        ),
        **({} if target.local else GIVING_UP),
    }
    return {key: value for key, value in wanted.items() if value not in ("", None)}


def _timeouts(target: Target) -> dict[str, str]:
    limits = {"statement_timeout": target.statement_timeout, "lock_timeout": target.lock_timeout}
    return {name: str(round(seconds * 1000)) for name, seconds in limits.items()}


def socket_owner(target: Target) -> int | None:
    """The uid that owns the server's Unix socket.

    Raises Unreachable if there is no socket, or one that another local user could have created, and Unsupported for a
    pooler's.
    """
    path = target.socket_path
    try:
        found = os.lstat(path)
    except OSError as error:
        raise Unreachable(
            f"No PostgreSQL server listens on {place(target)}: {path}: {error.strerror}.",
            "Start the server, or set login_port, or login_host to its socket directory (in the inventory: port and "
            "socket_directory in pgops_instances, which also leaves out those that it does not name).",
        ) from error
    directory, port = os.path.dirname(path), int(target.port)
    if not stat.S_ISSOCK(found.st_mode):
        raise Unreachable(f"{path} is not a socket.", "Set login_host to the directory of the server's own socket.")
    if discovery.server_at(directory, port) is None:
        raise Unsupported(
            f"{path} has no lock file beside it: it is a connection pooler's or proxy's, not a PostgreSQL server's.",
            "Set login_port, or login_host, to the server's own socket.",
        )
    if found.st_uid == 0:
        raise Unreachable(
            f"{path} belongs to root, as whom no PostgreSQL server runs.", "Find out what listens there."
        )
    owner = user_name(found.st_uid)
    if not discovery.trusted(directory, port) and target.user != owner and not _of_a_cluster(directory, port, owner):
        raise Unreachable(
            f"{path} belongs to user {owner}, in a directory where others can create a socket.",
            "If this is the server's user, set login_user to it (pgops_login_user in the inventory). Otherwise find "
            "out why the server has no socket.",
        )
    return found.st_uid


def _of_a_cluster(directory: str, port: int, owner: str) -> bool:
    """Whether a socket is that of one of Debian's clusters, which its user owns."""
    real = os.path.realpath(directory)
    return any(
        (one.port, one.owner, os.path.realpath(one.socket_directory)) == (port, owner, real)
        for one in discovery.instances()
        if one.version
    )


def refusal(target: Target, user: str, error: Any) -> PgOpsError:
    """The error for a connection that failed: what is certain is whether the server listens, and whether it asked for
    a password. The remedy follows the server's words, where these are known."""
    words = " ".join(str(error).split())
    up = [at for at in each(target) if listening(at)]
    if not up and target.local:
        return Unreachable(f"The server on {place(target)} is down: {words}", "Start it, then retry.")
    if not up:
        return Unreachable(
            f"No PostgreSQL server answers on {place(target)}: {words}",
            "Start the server, or correct login_host and login_port (host and port in pgops_instances). Check "
            "listen_addresses and firewalls.",
        )
    if target.target_session_attrs != "any":
        return Unreachable(
            f"No node of {place(target)} is a primary that accepts role {user}. Reachable: "
            f"{', '.join(place(at) for at in up)}. {words}",
            "Promote a node, or look for the refusal in its log.",
        )
    connection = getattr(error, "pgconn", None)
    used = bool(connection is not None and connection.used_password)
    sslmode, channel_binding = target.protection
    if sslmode in ENCRYPTED and all(tls.speaks(at.host, at.port, at.connect_timeout) is False for at in up):
        return LoginRefused(
            f"The server on {place(target)} has no TLS, without which others could read the password of role {user}.",
            "Switch ssl on there. To send everything in plain text instead, set ssl_mode=disable (in pgops_instances "
            "for a remote instance).",
        )
    if connection is not None and connection.needs_password:
        hint = _password_wanted(target, user)
    elif used and "password" in words:
        hint = f"Check that the password which was used belongs to role {user}."
    else:
        bound = channel_binding == "require" and "channel binding" in words
        hint = BOUND if bound else refusals.remedy(words, target.database, user)
    message = f"The server on {place(target)} refused role {user}: {words}"
    return LoginRefused(message, hint, used, refusals.full(words))


def _password_wanted(target: Target, user: str) -> str:
    if not target.local:
        return "The server requires a password: set login_password (in pgops_instances for a remote instance)."
    return (
        "The server requires a password even on its local socket. Put this line first in its pg_hba.conf, and "
        f"reload: local all {user} peer. Or set login_user (pgops_login_user in the inventory) to a superuser that "
        "is let in without a password. Modules that you call yourself take login_password."
    )


def each(target: Target) -> list[Target]:
    """The nodes of a target that names several, one by one."""
    if target.local:
        return [target]
    hosts, ports = target.host.split(","), target.port.split(",")
    if len(ports) == 1:
        ports *= len(hosts)
    return [replace(target, host=host, port=port) for host, port in zip(hosts, ports)]


def listening(target: Target) -> bool:
    """Whether anything accepts a connection on the target's socket or port."""
    try:
        if target.local:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(target.connect_timeout)
                probe.connect(target.socket_path)
            return True
        with socket.create_connection((target.host, int(target.port)), timeout=target.connect_timeout):
            return True
    except OSError:
        return False


def place(target: Target) -> str:
    """The target as text for messages."""
    if target.local:
        return f"the local socket of port {target.port}"
    return ", ".join(f"{at.host}:{at.port}" for at in each(target))


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turn psycopg's errors into QueryFailed with the SQLSTATE and the server's own hint."""
    try:
        yield
    except psycopg.Error as error:
        diagnostic = error.diag
        message = diagnostic.message_primary or str(error).strip() or type(error).__name__
        detail = f" ({diagnostic.message_detail})" if diagnostic.message_detail else ""
        where = f" [SQLSTATE {error.sqlstate}]" if error.sqlstate else ""
        raise QueryFailed(message + detail + where, diagnostic.message_hint or "", error.sqlstate) from error


def identifier(*names: str) -> Any:
    """A quoted, possibly qualified identifier."""
    return sql.Identifier(*names)


def statement(template: str, *parts: Any, **named: Any) -> Any:
    """A statement with its ``{}`` placeholders filled: strings become quoted literals, identifiers stay."""
    return sql.SQL(template).format(
        *[_part(part) for part in parts], **{name: _part(part) for name, part in named.items()}
    )


def listed(parts: Sequence[Any]) -> Any:
    """Parts separated by commas."""
    return sql.SQL(", ").join([_part(part) for part in parts])


def raw(text: str) -> Any:
    """SQL text from a file of this collection, unchanged."""
    return sql.SQL(text)


def _part(part: Any) -> Any:
    return part if isinstance(part, sql.Composable) else sql.Literal(part)


def _query(query: Any) -> Any:
    return query.encode() if isinstance(query, str) else query


def _lossy_loaders() -> list[Any]:
    """Loaders of both formats for text that is not UTF-8 (an SQL_ASCII database checks nothing): they escape."""

    class LossyText(Loader):
        def load(self, data: Any) -> str:
            return bytes(data).decode("utf-8", "backslashreplace")

    class LossyBinary(LossyText):
        format = psycopg.pq.Format.BINARY

    return [LossyText, LossyBinary]


def _json_loader() -> Any:
    """A loader of JSON in binary form that loses no byte."""

    class Exact(Loader):
        format = psycopg.pq.Format.BINARY

        def load(self, data: Any) -> str:
            return encoding.text(bytes(data))

    return Exact
