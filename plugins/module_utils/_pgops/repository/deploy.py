# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""WAL archiving: the repository, the program that writes into it, the settings, and the check that WAL arrives."""

from __future__ import annotations

import os
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from .. import secrecy
from ..converge import read_plan_apply
from ..errors import Conflict, HostFailed, InvalidInput
from ..host import commands, files
from ..host.files import EntryChange, group_name
from ..host.identity import as_user, user
from ..instance.layout import Layout
from ..plan import Plan, changes
from ..server import postmaster
from ..server.locking import locked
from ..server.session import Session, connect
from ..server.target import Target
from ..settings import deploy as settings
from ..settings import present
from ..settings.deploy import Request
from ..settings.planning import Desired
from ..settings.present import Current
from . import archiver, generations, pgbackrest
from . import stanza as stanzas
from .generations import Generation, Present, Wanted
from .pgbackrest import Declared

CAPABILITY = "archiving"
NEEDED = "archiving cannot be set up"
FOREIGN = ("archive_command", "archive_library")
FETCH = "restore_command"
NAMES = (
    "archive_mode",
    "archive_command",
    "archive_library",
    "archive_timeout",
    FETCH,
    "wal_level",
    "data_directory",
)
WAIT_FOR_SEGMENT = 60
"""Seconds to wait for a segment while nothing else is archived."""

IDENTITY = """
SELECT s.system_identifier::text AS system_identifier,
       current_setting('server_version_num')::integer / 10000 AS major,
       pg_size_bytes(current_setting('wal_segment_size')) AS segment_bytes
FROM pg_control_system() AS s
"""
LOGIN = """
SELECT split_part(current_setting('unix_socket_directories'), ',', 1) AS socket, current_setting('port') AS port,
       session_user::text AS superuser
"""
ARCHIVER = "SELECT archived_count, failed_count, last_failed_wal FROM pg_stat_archiver"
ARCHIVED = """
SELECT last_archived_wal FROM pg_stat_archiver
WHERE last_archived_time > greatest(coalesce(last_failed_time, '-infinity'), pg_conf_load_time(), to_timestamp(%s))
"""
"""What was archived since the server has its present settings, and the program its present content, in Unix time."""


@dataclass(frozen=True)
class Archive:
    """How WAL gets into a repository: the program, and its arguments. ``timeout`` is in seconds. ``fetch``: standbys
    get their WAL from it where they cannot stream, in place of what they have where that is to be ``replaced``.
    ``stanzas`` is the path of pgBackRest's configuration, and ``engine`` pgBackRest where WAL goes into its stanza:
    then the program only fetches what came before that."""

    program: str
    wanted: Wanted
    compression: str
    timeout: int
    fetch: bool = True
    replace: bool = False
    stanzas: str = ""
    engine: Declared | None = None

    @property
    def command(self) -> str:
        """The value of archive_command. Exit codes above 125, as of a shell, become 1, which counts as a failure."""
        if self.engine:
            return self.engine.pushing
        words = [self.program, "push", self.wanted.path, self.wanted.generation.name, self.compression]
        return shlex.join(words).replace("%", "%%") + ' "%p" || exit 1'

    @property
    def fetching(self) -> str:
        """The value of restore_command, on primaries as well: one that is lost comes back as a standby."""
        words = [self.program, "fetch", self.wanted.path, self.wanted.generation.name]
        fetch = shlex.join(words).replace("%", "%%")
        if self.engine:
            return self.engine.stanza(self.wanted.generation.name).fetching(fetch)
        return f'{fetch} %f "%p"'

    def settings(self, current: Current) -> dict[str, str]:
        """The settings that the server needs; wal_level only if it is too low, and no restore_command in place of
        somebody else's."""
        level = {"wal_level": "replica"} if current.configured("wal_level") == "minimal" else {}
        own = {"archive_mode": "on", "archive_command": self.command, "archive_timeout": str(self.timeout)}
        fetching = {FETCH: self.fetching} if self.fetch and (self.replace or not self.foreign_fetch(current)) else {}
        return {**level, **own, **fetching}

    def foreign_fetch(self, current: Current) -> str:
        """The restore_command of somebody else that is configured; '' for none."""
        value = current.configured(FETCH) or ""
        return "" if ours(value, self.program, self.stanzas) else value


