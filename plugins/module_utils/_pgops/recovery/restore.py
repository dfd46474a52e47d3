# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A data directory restored from a repository, and recovered to a target. All as the server's user.

A restore needs the repository and the server's programs, and nothing else: not the ops database, not the agent's
configuration. All that can refuse refuses before a byte is written.
"""

from __future__ import annotations

import contextlib
import os
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

from ..backup import clients, environment
from ..errors import Conflict, HostFailed, InvalidInput, PgOpsError, ToolMissing
from ..host import commands, files
from ..repository import archiver, backups, chains, inventory, restores, wal
from ..repository import stanza as stanzas
from ..repository.inventory import Inventory
from ..repository.restores import Done, Speed
from ..repository.stanza import LAYOUT, Stanza
from ..server import majors
from . import (
    ahead,
    choice,
    commits,
    configuring,
    copying,
    pgbackrest,
    replay,
    resources,
    soundness,
    targets,
)
from . import line as lines
from .ahead import Ahead
from .choice import Choice
from .configuring import Served
from .place import Place, check_space, mapped
from .replay import Reached, Runner
from .targets import Target

PYTHONS = (sys.executable, "/usr/bin/python3")
LONGEST_SOCKET = 107
"""Bytes of a socket's path, unix(7)."""
ARCHIVING = 30.0
"""Seconds that the archiver may take for the history file of the new timeline."""


@dataclass(frozen=True)
class Restore:
    """What is restored, where to, and to which moment.

    ``generation`` '' is the repository's only one. ``bin_directory`` has the programs of the server's version, such
    as pg_waldump, '' for where packages have them; ``server_directory`` those that run the server, '' for the same.
    ``tablespace_map`` maps directories of the original's tablespaces to others. ``in_place``: the directory is the
    original's own, whose data is moved aside; ``configuration`` is then its main configuration file, '' for one in
    the data directory. ``port`` 0: a copy can only be reached by a socket in its data directory.
    ``preload`` are the libraries of a copy, None for its original's that do nothing by themselves; ``shared_buffers``
    its memory, '' for as much as its original's if there is as much.
    ``search_directory`` is where WAL is unpacked to look into it, '' for beside the data directory; a search is given
    up after ``search_seconds``, 0 for never. ``backup`` is the name of the one to start from, '' for the best. With
    ``scratch``, a directory, the server is one of a drill: it is alone with itself, and tablespaces that are not
    mapped get directories there.
    """

    repository: str
    generation: str
    directory: str
    target: Target
    end: str = targets.PROMOTE
    in_place: bool = False
    tablespace_map: Mapping[str, str] = field(default_factory=dict)
    bin_directory: str = ""
    server_directory: str = ""
    port: int = 0
    superuser: str = ""
    configuration: str = ""
    search_directory: str = ""
    search_seconds: float = 0.0
    preload: tuple[str, ...] | None = None
    shared_buffers: str = ""
    backup: str = ""
    scratch: str = ""


@dataclass(frozen=True)
class Planned:
    """What a restore will do. ``tools`` and ``programs`` are directories; ``space`` needs and free bytes by
    directory, ``served`` the server that comes out of it, ``speeds`` what the restores of the past have shown."""

    request: Restore
    generation: str
    choice: Choice
    place: Place
    tools: str
    programs: str
    python: str
    space: Mapping[str, Any]
    served: Served
    speeds: Mapping[str, Speed] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    stanza: Stanza | None = None

    @property
    def configuration(self) -> str:
        """The main configuration file, '' for the one in the data directory."""
        return _configuration(self.request, self.choice)

    @property
    def backups(self) -> str:
        """The directory of the backups."""
        return backups.folder(self.request.repository, self.generation)

    @property
    def segments(self) -> tuple[str, ...]:
        """The WAL that is replayed, at most: its first and last segments' names."""
        reach = self.choice.reach
        return tuple(reach.line.name(number) for number in (reach.first, self.choice.last))

    def told(self) -> dict[str, Any]:
        """The plan as data."""
        reach, newest = self.choice.reach, self.choice.newest
        last = reach.kept
        return {
            "backup": {
                "name": last.name,
                "id": last.manifest.id,
                "kind": last.manifest.kind,
                "completed_at": last.manifest.completed_at.isoformat(),
                "stop_lsn": wal.lsn(last.manifest.stop_lsn),
                "chain": [kept.name for kept in self.choice.chain],
            },
            "generation": self.generation,
            "timeline": reach.line.timeline,
            "target": str(self.request.target),
            "end": self.request.end,
            "directory": self.place.data,
            "tablespaces": {str(oid): path for oid, path in self.place.spaces.items()},
            "first_segment": self.segments[0],
            "last_segment": self.segments[1],
            "last_commit": targets.written(newest.time) if newest and newest.time else None,
            "space": dict(self.space),
            "predicted": self.predicted,
        }

    @property
    def replayed(self) -> int:
        """How many segments are replayed, at most."""
        return self.choice.last - self.choice.reach.first + 1

    @property
    def predicted(self) -> dict[str, Any]:
        """The seconds that it will take, with its parts."""
        return restores.forecast(self.choice.chain, self.replayed, self.speeds).told()


