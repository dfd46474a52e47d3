# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recovery drills: a backup is restored to a directory of its own, started, asked, measured, and removed. As the
server's user.

A drill that passed is proof that the cluster can be recovered. One that could not be made proves nothing, and says
why. Whatever becomes of it, nothing stays behind: what a killed one has left, the next one removes and records.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta, timezone
from types import FrameType
from typing import Any, NoReturn

from ..backup import record
from ..backup.options import options as backup_options
from ..errors import Busy, HostFailed, InvalidInput, PgOpsError
from ..host import files, identity
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..repository import archiver, backups, drills
from ..repository.drills import FAILED, KILLED, NOT_RUN, PASSED, Drill
from ..server import discovery
from ..server.session import connect
from . import drill_place, isolation, rehearsal, supervised
from .drill_options import PRIMARY, Options, options
from .isolation import Production
from .place import free_bytes
from .rehearsal import MB, NotIsolated, Order

LOCK = "drill-runs.lock"
UNABLE = {"ToolMissing": "programs", "Lacking": "programs", "TooLittleSpace": "disk_space", "Busy": "busy"}
"""By the kinds of errors that say nothing of the backup, the reason of a drill that was not made."""
FULL = "No space left on device"
"""What programs say of a full disk."""
EARLY = 8
"""A drill is due one in so many parts of its interval earlier: the timer comes at the same time of the day."""


