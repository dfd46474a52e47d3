# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Databases are dumped, one after the other: each read again as a restore reads it, on disk, and only then published.
Whatever fails or is killed before leaves nothing that counts as a dump."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from ..errors import Conflict, HostFailed, PgOpsError
from ..host import files
from ..host.commands import Watch
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..repository import backups, dumps
from ..repository.dumps import Dump, Dumped, Stored
from ..server.pins import RESTRICTION
from ..server.session import Session, connect
from . import clients, databases, dump_options, dumper, hooks, record_dumps, source, waits
from .databases import Chosen, Database
from .dump_options import Dumps
from .dumper import Dumper, Login
from .options import options, repository
from .source import Source
from .take import Tell

PATIENCE = 300.0
"""Seconds to wait for another run that takes or expires dumps."""
LOOKING = 2.0
"""Seconds between two looks at the locks that a dump holds and waits for."""
KIND = "dump"
"""What hooks are told that it is."""
APPLICATION = "pgops dump"
"""As what the server's views show a dump, with the number of the process that takes it."""
GUARDED = f"SELECT current_setting('{RESTRICTION}', true) IS NOT NULL"
HERE = """
SELECT pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_insert_lsn()
                       END, '0/0')::bigint AS lsn
"""
STANDBY = (
    "On a standby, replay cancels what it conflicts with: raise max_standby_streaming_delay, or set "
    "hot_standby_feedback."
)


@dataclass(frozen=True)
class Run:
    """Databases to be dumped: of what server, into what place, and by what. ``lock`` is the descriptor that keeps
    other runs out."""

    configuration: Configuration
    declared: Dumps
    session: Session
    source: Source
    dumper: Dumper
    place: str
    lock: int = -1

    @property
    def repository(self) -> str:
        """The cluster's repository."""
        return self.configuration.repository


def dump(configuration: Configuration, asked: Sequence[str] = (), tell: Tell = lambda _known: None) -> dict[str, Any]:
    """Dump the databases that are declared and due, as the server's user, or those that are ``asked`` for by name.

    Returns ``dumped`` (a list, as dumps.told has them), ``fresh`` (names of databases that are not due), ``swept``
    (what killed runs had left), ``warnings`` and ``errors`` (of single databases).

    Raises PgOpsError.
    """
    with _opened(configuration, asked) as run:
        if isinstance(run, str):
            return {"skipped": run, "errors": []}
        dumps.prepared(run.repository, run.source.generation)
        _end_orphans(run.session)
        with dumps.alone(run.place, PATIENCE) as lock:
            swept = _swept(run)
            return {**_dumped(replace(run, lock=lock), asked, tell), "swept": swept}


def foreseen(configuration: Configuration, asked: Sequence[str] = ()) -> dict[str, Any]:
    """What `dump` would do: nothing is written. ``dumped`` are the names of databases.

    Raises PgOpsError.
    """
    with _opened(configuration, asked) as run:
        if isinstance(run, str):
            return {"skipped": run, "errors": []}
        chosen = _chosen(run, asked)
        names = [one.shown for one in chosen.due]
        return {"dumped": names, "fresh": list(chosen.fresh), "warnings": _closed(chosen), "errors": _missing(chosen)}


@contextlib.contextmanager
def _opened(configuration: Configuration, asked: Sequence[str]) -> Iterator[Run | str]:
    """Dumps that can be taken once their lock is held; or why there are none. Raises PgOpsError."""
    declared, where = dump_options.parse(options(configuration).dumps), repository(configuration)
    if not (declared.databases or asked):
        yield f"no database is declared to be dumped ({dump_options.VARIABLE})"
        return
    for hook in (declared.hook_before, declared.hook_after):
        hooks.check(hook)
    with connect(replace(endpoints.backed_up(configuration), application_name="pgops dumping")) as session:
        skipped = source.elsewhere(options(configuration).source, configuration.node, session.in_recovery)
        if skipped:
            yield skipped
            return
        found = source.read(session)
        _check_server(session, found)
        programs = clients.dumping(options(configuration).bin_directory, found.bin_directory, found.major)
        login = Login(
            os.path.dirname(endpoints.administrator(configuration).socket_path),
            configuration.port,
            session.user,
            f"{APPLICATION} {os.getpid()}",
            found.major,
        )
        tools = Dumper(programs, login, declared)
        tools.check()
        yield Run(configuration, declared, session, found, tools, dumps.folder(where, found.generation))