def ours(value: str, program: str, configuration: str) -> bool:
    """Whether a command runs the program that archives, or pgBackRest with a configuration of ours: that of any
    instance, since a clone has its original's. Pure."""
    folder = os.path.dirname(os.path.dirname(configuration))
    return value.startswith(f"{shlex.quote(program)} ") or f"--config={folder}/" in value.replace("%%", "%")


def refuse_foreign(current: Current, program: str, replace: bool, configuration: str = "") -> None:
    """Stop if something else archives already.

    Raises Conflict with what to set.
    """
    for name in FOREIGN:
        value = current.configured(name) or ""
        if value in ("", "(disabled)") or ours(value, program, configuration) or replace:
            continue
        entry = current.entry(name)
        place = f"{entry.file}, line {entry.line}" if entry else "default"
        raise Conflict(
            f"{name} = {secrecy.setting(name, value)} ({place}) already archives WAL.",
            "To replace it, set replace (pgops_archive_replace). The old setting is recorded, and state=absent "
            "restores it. Already archived WAL stays where it is.",
        )


# --- reading


def read(session: Session, params: Mapping[str, Any], layout: Layout) -> Archive:
    """The arguments of pg_ops_archiving, completed for this server.

    Raises Unsupported if the server's files are not on this host.
    """
    server = postmaster.of(session)
    owner = user(server.owner)
    wanted = Wanted(
        path=os.path.normpath(params["repository"]),
        cluster=params["cluster"],
        generation=Generation(**session.rows(IDENTITY)[0]),
        owner=owner.name,
        group=group_name(owner.gid),
        data=server.data_directory,
        mount=params["mount"] or "",
        another_server=params["another_server"],
        standby=session.in_recovery,
    )
    engine = pgbackrest.declared(params, wanted, layout, session.rows(LOGIN)[0])
    return Archive(
        layout.archiver,
        replace(wanted, stanza=engine.note() if engine else b""),
        params["compression"],
        params["timeout"],
        params["fetch"],
        params["replace"],
        layout.pgbackrest,
        engine,
    )


# --- proof


def prove(session: Session, archive: Archive) -> str:
    """Have a segment archived, and compare what arrives with what was sent; its name.

    Raises HostFailed.
    """
    # A segment without a record is not switched.
    session.value("SELECT pg_create_restore_point('pgops.fleet: proof of archiving')")
    name = str(session.value("SELECT pg_walfile_name(pg_switch_wal())"))
    target = archiver.place(archive.wanted.path, archive.wanted.generation.name, name)
    stored = _arrived(session, archive, target)
    server = postmaster.of(session)
    source = os.path.join(server.data_directory, "pg_wal", name)
    if not as_user(server.owner, lambda: not os.path.exists(source) or archiver.same(source, *stored)):
        raise HostFailed(f"{stored[0]} differs from what the server has sent.", "Find out what else writes there.")
    return name


def _stored(archive: Archive, target: str) -> tuple[str, str] | None:
    """Raises HostFailed where it cannot be seen."""
    try:
        found = as_user(generations.uid(archive.wanted), lambda: archiver.stored(target))
    except OSError as error:
        raise files.failure(error, f"{target} cannot be looked for") from error
    return (str(found[0]), str(found[1])) if found else None


def _arrived(session: Session, archive: Archive, target: str) -> tuple[str, str]:
    """The path of a segment in the repository and its compression; waits as long as others arrive before it."""
    progress: Any = None
    deadline = time.monotonic() + WAIT_FOR_SEGMENT
    while True:
        stored = _stored(archive, target)
        if stored is not None:
            return stored
        now = session.rows(ARCHIVER)[0]
        if now["archived_count"] != progress:
            progress, deadline = now["archived_count"], time.monotonic() + WAIT_FOR_SEGMENT
        if time.monotonic() > deadline:
            raise HostFailed(
                f"{os.path.basename(target)} did not arrive in the repository within {WAIT_FOR_SEGMENT} seconds. "
                f"{now['failed_count']} attempts failed, the last one for {now['last_failed_wal']}.",
                "The server's log shows the error of the archiver. pg_wal grows until it is corrected.",
            )
        time.sleep(0.1)


# --- all of it


