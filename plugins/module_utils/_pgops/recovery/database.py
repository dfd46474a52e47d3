# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A database restored from a dump, into a new database or an empty one of a running server. All as the server's user,
who logs in as its superuser.

A new database has a name of its own while it is filled, which nobody but superusers can connect to, and gets the one
that was asked for when it is complete: there is no half of it under that name, whenever a restore is killed.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from ..backup import clients, dumper, source, waits
from ..backup.clients import Clients
from ..backup.dumper import Login
from ..backup.source import Source
from ..errors import Conflict, HostFailed, InvalidInput, PgOpsError, QueryFailed
from ..host import files
from ..host.commands import Watch
from ..repository import backups, dumps
from ..repository.dumps import Dumped, Stored
from ..server.names import RESTORING
from ..server.session import Session, connect, identifier, statement
from ..server.target import Target
from . import needs, replay
from .place import check_space
from .restore import Phases, only_generation

APPLICATION = "pgops restoring"
"""As what the server's views show a restore, with the number of its process."""
FILLING = "data"
"""And its programs."""
LONGEST_NAME = 63
"""Bytes of a name in PostgreSQL."""
MOST_SHOWN = 10
SLOWEST = 3600.0
"""Seconds that creating a database, or dropping it, may take."""
ICU, BUILTIN = "i", "b"
PROVIDERS = {ICU: (15, "icu", "ICU_LOCALE"), BUILTIN: (17, "builtin", "BUILTIN_LOCALE")}
"""Of the locale of a database: the first version that has such, its name, and the parameter for the locale."""
FIRST_OID = 16384
"""From this one on objects are users' (FirstNormalObjectId in src/include/access/transam.h)."""

SERVER = """
SELECT ARRAY(SELECT r.rolname::text FROM pg_roles AS r) AS roles,
       ARRAY(SELECT t.spcname::text FROM pg_tablespace AS t) AS tablespaces,
       ARRAY(SELECT e.name::text FROM pg_available_extensions AS e) AS extensions
"""
DATABASE = """
SELECT pg_encoding_to_char(d.encoding) AS encoding, d.datistemplate AS template,
       d.datallowconn AND d.datconnlimit <> -2 AS open
FROM pg_database AS d WHERE d.datname::text = %s
"""
LEFT = f"""
SELECT d.datname::text AS name, format('DROP DATABASE %I WITH (FORCE)', d.datname) AS drop FROM pg_database AS d
WHERE starts_with(d.datname::text, '{RESTORING}') AND NOT EXISTS (
    SELECT FROM pg_stat_activity AS a
    WHERE a.datid = d.oid
        OR a.application_name = '{APPLICATION} ' || split_part(right(d.datname::text, {-len(RESTORING)}), '_', 1))
ORDER BY d.oid
"""
"""Those that nobody fills any more: their names have the number of the process that did."""
CONTENT = f"""
SELECT f.what FROM (
    SELECT 'relation ' || c.oid::regclass::text FROM pg_class AS c WHERE c.oid >= {FIRST_OID}
    UNION ALL SELECT 'function ' || p.oid::regprocedure::text FROM pg_proc AS p WHERE p.oid >= {FIRST_OID}
    UNION ALL SELECT 'type ' || t.oid::regtype::text FROM pg_type AS t WHERE t.oid >= {FIRST_OID}
    UNION ALL SELECT 'schema ' || n.nspname FROM pg_namespace AS n
    WHERE n.oid >= {FIRST_OID} AND n.nspname !~ '^pg_(toast_)?temp_'
    UNION ALL SELECT 'extension ' || e.extname FROM pg_extension AS e WHERE e.oid >= {FIRST_OID}
    UNION ALL SELECT 'large object ' || l.oid FROM pg_largeobject_metadata AS l
    UNION ALL SELECT 'publication ' || u.pubname FROM pg_publication AS u
    UNION ALL SELECT 'event trigger ' || v.evtname FROM pg_event_trigger AS v
    UNION ALL SELECT 'foreign-data wrapper ' || w.fdwname FROM pg_foreign_data_wrapper AS w
) AS f (what) LIMIT 1
"""