def _check_server(session: Session, found: Source) -> None:
    """Raises Conflict if who dumps a server would run what the owners of tables put in their place."""
    if not session.superuser:
        raise Conflict(
            f"Role {session.user} is no superuser: it may not read all that belongs to a dump.",
            "Set pgops_login_user to a superuser.",
        )
    if not session.value(GUARDED):
        raise Conflict(
            f"PostgreSQL {found.version} lets the owner of a table run statements with the rights of who dumps it "
            "(CVE-2024-7348).",
            "Update the server to its newest minor version.",
        )


def _end_orphans(session: Session) -> None:
    """End the sessions of dumps whose agent was killed: they would go on for hours, and keep others away."""
    for row in session.rows(waits.OURS, [f"{APPLICATION} %"]):
        number = str(row["name"]).rpartition(" ")[2]
        if number.isdigit() and not _alive(int(number)):
            waits.end(session, row["name"])


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except OSError:
        return True
    return True


def _swept(run: Run) -> list[str]:
    """Remove what killed runs have left, and mark it failed; the names."""
    left = [(one, name) for one in _present(run).values() for name in one.unfinished]
    for dumped, name in left:
        backups.discard(os.path.join(dumped.place, name))
    record_dumps.killed(run.configuration, run.source.generation)
    return [name for _dumped, name in left]


def _present(run: Run) -> dict[str, Dumped]:
    """What there is of each database, by its key."""
    return {one.key: one for one in dumps.databases(run.repository, run.source.generation)}


def _chosen(run: Run, asked: Sequence[str]) -> Chosen:
    return databases.choose(
        databases.present(run.session), run.declared, asked, _present(run), datetime.now(timezone.utc)
    )


def _closed(chosen: Chosen) -> list[str]:
    return [f"Database {name} allows no connections, so it is not dumped." for name in chosen.closed]


def _missing(chosen: Chosen) -> list[str]:
    return [f"There is no database {name} to be dumped." for name in chosen.missing]


def _dumped(run: Run, asked: Sequence[str], tell: Tell) -> dict[str, Any]:
    chosen = _chosen(run, asked)
    warnings, errors = _closed(chosen), _missing(chosen)
    done = []
    for one in chosen.due:
        tell({"database": one.shown, "database_bytes": one.bytes})
        try:
            stored, wrong = _one(run, one, warnings)
        except (PgOpsError, OSError) as error:
            if _is(run, one):
                errors.append(f"Database {one.shown} was not dumped: {error}")
            else:
                warnings.append(f"Database {one.shown} was dropped or renamed before it was dumped.")
            continue
        errors += [f"The dump of database {one.shown} is good, but: {why}" for why in wrong]
        done.append(dumps.told(run.repository, run.source.generation, stored))
    return {"dumped": done, "fresh": list(chosen.fresh), "warnings": warnings, "errors": errors}


def _is(run: Run, database: Database) -> bool:
    """Whether a database still has its name; also where that cannot be found out."""
    try:
        return any((one.oid, one.key) == (database.oid, database.key) for one in databases.present(run.session))
    except PgOpsError:
        return True