# --- the plan


def plan(request: Restore, say: Callable[[str], None] = lambda _text: None) -> Planned:
    """Find out how to restore, and all that forbids it; nothing is written but to a scratch directory. ``say`` gets
    how a search in the WAL goes.

    Raises what forbids it, with what would work instead.
    """
    targets.check_end(request.target, request.end)
    generation = request.generation or only_generation(request.repository)
    found = _from(inventory.read(request.repository, generation), request.backup)
    major = int(generation.rpartition("-")[2])
    majors.check(major)
    tools = _programs(request.bin_directory, major, "pg_waldump")
    programs = _programs(request.server_directory or request.bin_directory, major, "postgres")
    stanza = stanzas.of(request.repository, generation)
    chosen = choice.choose(found, request.target, _readers(request, generation, tools, say))
    soundness.check_programs(chosen)
    soundness.check(request.repository, generation, chosen, stanza, _scratch(request))
    folder = backups.folder(request.repository, generation)
    if chosen.chain[-1].manifest.layout != LAYOUT:
        copying.check_tools(tools, chosen.chain)
        for kept in chosen.chain:
            copying.check_manifest(os.path.join(folder, kept.name), kept)
    last = chosen.chain[-1].manifest
    spaces = mapped([(one.oid, one.path) for one in last.tablespaces], request.tablespace_map, request.scratch)
    place = Place(os.path.normpath(request.directory), spaces, request.in_place)
    warnings = [*chosen.warnings, *place.check(found.generation.partition("-")[0])]
    warnings += environment.differences(last.environment)
    _check_server(request, place, chosen)
    served, reduced = _served(request, place, chosen, programs)
    space = check_space(_needs(folder, chosen, place, found))
    speeds, told = restores.known(request.repository, generation), (*warnings, *reduced)
    python = _python()
    return Planned(request, generation, chosen, place, tools, programs, python, space, served, speeds, told, stanza)


def _from(found: Inventory, name: str) -> Inventory:
    """The same with only one backup and those below it, if it is named. Raises InvalidInput."""
    if not name:
        return found
    by_id = found.listing.by_id()
    chosen = next((kept for kept in by_id.values() if kept.name == name), None)
    why = found.listing.damaged.get(name, "it is not there")
    line: Sequence[backups.Kept] = (chains.chain(chosen, by_id) or (chosen,)) if chosen else ()
    if not line:
        raise InvalidInput(f"Backup {name} cannot be restored: {why}.", "`pgops verify` tells more of it.")
    return replace(found, listing=replace(found.listing, backups=tuple(line)))


def _served(request: Restore, place: Place, chosen: Choice, programs: str) -> tuple[Served, list[str]]:
    """The server that comes out of it, and warnings. Raises InvalidInput where it would not start for lack of a
    library."""
    last = chosen.chain[-1].manifest
    environment = last.environment
    if request.in_place:
        if request.preload is not None or request.shared_buffers:
            raise InvalidInput(
                "A server that is restored in place keeps its settings.", "Restore to another directory."
            )
        resources.check_libraries(environment.get("preloaded", ()), environment, programs, "")
        return Served(place.data, copy=False), []
    libraries = resources.preloaded(environment, request.preload)
    hint = ", or name the others with preload"
    resources.check_libraries(libraries or (), environment, programs, hint)
    left = [name for name in environment.get("preloaded", ()) if libraries is not None and name not in libraries]
    size, reduced = resources.shared_buffers(environment, request.shared_buffers)
    if request.scratch:
        return Served(place.data, True, 0, libraries or (), size, alone=True), []
    warnings = [f"The copy does not preload {', '.join(left)}."] if left and request.preload is None else []
    served = Served(place.data, True, request.port, libraries, size)
    return served, [*warnings, *filter(None, [reduced])]