@dataclass(frozen=True)
class Request:
    """Which dump is restored, and where to.

    ``database`` is the name of the database that was dumped, as people read it; ``dump`` the name or UUID of a dump,
    '' for the newest good one. ``name`` is the database that it becomes: a new one, or with ``existing`` one that is
    there, and empty. The server is that of the socket of ``port`` in ``socket_directory``, '' for a usual one;
    ``superuser`` is a role, '' for the one with the name of the server's user. ``bin_directory`` has pg_restore of
    the server's version, '' for beside the server's programs, or where packages have it. Without ``owners`` all
    objects are the superuser's, and nobody has rights on them; without ``tablespaces`` all are in the default one.
    ``jobs`` sessions work at a time.
    """

    repository: str
    generation: str
    database: str
    name: str
    socket_directory: str
    port: int
    dump: str = ""
    existing: bool = False
    superuser: str = ""
    bin_directory: str = ""
    jobs: int = 1
    owners: bool = True
    tablespaces: bool = True


@dataclass(frozen=True)
class Planned:
    """What a restore will do. ``place`` is the directory of the database's dumps; ``space`` needs and free bytes by
    directory."""

    request: Request
    generation: str
    place: str
    stored: Stored
    server: Source
    programs: Clients
    user: str
    space: dict[str, Any]
    warnings: tuple[str, ...] = ()

    @property
    def data(self) -> str:
        """The directory that pg_dump wrote."""
        return os.path.join(self.place, self.stored.name, dumps.DATA)

    @property
    def login(self) -> Login:
        """How pg_restore logs in."""
        directory = os.path.dirname(_target(self.request).socket_path)
        name = f"{_application()} {FILLING}"
        return Login(directory, self.request.port, self.user, name, self.server.major, restricted=False)

    def told(self) -> dict[str, Any]:
        """The plan as data."""
        return {
            "dump": dumps.told(self.request.repository, self.generation, self.stored),
            "generation": self.generation,
            "name": self.request.name,
            "existing": self.request.existing,
            "dumped_from": self.stored.dump.server_version,
            "server_version": self.server.version,
            "program": self.programs.program(clients.RESTORING),
            "jobs": self.request.jobs,
            "space": self.space,
            "warnings": list(self.warnings),
        }


def _application() -> str:
    return f"{APPLICATION} {os.getpid()}"


# --- the plan


def plan(request: Request) -> Planned:
    """Find out how to restore, and all that forbids it; nothing is changed.

    Raises what forbids it, with what to do.
    """
    generation = request.generation or only_generation(request.repository)
    _check_name(request.name)
    dumped, stored = find(request, generation)
    warnings = [f"The last verification found {'; '.join(stored.problems)}."] if stored.problems else []
    with _session(request) as session:
        server = source.read(session)
        _check_server(session, server, stored)
        programs = clients.restoring(request.bin_directory, server.bin_directory, server.major)
        warnings += _check_target(session, request, stored)
        _check_locale(request, server, stored)
        _check_needs(session, request, programs, os.path.join(dumped.place, stored.name), stored)
        warnings += [
            f"Database {row['name']} was left by a restore that was killed. To remove it: {row['drop']}"
            for row in session.rows(LEFT)
        ]
        reserve = source.RESERVE * server.segment_bytes
        space = check_space({server.data_directory: stored.dump.data_bytes + reserve})
        user = session.user
    return Planned(request, generation, dumped.place, stored, server, programs, user, space, tuple(warnings))


def _check_name(name: str) -> None:
    """Raises InvalidInput."""
    try:
        fits = 0 < len(name.encode()) <= LONGEST_NAME and "\0" not in name
    except UnicodeEncodeError:
        fits = False
    if not fits or name.startswith(RESTORING):
        raise InvalidInput(f"{name!r} cannot be the name of a database.", f"Use 1 to {LONGEST_NAME} bytes in UTF-8.")