class Impossible(HostFailed):
    """The drill cannot be made, for a ``reason`` in a word."""

    def __init__(self, reason: str, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.reason = reason


class Terminated(BaseException):
    """The process was told to end."""


@dataclass
class Heard:
    """What the rehearsal has told so far."""

    phase: str = ""
    backup: str = ""
    backup_name: str = ""
    phases: Mapping[str, float] = field(default_factory=dict)
    reached: Mapping[str, Any] = field(default_factory=dict)
    checks: list[Mapping[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    error: str = ""
    kind: str = ""
    rto: float | None = None

    def hear(self, message: Mapping[str, Any]) -> None:
        """Take a message of `rehearsal.rehearse`."""
        for name, value in message.items():
            if name == "check":
                self.checks.append(value)
            else:
                setattr(self, name, value)
        if "reached" in message:
            # The checks come after it: they are no part of a recovery.
            self.rto = sum(self.phases.values())


# --- whether


def elsewhere(declared: Options, node: str, in_recovery: bool) -> str:
    """Why this node of a cluster is not the one that has drills; '' if it is. Pure."""
    if declared.node == PRIMARY:
        return "standby: the primary has drills (pgops_drill_node)" if in_recovery else ""
    return "" if declared.node == node else f"{declared.node} has drills, and this is {node} (pgops_drill_node)"


def due(known: Sequence[Drill], interval_hours: float, now: datetime) -> bool:
    """Whether the last proof is so old that another is to be had. Pure."""
    passed = [one.started_at for one in known if one.status == PASSED]
    return not passed or now - max(passed) >= timedelta(hours=interval_hours * (1 - 1 / EARLY))


# --- a drill


def drill(configuration: Configuration, layout: Layout, backup: str = "", scheduled: bool = False) -> dict[str, Any]:
    """Make a drill with the newest backup, or that of a name; what came of it, also where it did not pass. On
    schedule it is made where one is due.

    Raises Busy where another one goes on, once that is recorded, InvalidInput, and HostFailed as root.
    """
    identity.user(os.geteuid())
    declared = options(configuration)
    if not configuration.repository:
        raise InvalidInput("This instance has no repository.", "Set pgops_repository and run site.yml.")
    now = datetime.now(timezone.utc)
    made = Drill(str(uuid.uuid4()), configuration.node, os.uname().nodename, now, repository=configuration.repository)
    made = replace(made, place=drill_place.place(declared.directory, layout))
    try:
        with files.exclusive(os.path.join(layout.keeping, LOCK), 0):
            warnings = _sweep(made.place, layout, now)
            try:
                production = _production(configuration)
                skipped = elsewhere(declared, configuration.node, production.in_recovery)
                known = [*drills.read(layout.keeping).over, *drills.read(_generation(configuration, production)).over]
                if scheduled and not skipped and not due(known, declared.interval_hours, now):
                    skipped = f"not due: one has passed within {declared.interval_hours:g} hours"
                if skipped:
                    return {"skipped": skipped, "warnings": warnings, "errors": []}
                made = replace(made, generation=production.generation)
                drills.begin(layout.keeping, made)
                made, more = _held(_Run(configuration, declared, production, backup), made)
                warnings += more
            except Impossible as error:
                made = made.ended(NOT_RUN, error.reason, str(error), _now())
            return _outcome(made, [*warnings, *recorded(configuration, layout, made)])
    except Busy as error:
        made = made.ended(NOT_RUN, "busy", f"Another drill of this instance goes on. {error}", _now())
        recorded(configuration, layout, made)
        raise


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _generation(configuration: Configuration, production: Production) -> str:
    return os.path.join(configuration.repository, production.generation)


def _outcome(made: Drill, warnings: Sequence[str]) -> dict[str, Any]:
    """A drill as the job tells it."""
    told = {"failed": f"The drill failed ({made.reason}): ", "not_run": f"No drill was made ({made.reason}): "}
    return {
        "drill": made.id,
        "status": made.status,
        "reason": made.reason,
        "backup": made.backup_name,
        "phases": {name: round(seconds, 3) for name, seconds in made.phases.items()},
        "rto_seconds": made.rto,
        "rpo_seconds": made.rpo,
        "checks": [dict(one) for one in made.checks],
        "warnings": list(warnings),
        "errors": [told[made.status] + made.message] if made.status in told else [],
    }


def _sweep(place: str, layout: Layout, now: datetime) -> list[str]:
    """Remove what killed drills have left, and note them; inside the lock. Raises HostFailed."""
    for scratch in drill_place.left(place):
        drill_place.remove(scratch)
    running = drills.read(layout.keeping).running
    if running is None:
        return []
    # It may have been elsewhere, before the configuration was changed.
    for scratch in drill_place.left(running.place) if running.place != place else ():
        drill_place.remove(scratch)
    drills.add(layout.keeping, [running.ended(FAILED, KILLED, drills.DIED, now)])
    return [f"The drill of {running.started_at.isoformat()} had been killed; what it has left was removed."]


def _production(configuration: Configuration) -> Production:
    """What production is now. Raises Impossible."""
    try:
        with connect(endpoints.backed_up(configuration)) as session:
            return isolation.seen(session)
    except PgOpsError as error:
        raise Impossible("server", f"The server cannot be asked what must not be touched: {error}") from error


@dataclass(frozen=True)
class _Run:
    """One drill: of the newest backup, or that of a name."""

    configuration: Configuration
    declared: Options
    production: Production
    backup: str

    @property
    def others(self) -> tuple[str, ...]:
        """The directories of production, by all names that are known."""
        known = [self.production.data, *self.production.spaces, *self.configuration.real_paths.values()]
        return tuple(dict.fromkeys([*known, *map(os.path.realpath, known)]))


def _held(run: _Run, made: Drill) -> tuple[Drill, list[str]]:
    """Make a drill, inside the lock; what came of it, and warnings. Raises Impossible."""
    _check(run)
    try:
        drill_place.prepared(made.place, run.configuration)
        scratch = drill_place.made(made.place, made.id)
    except PgOpsError as error:
        raise Impossible("place", str(error)) from error
    heard, why = Heard(), ""
    order = _order(run, scratch)
    try:
        with _heeding_termination():
            ended = supervised.run(lambda tell: rehearsal.rehearse(order, tell), heard.hear, _look(run, made.place))
        why = KILLED if ended.killed else ended.why
    except Terminated:
        why = KILLED
    finally:
        drill_place.remove(scratch)
        with contextlib.suppress(OSError):
            os.rmdir(made.place)
    return _judged(run, made, heard, why), heard.warnings


def _order(run: _Run, scratch: str) -> Order:
    """What the rehearsal is told; the programs are those of the server itself."""
    programs = ""
    with contextlib.suppress(OSError, HostFailed):
        process = discovery.postmaster(run.production.data, os.geteuid())
        programs = os.path.dirname(os.readlink(f"/proc/{process}/exe"))
    beside = programs if os.access(os.path.join(programs, "pg_verifybackup"), os.X_OK) else ""
    return Order(
        repository=run.configuration.repository,
        production=run.production,
        scratch=scratch,
        declared=run.declared,
        others=run.others,
        superuser=run.configuration.superuser,
        tools=backup_options(run.configuration).bin_directory or beside,
        programs=programs,
        backup=run.backup,
    )


def _check(run: _Run) -> None:
    """Raises Impossible for what keeps a drill from being begun."""
    place = _generation(run.configuration, run.production)
    if not os.path.isfile(os.path.join(place, archiver.IDENTITY)):
        raise Impossible("repository", f"{place} is not there.", "Is its file system mounted?")
    load, processors = os.getloadavg()[0], os.cpu_count() or 1
    if run.declared.max_load and load > run.declared.max_load * processors:
        raise Impossible(
            "load", f"The load is {load:.1f} on {processors} processors, above pgops_drill_max_load for each."
        )
    folder = backups.folder(run.configuration.repository, run.production.generation)
    if os.path.isdir(folder):
        try:
            with backups.alone(folder):
                pass
        except Busy:
            raise Impossible("busy", "A backup is being taken or expired.") from None


def _look(run: _Run, place: str) -> Any:
    """What is looked at while a drill goes on."""
    until = time.monotonic() + run.declared.minutes * 60
    reserve = int(run.declared.reserve_mb * MB)

    def look() -> str:
        if time.monotonic() > until:
            return "time_limit"
        return "disk_space" if free_bytes(place) < reserve else ""

    return look


@contextlib.contextmanager
def _heeding_termination() -> Iterator[None]:
    """Being told to end, as by systemd, is an exception inside."""

    def end(_signal: int, _frame: FrameType | None) -> NoReturn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # what was made is removed first
        raise Terminated

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


# --- what came of it


WORDS = {
    KILLED: "It was killed in phase {phase}.",
    "time_limit": "It took longer than pgops_drill_minutes; it was given up in phase {phase}.",
    "disk_space": "Its disk has less free than pgops_drill_reserve_mb; it was given up in phase {phase}.",
}


def _judged(run: _Run, made: Drill, heard: Heard, why: str) -> Drill:
    """The drill with what came of it."""
    reached = heard.reached
    known = {name: getattr(heard, name) for name in ("backup", "backup_name", "phases", "rto")}
    made = replace(made, **known, checks=tuple(heard.checks))
    if reached:
        lost, rpo = _lost(run.production, made.started_at, reached)
        when = datetime.fromisoformat(reached["time"])
        place = {"timeline": reached["timeline"], "lsn": reached["lsn"], "reached": when}
        made = replace(made, **place, rpo=rpo, rpo_bytes=lost)
    status, reason, message = judge(heard, why)
    if status == PASSED:
        status, reason, message = _untouched(run, status)
    return made.ended(status, reason, message, _now())


def judge(heard: Heard, why: str) -> tuple[str, str, str]:
    """Status, reason and message of a drill by what was heard of it, and ``why`` it was ended, '' if it ended by
    itself. Pure."""
    if why:
        status = FAILED if why == KILLED else NOT_RUN
        return status, why, WORDS[why].format(phase=heard.phase or "plan")
    if heard.error:
        reason = "disk_space" if FULL in heard.error else UNABLE.get(heard.kind, "")
        isolated = "isolation" if heard.kind == NotIsolated.__name__ else heard.phase
        return (NOT_RUN, reason, heard.error) if reason else (FAILED, isolated, heard.error)
    wrong = [one for one in heard.checks if one["passed"] is False]
    if wrong:
        return FAILED, "checks", "; ".join(f"{one['name']}: {one['detail']}" for one in wrong)
    return PASSED, "", ""


def _lost(production: Production, began: datetime, reached: Mapping[str, Any]) -> tuple[int, float]:
    """What would have been lost at most if production had ended when the drill began: bytes of WAL, and the seconds
    since the last commit that was recovered."""
    lost = max(0, production.written - int(reached["byte"]))
    seconds = (began - datetime.fromisoformat(reached["time"])).total_seconds()
    return lost, round(max(0.0, seconds), 3) if lost else 0.0


def _untouched(run: _Run, status: str) -> tuple[str, str, str]:
    """Whether production is what it was: else nothing is proven of it."""
    try:
        found = isolation.changed(run.production, _production(run.configuration))
    except Impossible as error:
        return NOT_RUN, error.reason, str(error)
    if found:
        return NOT_RUN, "production_changed", f"Production was changed meanwhile: {'; '.join(found)}."
    return status, "", ""


def recorded(configuration: Configuration, layout: Layout, made: Drill) -> list[str]:
    """Note a drill that is over, in the instance's directory, the repository and the ops database; warnings of where
    that was not possible."""
    drills.add(layout.keeping, [made])
    over = drills.read(layout.keeping).over
    warnings = []
    place = os.path.join(configuration.repository, made.generation)
    if made.generation and os.path.isfile(os.path.join(place, archiver.IDENTITY)):
        try:
            drills.add(place, [one for one in over if one.generation == made.generation])
        except PgOpsError as error:
            warnings.append(f"It could not be noted in the repository: {error}")
    return warnings + record.written(configuration, lambda session: drills.tell(session, over))