def converge(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply and prove; what pg_ops_archiving returns."""
    layout = Layout(params["instance"], params["prefix"])
    restart = params["restart"] == "if_required"
    if params["state"] == "absent":
        gone = settings.settled(target, layout, Request(CAPABILITY, Desired({}, restart), absent=True), check_mode)
        return gone.plan.result(**gone.details)
    lacking = _lacking(params)
    if lacking and not check_mode:
        raise lacking
    with locked(target, NEEDED) as session:
        archive = read(session, params, layout)
        current = present.read(session, NAMES, {})
        refuse_foreign(current, archive.program, params["replace"], archive.stanzas)
        if archive.engine and not lacking:
            pgbackrest.check(archive.engine, archive.wanted.generation.name, archive.wanted.owner)
        untried = not check_mode and _untried(session, archive, current)
        if untried:
            _try(archive)
        prepared = read_plan_apply(
            read=lambda: generations.read(archive.wanted),
            plan=lambda found: _prepared(archive, found, current),
            apply=lambda found, planned: _prepare(archive, found, planned),
            check_mode=check_mode,
        )
        if untried:
            _try(archive, *_whole(archive))
    values = archive.settings(current)
    if params["replace"] and current.configured("archive_library"):
        values["archive_library"] = ""
    request = Request(CAPABILITY, Desired(values if params["configure"] else {}, restart))
    done = settings.settled(target, layout, request, check_mode)
    proof = {"proven": None, "segment": None} if check_mode else _proof(target, archive)
    planned = (prepared.plan + done.plan).warned([f"{lacking} A run would fail."] if lacking else [])
    return planned.result(**done.details, settings=values, **proof)


def _lacking(params: Mapping[str, Any]) -> InvalidInput | None:
    """The error of a host that has no program for the compression: in check mode, the package may come with the run
    that is being predicted.

    Raises InvalidInput.
    """
    if params["timeout"] < 0:
        raise InvalidInput("timeout must be 0 (never) or a number of seconds.")
    if params.get("engine") == pgbackrest.ENGINE:
        return None if shutil.which(stanzas.PROGRAM) else pgbackrest.missing()
    tool = params["compression"]
    if tool in archiver.COMPRESS and shutil.which(tool) is None:
        return InvalidInput(
            f"compression is {tool}, but this host has no {tool}.",
            f"Install the package {tool}, or use gzip (pgops_archive_compression).",
        )
    return None


def _prepared(archive: Archive, repository: Present, current: Current) -> Plan[EntryChange]:
    planned = generations.plan(archive.wanted, repository)
    if archive.engine:
        entry = archive.engine.entry(archive.wanted.group)
        planned = (*files.plan([entry], {entry.path: files.read(entry.path)}), *planned)
    unseen: tuple[str, ...] = ()
    set_up = (current.configured("archive_command") or "") == archive.command
    if archive.wanted.standby and set_up and archive.wanted.generation.name not in repository.generations:
        words = (
            f"This standby finds nothing of its cluster in {archive.wanted.path}. Unless the primary is not set up "
            "yet, the two use different file systems, and after a failover this node could not archive."
        )
        unseen = (words,)
    return changes(planned, warnings=unseen + _kept_fetch(archive, current) + _switched(archive, current))


def _switched(archive: Archive, current: Current) -> tuple[str, ...]:
    """The warning of an engine that another follows."""
    value = current.configured("archive_command") or ""
    before = ours(value, archive.program, archive.stanzas)
    if not before or value.split(" ", 1)[0] == archive.command.split(" ", 1)[0]:
        return ()
    place = "into the stanza of pgBackRest" if archive.engine else "into the repository itself"
    stays = "What the other engine has stays, expires as before, and can be restored. Take a full backup."
    return (f"WAL goes {place} from now on. {stays}",)


def _prepare(archive: Archive, found: Present, planned: Plan[EntryChange]) -> None:
    """Make the repository; and where pgBackRest has the WAL, its configuration first, and the stanza before what
    names it."""
    engine, wanted = archive.engine, archive.wanted
    if engine is None:
        generations.apply(wanted, planned.changes)
        return
    own = [change for change in planned.changes if change.path == engine.configuration]
    note = [change for change in planned.changes if os.path.basename(change.path) == stanzas.NAME]
    with pgbackrest.put_back(engine):
        for change in own:
            change.apply()
        generations.apply(wanted, tuple(change for change in planned.changes if change not in own + note))
        if not wanted.standby:
            successor = wanted.another_server or bool(set(found.generations) - {wanted.generation.name})
            pgbackrest.create(engine, wanted, successor)
            generations.apply(wanted, tuple(note))


def _kept_fetch(archive: Archive, current: Current) -> tuple[str, ...]:
    """The warning of a restore_command that stays."""
    foreign = archive.foreign_fetch(current)
    if not archive.fetch or archive.replace or not foreign:
        return ()
    words = (
        f"restore_command = {secrecy.setting(FETCH, foreign)} stays: what a standby cannot stream comes from there, "
        "not from the repository. To replace it, set replace (pgops_archive_replace); to keep it, set fetch "
        "(pgops_archive_fetch) to false."
    )
    return (words,)


def _untried(session: Session, archive: Archive, current: Current) -> bool:
    """Whether the server has not shown yet that it can archive by this command.

    Raises HostFailed if the agent has not installed the program: without it, every segment would fail.
    """
    if not os.path.isfile(archive.program):
        raise HostFailed(
            f"{archive.program}, which archive_command runs, does not exist.",
            "Run pg_ops_agent first, with the repository of this instance.",
        )
    return current.configured("archive_command") != archive.command or _works(session, archive) is None


def _try(archive: Archive, *arguments: str) -> None:
    """Run the program as the server will, before the server's settings name it.

    Raises HostFailed.
    """
    if archive.engine:  # which has been asked by its stanza
        return
    try:
        commands.run([archive.program, "check", *arguments], owner=generations.uid(archive.wanted))
    except HostFailed as error:
        raise HostFailed(
            f"The server could not archive, and its settings were not changed: {error.message}",
            "Run pg_ops_agent first, with the repository of this instance: it registers the data directory. If the "
            "server's user cannot run Python, set pgops_python to one that it can run, such as /usr/bin/python3.",
        ) from error


def _whole(archive: Archive) -> tuple[str, ...]:
    """What a push has to know, as arguments of check; nothing for a standby that does not see its repository."""
    wanted = archive.wanted
    identity = os.path.join(wanted.path, wanted.generation.name, archiver.IDENTITY)
    if wanted.standby and not as_user(generations.uid(wanted), lambda: os.path.isfile(identity)):
        return ()
    return (wanted.path, wanted.generation.name, archive.compression, wanted.data)


def _proof(target: Target, archive: Archive) -> dict[str, Any]:
    """Whether WAL arrives: tried where the server has not shown it since it has these settings and this program."""
    with connect(target) as session:
        running = session.value("SELECT current_setting('archive_mode')") != "off"
        ours = session.value("SELECT current_setting('archive_command')") == archive.command
        if session.in_recovery or not (running and ours):
            return {"proven": None, "segment": None}
        return {"proven": True, "segment": _works(session, archive) or _proven(session, archive)}


def _proven(session: Session, archive: Archive) -> str:
    """Have a segment archived; its name. Raises HostFailed."""
    if archive.engine is None:
        return prove(session, archive)
    pgbackrest.prove(archive.engine, archive.wanted)
    return str(session.value("SELECT last_archived_wal FROM pg_stat_archiver"))


def _works(session: Session, archive: Archive) -> str | None:
    """The last file that was archived, if that shows that archiving works as it is now, else None."""
    status = os.stat(archive.program if archive.engine is None else archive.stanzas)
    last = session.value(ARCHIVED, [max(status.st_mtime, status.st_ctime)])
    if last is None:
        return None
    if archive.engine:
        return str(last) if _in_stanza(archive.engine, archive.wanted, str(last)) else None
    target = archiver.place(archive.wanted.path, archive.wanted.generation.name, last)
    try:
        return str(last) if _stored(archive, target) else None
    except HostFailed:  # what is wrong there is for those to say who look at all of it
        return None


def _in_stanza(engine: Declared, wanted: Wanted, name: str) -> bool:
    """Whether a WAL file is in the stanza; False where it cannot be asked."""
    try:
        stanza = engine.stanza(wanted.generation.name)
        return bool(as_user(generations.uid(wanted), lambda: stanza.stored(name) is not None, stanzas.ASKING))
    except HostFailed:
        return False