def find(request: Request, generation: str) -> tuple[Dumped, Stored]:
    """The dump that is asked for, among those of its database. Raises InvalidInput and HostFailed."""
    held = dumps.databases(request.repository, generation)
    named = [one for one in held if request.database in (dumps.shown(one.key), os.fsdecode(dumps.name(one.key)))]
    if not named:
        known = ", ".join(dumps.shown(one.key) for one in held[:MOST_SHOWN]) or "none"
        raise InvalidInput(
            f"There is no dump of database {request.database} in {generation}.", f"There are dumps of: {known}."
        )
    dumped = named[0]
    if not request.dump:
        if dumped.newest is None:
            raise HostFailed(f"No dump of database {request.database} is whole.{_hurt(dumped)}", _some(dumped))
        return dumped, dumped.newest
    found = [one for one in dumped.dumps if request.dump in (one.name, one.dump.id)]
    if not found:
        raise InvalidInput(f"There is no dump {request.dump} of database {request.database}.", _some(dumped))
    return dumped, found[0]


def _hurt(dumped: Dumped) -> str:
    found = [f" Dump {name}: {why}" for name, why in dumped.damaged.items()]
    return "".join(
        [*found, *(f" Dump {one.name}: {'; '.join(one.problems)}" for one in dumped.dumps if one.problems)]
    )


def _some(dumped: Dumped) -> str:
    names = [one.name for one in dumped.dumps[-MOST_SHOWN:]]
    return f"There are {', '.join(names)}." if names else "Look for a copy of the repository."


@contextlib.contextmanager
def _session(request: Request, database: str = "postgres") -> Iterator[Session]:
    """A superuser's session with the server. Raises Unreachable and the like."""
    with connect(replace(_target(request), database=database)) as session:
        yield session


def _target(request: Request) -> Target:
    return Target(
        host=request.socket_directory,
        port=str(request.port),
        user=request.superuser,
        application_name=_application(),
        statement_timeout=SLOWEST,
    )


def _check_server(session: Session, server: Source, stored: Stored) -> None:
    """Raises Conflict."""
    if not session.superuser:
        raise Conflict(f"Role {session.user} is no superuser.", "Name one with --superuser.")
    if server.in_recovery:
        raise Conflict("This server is a standby: nothing can be restored into it.", "Restore on its primary.")
    before = int(stored.dump.server_version.partition(".")[0])
    if before > server.major:
        raise Conflict(
            f"The dump is of PostgreSQL {stored.dump.server_version}, and this server is {server.version}.",
            f"Restore it into PostgreSQL {before} or newer.",
        )


def _check_target(session: Session, request: Request, stored: Stored) -> list[str]:
    """Warnings. Raises Conflict and InvalidInput where the database is not as it has to be."""
    found = session.row(DATABASE, [request.name])
    if not request.existing:
        if found:
            raise Conflict(
                f"There is a database {request.name} already.",
                "Choose another name; or if it is empty, fill it with --into.",
            )
        return []
    if not found:
        raise InvalidInput(f"There is no database {request.name}.", "With --to it is created.")
    if found["template"] or not found["open"]:
        raise Conflict(f"Database {request.name} is a template, or allows no connections.", "Choose another one.")
    with _session(request, request.name) as inside:
        content = inside.value(CONTENT)
    if content:
        raise Conflict(
            f"Database {request.name} is not empty: it has {content}.",
            "Choose another one. If a restore into it was broken off, drop it and create it again.",
        )
    encodings = (found["encoding"], stored.dump.encoding)
    differ = f"Database {request.name} has the encoding {encodings[0]}, and the dump {encodings[1]}."
    return [differ] if len(set(encodings)) > 1 else []


def _check_locale(request: Request, server: Source, stored: Stored) -> None:
    """Raises Conflict where a server has no such locale as the database had."""
    provider = stored.dump.locale["provider"]
    if not request.existing and provider in PROVIDERS and server.major < PROVIDERS[provider][0]:
        raise Conflict(
            f"The database had a locale of the provider {PROVIDERS[provider][1]}, which PostgreSQL {server.major} "
            "does not have for databases.",
            "Create a database with another locale, and fill it with --into.",
        )