def _one(run: Run, database: Database, warnings: list[str]) -> tuple[Stored, list[str]]:
    """Dump a database; the dump, and what the hook after it says is wrong.

    Raises PgOpsError and OSError; then nothing of it is left.
    """
    run = replace(run, source=source.read(run.session))  # a standby may have been promoted since the last one
    place = dumps.prepared(run.repository, run.source.generation, database.key)
    identifier, began = str(uuid.uuid4()), datetime.now(timezone.utc)
    name = f"{began:%Y%m%dT%H%M%SZ}-{identifier[:8]}"
    started = record_dumps.Started(identifier, database.key, run.source.generation, name)
    warnings += record_dumps.started(run.configuration, started)
    try:
        # Whatever keeps it from being taken from here on, none of the database's expire until one is.
        backups.attempt(place, name)
        expected = _expected(run, dumps.listed(place))
        source.check_room(run.repository, expected, source.RESERVE * run.source.segment_bytes)
        about = (run.configuration.cluster, KIND)
        hooks.run(run.declared.hook_before, "before", *about, database.argument)
        result, errors = "failed", list[str]()
        try:
            with backups.begun(place, name) as path:
                made = _made(run, database, identifier, began, path)
                files.sync_tree(path)
                backups.publish(path, made, settled=not run.declared.hook_after)
            result = "completed"
        finally:
            directory = os.path.join(place, name)
            errors += hooks.after(run.declared.hook_after, *about, result, directory, database.argument)
        if not errors:
            backups.settle(place)
    except (PgOpsError, OSError) as error:
        record_dumps.failed(run.configuration, identifier, str(error))
        raise
    stored = Stored(name, made)
    warnings += record_dumps.finished(run.configuration, run.source.generation, stored)
    return stored, errors


def _expected(run: Run, dumped: Dumped) -> int:
    """The bytes that a dump will have, by the newest one of the same compression; 0 without one."""
    like = [one.dump.stored_bytes for one in dumped.dumps if one.dump.compression == run.declared.compression]
    return like[-1] if like else 0


def _made(run: Run, database: Database, identifier: str, began: datetime, path: str) -> Dump:
    """The manifest of a dump that has been written into a directory, and read again."""
    watch = Watch(_look(run), (run.lock,))
    place = run.session.rows(HERE)[0]
    try:
        run.dumper.dump(database.argument, database.encoding, path, watch)
        run.dumper.dump_globals(run.session.database, _encoding(run), path, watch)
        entries = run.dumper.entries(path, watch)
    except HostFailed as error:
        raise HostFailed(error.message, STANDBY if run.source.in_recovery else error.hint) from error
    finally:
        with contextlib.suppress(PgOpsError):
            waits.end(run.session, run.dumper.login.application_name)
    if not _is(run, database):
        raise Conflict(f"Another database was given the name {database.shown} while it was dumped.", "Repeat it.")
    checksum = dumper.seal(path)
    return Dump(
        id=identifier,
        database=database.key,
        oid=database.oid,
        encoding=database.encoding,
        owner=database.owner,
        locale=database.locale,
        cluster=run.configuration.cluster,
        node=run.configuration.node,
        system_identifier=run.source.system_identifier,
        server_version=run.source.version,
        versions=run.dumper.versions(),
        timeline=run.source.timeline,
        snapshot_lsn=place["lsn"],
        started_at=began,
        completed_at=datetime.now(timezone.utc),
        compression=run.declared.compression,
        stored_bytes=dumper.size(path),
        data_bytes=database.bytes,
        entries=entries,
        checksum=checksum,
        from_standby=run.source.in_recovery,
    )


def _encoding(run: Run) -> str:
    return str(run.session.value("SELECT current_setting('server_encoding')"))


def _look(run: Run) -> Callable[[], None]:
    """What is looked at while a database is dumped: room in the repository, and who waits for whom."""
    looked = time.monotonic()

    def look() -> None:
        nonlocal looked
        reserve = source.RESERVE * run.source.segment_bytes
        if source.room(run.place) < reserve:
            raise HostFailed(
                f"Less than {reserve // 1_000_000} MB are left on the file system of {run.place}: the dump was given "
                "up, so that archiving can go on.",
                "Make room, keep dumps for fewer days, or compress them (pgops_backup_dumps).",
            )
        if time.monotonic() > looked + LOOKING:
            looked = time.monotonic()
            waits.check(run.session, run.dumper.login.application_name, run.declared)

    return look