def owner(repository: str) -> int:
    """The uid of the user whose repository it is. The directory itself says it, and nothing inside: who owns that
    could put a link there to what is another user's, as whom root would then work.

    Raises HostFailed.
    """
    try:
        found = os.lstat(repository)
    except OSError as error:
        raise files.failure(error, f"{repository} cannot be read") from error
    if not stat.S_ISDIR(found.st_mode):
        raise HostFailed(f"{repository} is no directory.", "Name the directory itself; links are not followed.")
    return found.st_uid


def only_generation(repository: str) -> str:
    """The only generation of a repository. Raises HostFailed and InvalidInput."""
    try:
        names = sorted(os.listdir(repository))
    except OSError as error:
        raise files.failure(error, f"{repository} cannot be read") from error
    found = [name for name in names if os.path.isfile(os.path.join(repository, name, archiver.IDENTITY))]
    if not found:
        raise HostFailed(f"{repository} has no generation.", "Is its file system mounted?")
    if len(found) > 1:
        raise InvalidInput(f"{repository} has the generations {', '.join(found)}.", "Choose one.")
    return found[0]


def _programs(asked: str, major: int, needed: str) -> str:
    """The directory of a program, which has to be of a major version. Raises ToolMissing and HostFailed."""
    places = [asked] if asked else [place.format(major=major) for place in clients.PLACES]
    for place in places:
        program = os.path.join(place, needed)
        if os.access(program, os.X_OK):
            if clients.major_of(program) != major:
                raise ToolMissing(
                    f"{program} is PostgreSQL {clients.version(program)}, and the backups are of PostgreSQL {major}.",
                    "Set bin_directory to the programs of that version.",
                )
            return place
    raise ToolMissing(
        f"There is no {needed} of PostgreSQL {major} in {' or '.join(places)}.",
        f"Install PostgreSQL {major}, or set bin_directory to its programs.",
    )


def _readers(request: Restore, generation: str, tools: str, say: Callable[[str], None]) -> choice.Readers:
    folder = _scratch(request)

    def reader(line: lines.Line) -> AbstractContextManager[commits.Reader]:
        return commits.reading(request.repository, generation, tools, line, folder, request.search_seconds, say)

    return reader


def _scratch(request: Restore) -> str:
    """The directory in which WAL is unpacked to look into it."""
    return request.search_directory or Place(os.path.normpath(request.directory), in_place=request.in_place).beside()


def _python() -> str:
    """A Python that the server's user can run. Raises HostFailed."""
    for python in dict.fromkeys(PYTHONS):
        with contextlib.suppress(HostFailed):
            commands.run([python, "-IS", "-c", ""])
            return python
    raise HostFailed(f"User {files.user_name(os.geteuid())} can run no Python.", "Install python3.")


def _check_server(request: Restore, place: Place, chosen: Choice) -> None:
    """Raises Conflict and InvalidInput where the server could not be started in its place."""
    socket = os.path.join(place.data, f".s.PGSQL.{request.port or configuring.PORT}")
    if len(socket.encode()) > LONGEST_SOCKET:
        raise Conflict(f"The path of the socket {socket} is too long.", "Choose a directory with a shorter path.")
    if request.in_place and request.port:
        raise InvalidInput("A server that is restored in place keeps its port.", "Leave port out.")
    configuration = _configuration(request, chosen)
    if configuration and not os.access(configuration, os.R_OK):
        raise InvalidInput(
            f"{configuration}, the configuration of {place.data}, cannot be read.",
            "Put it back, or name another one by configuration.",
        )


def _recorded(chosen: Choice) -> list[Mapping[str, Any]]:
    """The configuration files from outside of the data directory that a backup has."""
    return list(chosen.chain[-1].manifest.environment.get("configuration", ()))


def _configuration(request: Restore, chosen: Choice) -> str:
    """The main configuration file of a server that is restored in place, '' where that is in the data directory."""
    if not request.in_place or request.configuration:
        return request.configuration if request.in_place else ""
    return next((str(one["path"]) for one in _recorded(chosen) if one["name"] == "config_file"), "")