def _check_needs(session: Session, request: Request, programs: Clients, path: str, stored: Stored) -> None:
    """Raises Conflict where roles, tablespaces or extensions are missing: pg_restore would find out late."""
    found = _needs(programs, path, stored, "" if request.existing else stored.dump.owner)
    there = session.rows(SERVER)[0]
    roles = needs.lacking(found.roles, there["roles"]) if request.owners else []
    if roles:
        raise Conflict(
            f"The server has no {_few('role', roles)}, to whom something of the dump belongs, or is granted.",
            f"Create them: {' '.join(found.roles[one] for one in roles)} Their passwords, rights and memberships are "
            f"in {os.path.join(path, dumps.GLOBALS)}. Or restore without owners and rights, with --no-owners.",
        )
    spaces = needs.lacking(found.tablespaces, there["tablespaces"]) if request.tablespaces else []
    if spaces:
        raise Conflict(
            f"The server has no {_few('tablespace', spaces)}.",
            f"Create them, as {os.path.join(path, dumps.GLOBALS)} does; or restore all into the default one, with "
            "--no-tablespaces.",
        )
    extensions = needs.lacking(found.extensions, there["extensions"])
    if extensions:
        raise Conflict(
            f"The server does not have the files of the {_few('extension', extensions)}.",
            "Install the packages that have them.",
        )


def _few(what: str, names: list[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN} more" if len(names) > MOST_SHOWN else ""
    return f"{what}{'s' * (len(names) > 1)} {', '.join(names[:MOST_SHOWN])}{more}"


def _needs(programs: Clients, path: str, stored: Stored, owner: str) -> needs.Needs:
    """What a dump needs of a server, and the ``owner`` of its database.

    Raises HostFailed where pg_restore cannot read it.
    """
    program, data = programs.program(clients.RESTORING), os.path.join(path, dumps.DATA)
    try:
        listing = dumper.run([program, "--list", data])
        with tempfile.TemporaryDirectory(prefix="pgops-restore-") as scratch:
            # Of many tables it is longer than what is taken from a program's output.
            schema = os.path.join(scratch, "schema.sql")
            dumper.run([program, "--schema-only", f"--file={schema}", data])
            statements = _text(schema)
    except HostFailed as error:
        raise HostFailed(
            f"{program} cannot read the dump in {path}: {error.message}",
            f"It was made by pg_dump {stored.dump.versions.get(dumps.METHOD, 'of an unknown version')}: restore it "
            "into that version or a newer one. If the server's is not older, the dump is damaged.",
        ) from error
    return needs.needs(listing, statements, _text(os.path.join(path, dumps.GLOBALS)), owner)


def _text(path: str) -> str:
    """Raises HostFailed."""
    try:
        return files.contents(path, 1 << 30).decode("utf-8", "replace")
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error


# --- the restore


def restore(request: Request, say: Callable[[str], None] = lambda _text: None) -> dict[str, Any]:
    """Restore: each file is compared with its checksum, the database is created and filled, and gets its name.

    Returns the plan's data, with ``phases``.

    Raises PgOpsError; of a database that did not exist nothing is left then, or the error tells how to remove it.
    """
    phases = Phases(say)
    with phases.phase("plan"):
        planned = plan(request)
    with backups.reading(planned.place, [planned.stored.name]):
        with phases.phase("verify"):
            _verify(planned)
        with _session(request) as session:
            if request.existing:
                with _told_partial(request.name), phases.phase("restore"):
                    _fill(session, planned, request.name)
            else:
                _create(session, planned, phases)
    return {**planned.told(), "phases": replay.told(phases.done)}


def _verify(planned: Planned) -> None:
    """Raises HostFailed where a file of the dump is not as it was."""
    path = os.path.join(planned.place, planned.stored.name)
    found = dumper.problems(path, planned.stored.dump.checksum)
    if found:
        raise HostFailed(f"The dump in {path} is damaged: {'; '.join(found[:MOST_SHOWN])}.", "Choose another one.")


def _create(session: Session, planned: Planned, phases: Phases) -> None:
    """Fill a new database, and give it its name."""
    name = f"{RESTORING}{os.getpid()}_{uuid.uuid4().hex[:8]}"
    with _dropped_unless_done(planned.request, name):
        with phases.phase("create"):
            session.execute(_creation(planned, name))
        with phases.phase("restore"):
            _fill(session, planned, name)
    with phases.phase("name"):
        asked = planned.request.name
        try:
            session.execute(statement("ALTER DATABASE {} CONNECTION LIMIT -1", identifier(name)))
            session.execute(statement("ALTER DATABASE {} RENAME TO {}", identifier(name), identifier(asked)))
        except QueryFailed as error:
            error.hint = f'All of it is in the database "{name}", which ALTER DATABASE ... RENAME TO names {asked}.'
            raise


def _creation(planned: Planned, name: str) -> Any:
    """The statement that creates the database as the one that was dumped was, without anybody's connections."""
    made, major = planned.stored.dump, planned.server.major
    locale = made.locale
    owner = made.owner if planned.request.owners else planned.user
    words, parts = ["LC_COLLATE {} LC_CTYPE {}"], [locale["collate"], locale["ctype"]]
    if locale["provider"] in PROVIDERS:
        _since, provider, parameter = PROVIDERS[locale["provider"]]
        words.append(f"LOCALE_PROVIDER {provider} {parameter} {{}}")
        parts.append(locale["locale"])
    elif major >= PROVIDERS[ICU][0]:
        words.append("LOCALE_PROVIDER libc")
    return statement(
        f"CREATE DATABASE {{}} OWNER {{}} TEMPLATE template0 ENCODING {{}} {' '.join(words)} CONNECTION LIMIT 0",
        *(identifier(name), identifier(owner), made.encoding),
        *parts,
    )


def _fill(session: Session, planned: Planned, name: str) -> None:
    """Run pg_restore. Raises HostFailed and Conflict."""
    request = planned.request
    command = [
        planned.programs.program(clients.RESTORING),
        "--exit-on-error",
        f"--jobs={request.jobs}",
        *([] if request.owners else ["--no-owner", "--no-privileges"]),
        *([] if request.tablespaces else ["--no-tablespaces"]),
        "--no-password",
        f"--dbname={planned.login.words(name)}",
        planned.data,
    ]
    try:
        dumper.run(command, Watch(_look(planned)))
    except HostFailed as error:
        raise HostFailed(f"pg_restore failed: {error.message}", error.hint) from error
    finally:
        # Those of a program that was killed go on until they notice.
        with contextlib.suppress(PgOpsError):
            waits.end(session, planned.login.application_name)


def _look(planned: Planned) -> Callable[[], None]:
    """What is looked at meanwhile: a full disk would stop the server."""
    place, reserve = planned.server.data_directory, source.RESERVE * planned.server.segment_bytes

    def look() -> None:
        if source.room(place) < reserve:
            raise HostFailed(
                f"Less than {reserve // 1_000_000} MB are left on the file system of {place}: the restore was given "
                "up, so that the server can go on.",
                "Make room there.",
            )

    return look


@contextlib.contextmanager
def _dropped_unless_done(request: Request, name: str) -> Iterator[None]:
    """Whatever fails inside, nothing of a new database is left, or it is told how to remove it."""
    try:
        yield
    except BaseException as error:
        drop = statement("DROP DATABASE IF EXISTS {} WITH (FORCE)", identifier(name))
        try:
            with _session(request) as session:  # the one before may be lost
                session.execute(drop)
        except PgOpsError:
            if isinstance(error, PgOpsError):
                left = f'What is left of it can be removed: DROP DATABASE "{name}" WITH (FORCE)'
                error.hint = f"{error.hint} {left}".strip()
        raise


@contextlib.contextmanager
def _told_partial(name: str) -> Iterator[None]:
    """What fails inside tells that a database that was there is partly filled."""
    try:
        yield
    except PgOpsError as error:
        error.hint = f"{error.hint} Database {name} is partly filled: drop it and create it again.".strip()
        raise