def _needs(folder: str, chosen: Choice, place: Place, found: Inventory) -> dict[str, int]:
    """The bytes that each directory will take, with the WAL that is there at a time."""
    last = chosen.chain[-1]
    spool = min(ahead.MOST_SEGMENTS, max(4, ahead.MOST_BYTES // found.segment_bytes)) * found.segment_bytes
    path = os.path.join(folder, last.name, backups.TABLESPACES)
    spaces: dict[str, int] = {}
    if last.manifest.layout == "plain" and len(chosen.chain) == 1:
        spaces = {where: copying.size_of(os.path.join(path, str(oid))) for oid, where in place.spaces.items()}
    whole = last.manifest.data_bytes - sum(spaces.values())
    if len(chosen.chain) > 1:
        # What is unpacked before it is combined.
        whole += sum(kept.manifest.data_bytes for kept in chosen.chain if kept.manifest.layout == "tar")
    return {place.data: whole + spool, **spaces}


# --- the restore


class Phases:
    """The phases of a restore with their seconds; an error names the one in which it came."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self.done: list[tuple[str, float]] = []
        self.say = say

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self.say(name)
        began = time.monotonic()
        try:
            yield
        except PgOpsError as error:
            error.message = f"The restore failed in phase {name}: {error.message}"
            raise
        except OSError as error:
            failed = files.failure(error, f"{error.filename or 'A file'} cannot be used")
            failed.message = f"The restore failed in phase {name}: {failed.message}"
            raise failed from error
        self.done.append((name, time.monotonic() - began))


def restore(request: Restore, say: Callable[[str], None] = lambda _text: None) -> dict[str, Any]:
    """Restore, recover, compare what was reached with the target, and let become of the server what is asked.

    Returns the plan's data with ``reached`` (lsn, time, timeline), ``phases``, ``warnings``, ``moved`` (old
    directories and where they are now), ``socket_directory`` and ``port`` of a server that is left running, which are
    None in place after a promotion: the server is stopped then, to be started in its usual way.

    Raises PgOpsError; in place, the old data is put back.
    """
    phases = Phases(say)
    with phases.phase("plan"):
        planned = plan(request, say)
    names = [kept.name for kept in planned.choice.chain]
    runner = Runner(
        planned.served,
        planned.programs,
        replay.superusers(request.superuser),
        planned.configuration,
        say,
    )
    with backups.reading(planned.backups, names), planned.place.begun(runner.stop) as state:
        lost, former = fill(planned, phases)
        if request.in_place and request.target.kind == targets.LATEST:
            with phases.phase("unarchived"):
                lost += _unarchived_wal(planned, state["moved"].get(planned.place.data, ""))
        result = _recover(planned, runner, phases, former, state)
        planned.place.done()
    remember(planned, phases.done)
    said = {**planned.told(), **result, "moved": state["moved"], "phases": replay.told(phases.done)}
    return {**said, "warnings": [*planned.warnings, *lost, *result["warnings"]]}


def remember(planned: Planned, phases: Iterable[tuple[str, float]]) -> None:
    """Note how long it took, for the forecasts of others."""
    size = restores.size(planned.choice.chain, planned.replayed)
    done = Done(os.uname().nodename, size.data, size.wal, size.combined, dict(phases))
    restores.note(planned.request.repository, planned.generation, done)


def fill(planned: Planned, phases: Phases) -> tuple[list[str], str | None]:
    """Make the files of the data directory and the tablespaces, inside `Place.begun`; warnings, and the
    restore_command that a server in place is to have again.

    Raises PgOpsError.
    """
    lost: list[str] = []
    chain, data, spaces = planned.choice.chain, planned.place.data, planned.place.spaces
    _copy(planned, phases)
    with phases.phase("configure"):
        copying.remap(data, spaces)
        served = planned.served
        if served.copy:
            backup = os.path.join(planned.backups, chain[-1].name)
            lost = configuring.adopt(backup, _recorded(planned.choice), served)
        ahead.prepare(data)
        others = (f"--pg1-path={data}", *pgbackrest.own(os.path.join(data, ahead.FOLDER)))
        fetch = (planned.request.repository, planned.generation, planned.python)
        command = ahead.restore_command(*fetch, planned.stanza, others)
        reach = planned.choice.reach
        own = reach.kept.manifest.timeline == reach.line.timeline
        settings = planned.request.target.settings(reach.line.timeline, own)
        former = configuring.write(served, {configuring.FETCH: command, **settings})
    with phases.phase("sync"):
        for path in planned.place.every:
            files.sync_tree(path)
            files.sync(os.path.dirname(path))
    return [f"{path} of the original is in the backup, and has no place in the copy." for path in lost], former


def _copy(planned: Planned, phases: Phases) -> None:
    """Put the files of the backup into place, each compared with its checksum. Raises HostFailed."""
    chain, data, spaces = planned.choice.chain, planned.place.data, planned.place.spaces
    if planned.stanza and chain[-1].manifest.layout == LAYOUT:
        with phases.phase("copy"):
            pgbackrest.put(planned.stanza, chain[-1], data, spaces)
        return
    with phases.phase("combine" if len(chain) > 1 else "copy"):
        if len(chain) > 1:
            copying.combine(planned.backups, chain, data, spaces, planned.tools)
        else:
            copying.put(planned.backups, chain[0], data, spaces)
    # What is read is in memory still, so that the disk is free.
    with phases.phase("verify"), ThreadPoolExecutor(1) as pool:
        flushing = [pool.submit(files.sync_tree, path) for path in planned.place.every]
        copying.verify(data, planned.tools)
        for one in flushing:
            one.result()


def _unarchived_wal(planned: Planned, old: str) -> list[str]:
    """Put WAL that the old server has not archived where the new one finds it: what follows that of the repository
    without a gap. Raises HostFailed."""
    line, number = planned.choice.reach.line, planned.choice.reach.last + 1
    found = []
    while True:
        name = line.name(number)
        path = os.path.join(old, "pg_wal", name)
        try:
            # What the server keeps for later has the name of a later segment, and the content of an older one.
            archiver.check_segment(path, name, planned.generation)
            content = files.contents(path, 1 << 31)
            files.apply([files.File(os.path.join(planned.place.data, "pg_wal", name), content, 0o600)])
        except (FileNotFoundError, archiver.Failure):
            break
        except OSError as error:
            raise files.failure(error, f"{path}, which was not archived, cannot be read") from error
        found.append(name)
        number += 1
    return [f"WAL that was not archived was taken from {old}: {', '.join(found)}."] if found else []


def _recover(
    planned: Planned, runner: Runner, phases: Phases, former: str | None, state: dict[str, Any]
) -> dict[str, Any]:
    """Start the server, and let become of it what is asked."""
    request, reach = planned.request, planned.choice.reach
    reached, fetched = replayed(planned, runner, phases, state)
    if reached.promoted and request.end != targets.PROMOTE and request.target.kind != targets.LATEST:
        raise runner.failed(
            "The server reached its target, but could not wait there: a transaction with many subtransactions was "
            "open since before the backup. It has been promoted; choose the end promote"
        )
    timeline, warnings = reach.line.timeline, list(runner.collation_warnings())
    if request.end == targets.PROMOTE:
        with phases.phase("promote"):
            timeline = runner.promote()
            warnings += _unarchived(planned, timeline)
        with phases.phase("restart"):
            _restart(planned, runner, former)
    elif request.end == targets.SHUTDOWN:
        with phases.phase("stop"):
            runner.stop()
    running = request.end == targets.PAUSED or (request.end == targets.PROMOTE and not request.in_place)
    return {
        "reached": {
            "lsn": wal.lsn(reached.lsn),
            "time": targets.written(reached.time) if reached.time else None,
            "timeline": timeline,
        },
        "warnings": warnings,
        "fetched_ahead": fetched,
        "socket_directory": planned.place.data if running else None,
        "port": ((request.port if request.end == targets.PROMOTE else 0) or configuring.PORT) if running else None,
    }


def replayed(planned: Planned, runner: Runner, phases: Phases, state: dict[str, Any]) -> tuple[Reached, int]:
    """Start the server of a filled directory, and wait until it is at its target; what it has reached, and how many
    segments were fetched ahead.

    Raises PgOpsError.
    """
    request, reach = planned.request, planned.choice.reach
    segments = (reach.line, reach.first, reach.last)
    fetching = Ahead(request.repository, planned.generation, *segments, planned.place.data, planned.stanza)
    with phases.phase("recover"), fetching:
        planned.place.recovering(state)
        runner.start(recovering=True)
        reached = runner.reach(request.target, planned.choice)
    return reached, fetching.fetched


def _restart(planned: Planned, runner: Runner, former: str | None) -> None:
    """Have the server run with its own settings and rules, and not with those of its recovery."""
    runner.stop()
    configuring.settle(planned.served, former)
    ahead.discard(planned.place.data)
    # pg_ctl would start it with the options of its recovery.
    files.discard(os.path.join(planned.place.data, "postmaster.opts"))
    if planned.served.copy:
        runner.start(recovering=False)
        runner.wait()


def _unarchived(planned: Planned, timeline: int) -> list[str]:
    """A warning if the history file of a new timeline does not arrive in the repository, without which the WAL after
    it cannot be restored. A copy archives nothing."""
    if planned.served.copy:
        return []
    name = f"{timeline:08X}.history"
    path = archiver.place(planned.request.repository, planned.generation, name)
    until = time.monotonic() + ARCHIVING
    while archiver.stored(path) is None and not (planned.stanza and planned.stanza.anew().stored(name)):
        if time.monotonic() > until:
            return [f"{name} has not arrived in {planned.request.repository}: see whether the server archives."]
        time.sleep(replay.LONGEST_PAUSE)
    return []
