# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The recurring jobs of an instance: the complete set of them, started by systemd's timers or by cron.

What belongs to the instance is found by a marker inside the files, never by their names: the name
``pgops-a-b-c.timer`` can be of instance a and of instance a-b.
"""

from __future__ import annotations

import contextlib
import os
import platform
import pwd
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .. import spelling
from ..converge import read_plan_apply
from ..errors import Conflict, HostFailed, InvalidInput, PgOpsError, Unsupported
from ..host import calendars, cron, files, systemd
from ..host.files import Directory, Entry, EntryChange, File, Found, Link, PathRemoval
from ..host.identity import is_root
from ..host.systemd import Limits
from ..instance.layout import Layout
from ..plan import Change, HostChange, Plan, changes, difference
from . import arrival

JOB = re.compile(r"[a-z0-9][a-z0-9-]{0,39}\Z")
USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,30}\Z")
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f]")
RECORD = re.compile(r"job\.(?P<job>[a-z0-9-]+)\.json\Z")
"""The record of a job's last run (instance/records.py)."""
UNIT = re.compile(r".*\.(service|timer)\Z")


@dataclass(frozen=True)
class Job:
    """Something that the agent does again and again: ``arguments`` are its subcommand and what follows.

    ``calendar`` is an OnCalendar expression of systemd. ``jitter`` is the most seconds that a start is delayed,
    ``time_limit`` the seconds after which a run is ended. ``writable`` are the paths that it may write to besides
    the instance's own files. In the ``background`` it gets a small share of the host, and without ``network`` none of
    that. systemd enforces these, and cron does not.
    """

    name: str
    arguments: tuple[str, ...]
    calendar: str
    jitter: int = 0
    time_limit: int = 300
    user: str = "pgops"
    writable: tuple[str, ...] = ()
    background: bool = False
    network: bool = True


@dataclass(frozen=True)
class Schedule:
    """All jobs of an instance. ``backend`` is systemd, cron, or none, where they are nobody's business here."""

    layout: Layout
    backend: str
    jobs: tuple[Job, ...] = ()

    def command(self, job: Job) -> list[str]:
        """What is executed for a job."""
        prefix = [] if self.layout.prefix == "/" else ["--prefix", self.layout.prefix]
        return [self.layout.launcher, "--instance", self.layout.instance, *prefix, "--scheduled", *job.arguments]

    def unit(self, job: Job, suffix: str) -> str:
        """The path of a job's unit."""
        return os.path.join(self.layout.units, systemd.unit_name(self.layout.instance, job.name, suffix))

    @property
    def wants(self) -> str:
        """The directory whose links make timers start with the host."""
        return os.path.join(self.layout.units, "timers.target.wants")


@dataclass(frozen=True)
class Current:
    """What is on the host: files by their paths, and the states of units by their names."""

    host: str
    found: Mapping[str, Found | None] = field(default_factory=dict)
    states: Mapping[str, systemd.State] = field(default_factory=dict)


@dataclass(frozen=True)
class TimerStart(Change):
    """A timer is started; all of a plan are with one call."""

    unit: str = field(compare=False)


@dataclass(frozen=True)
class UnitReload(Change):
    """systemd reads the file of a unit again, which it does of all units at once."""


@dataclass(frozen=True)
class SchedulePlan:
    """What makes the jobs those that are declared, in the order in which it is told."""

    removed: tuple[PathRemoval, ...] = ()
    written: tuple[EntryChange, ...] = ()
    reloads: tuple[UnitReload, ...] = ()
    starts: tuple[TimerStart, ...] = ()

    @property
    def plan(self) -> Plan[Change]:
        """As modules report it."""
        return changes(self.removed, self.written, self.reloads, self.starts)


@dataclass(frozen=True)
class HostPlan:
    """The plans of several instances, each with what it is for."""

    parts: tuple[tuple[SchedulePlan, Schedule], ...] = ()

    @property
    def plan(self) -> Plan[Change]:
        """As modules report it."""
        return changes(*(planned.plan for planned, _wanted in self.parts))


def schedules(params: Mapping[str, Any]) -> list[Schedule]:
    """What the arguments of pg_ops_schedule declare, by instance.

    Raises InvalidInput.
    """
    spelling.refuse_repeated("Instance", [str(one["name"]) for one in params["instances"]])
    return [schedule(one, params) for one in params["instances"]]


def schedule(declared: Mapping[str, Any], params: Mapping[str, Any]) -> Schedule:
    """What is declared of an instance.

    Raises InvalidInput.
    """
    layout = Layout(declared["name"], params["prefix"])
    if params["state"] == "absent":
        return Schedule(layout, "none")
    backend = str(params["backend"])
    if backend != "none" and layout.prefix != "/":
        raise InvalidInput(
            f"Jobs with the prefix {layout.prefix} cannot use the backend {backend}, which reads only /etc.",
            "Set backend: none, and have the commands that are returned started by something else.",
        )
    jobs = tuple(_job(one) for one in declared["jobs"] if one["enabled"])
    spelling.refuse_repeated("Job", [job.name for job in jobs])
    return Schedule(layout, backend, jobs)


def _job(declared: Mapping[str, Any]) -> Job:
    options = {name: value for name, value in declared.items() if name in Job.__dataclass_fields__}
    sequences = {name: tuple(options.get(name) or ()) for name in ("arguments", "writable")}
    job = Job(**{**options, **sequences})
    words = (job.calendar, *job.arguments, *job.writable)
    problems = (
        (not JOB.match(job.name), "its name may contain only a-z, 0-9 and '-', at most 40 characters"),
        (not job.arguments or not all(job.arguments), "its arguments are empty"),
        (not job.calendar, "its calendar is empty"),
        (any(UNPRINTABLE.search(word) for word in words), "it contains a line break or another control character"),
        (job.jitter < 0 or job.time_limit < 1, "jitter must be 0 or more, and time_limit 1 or more"),
        (not USER.match(job.user), f"'{job.user}' is not a valid user name"),
        (is_root(job.user), "no job runs as root"),
        (not all(os.path.isabs(path) for path in job.writable), "writable paths must be absolute"),
    )
    for wrong, why in problems:
        if wrong:
            raise InvalidInput(f"Job {job.name!r} cannot be scheduled: {why}.")
    return job


def read(wanted: Schedule) -> Current:
    """What is on the host of the instance's jobs.

    Raises HostFailed.
    """
    prefix = systemd.unit_name(wanted.layout.instance, "", "")[:-1]
    names = {name for name in _listed(wanted.layout.units) if name.startswith(prefix) and UNIT.match(name)}
    if wanted.backend == "systemd":
        names.update(systemd.unit_name(wanted.layout.instance, job.name, "service") for job in wanted.jobs)
        names.update(systemd.unit_name(wanted.layout.instance, job.name, "timer") for job in wanted.jobs)
    paths = [os.path.join(wanted.layout.units, name) for name in names]
    paths += [os.path.join(wanted.wants, name) for name in names if name.endswith(".timer")]
    found = {path: files.read(path) for path in [*paths, wanted.wants, wanted.layout.crontab]}
    return Current(platform.node(), found, systemd.states(names))


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise files.failure(error, f"{folder} cannot be read") from error


def plan(current: Current, wanted: Schedule) -> SchedulePlan:
    """What makes the instance's jobs those that are declared. Pure.

    Raises InvalidInput for a calendar that cron cannot express, and Conflict where a file is somebody else's.
    """
    entries = _entries(wanted, current)
    _check_owners(wanted, current, entries)
    paths = {entry.path for entry in entries}
    leftover = [path for path in _ours(wanted, current) if path not in paths]
    written = files.plan(entries, current.found)
    timers = [wanted.unit(job, "timer") for job in wanted.jobs] if wanted.backend == "systemd" else []
    return SchedulePlan(
        removed=files.removal(leftover, current.found),
        written=written,
        reloads=_reloads(current, paths, {change.path for change in written}),
        starts=tuple(change for path in timers for change in _start(current, path)),
    )


def plan_all(found: Sequence[Current], wanted: Sequence[Schedule]) -> HostPlan:
    """What makes the jobs of several instances those that are declared. Pure.

    Raises Conflict where two would have the same file, as job b-c of instance a and job c of instance a-b.
    """
    parts: list[tuple[SchedulePlan, Schedule]] = []
    owners: dict[str, str] = {}
    for current, one in zip(found, wanted):
        planned = plan(current, one)
        for entry in _entries(one, current):
            other = owners.setdefault(entry.path, one.layout.instance)
            if isinstance(entry, File) and other != one.layout.instance:
                raise Conflict(
                    f"{entry.path} would belong to the instances {other} and {one.layout.instance}.",
                    "Give an instance or a job another name.",
                )
        own = tuple(change for change in planned.written if owners[change.path] == one.layout.instance)
        parts.append((replace(planned, written=own), one))
    return HostPlan(tuple(parts))


def _entries(wanted: Schedule, current: Current) -> list[Entry]:
    """Files, links and directories as they are to be, in the order in which they are made."""
    if wanted.backend == "cron" and wanted.jobs:
        lines = [_cron_line(wanted, job, current.host) for job in wanted.jobs]
        return [_file(wanted.layout.crontab, cron.text(wanted.layout.instance, lines))]
    if wanted.backend != "systemd" or not wanted.jobs:
        return []
    entries: list[Entry] = [] if current.found.get(wanted.wants) else [Directory(wanted.wants)]
    for job in wanted.jobs:
        path = wanted.unit(job, "timer")
        entries += [
            _file(wanted.unit(job, "service"), _service(wanted, job)),
            _file(path, systemd.timer(wanted.layout.instance, job.name, job.calendar, job.jitter)),
            Link(os.path.join(wanted.wants, os.path.basename(path)), path),
        ]
    return entries


def _file(path: str, content: bytes) -> File:
    return File(path, content, 0o644, "root", "root")


def _service(wanted: Schedule, job: Job) -> bytes:
    # Its own part of it; whose that is, the file system knows.
    limits = Limits(job.time_limit, (wanted.layout.data, *job.writable), job.background, job.network)
    return systemd.service(wanted.layout.instance, job.name, job.user, wanted.command(job), limits)


def _cron_line(wanted: Schedule, job: Job, host: str) -> str:
    try:
        fields = calendars.parse(job.calendar).cron
        delay = cron.delay(job.jitter, host, wanted.layout.instance, job.name)
        return cron.line(fields, job.user, wanted.command(job), delay, job.time_limit)
    except InvalidInput as error:
        raise InvalidInput(f"Job {job.name}: {error.message}", error.hint) from None


def _check_owners(wanted: Schedule, current: Current, entries: Iterable[Entry]) -> None:
    for entry in entries:
        there = current.found.get(entry.path)
        if there is None or not isinstance(entry, File):
            continue
        owner = _owner(there)
        if owner != wanted.layout.instance:
            whose = f"belongs to instance {owner}" if owner else "was not created by pgops.fleet"
            raise Conflict(
                f"{entry.path} {whose}, so it is not overwritten.",
                f"Give the instance or the job another name{'' if owner else ', or remove the file'}.",
            )


def _owner(found: Found) -> str | None:
    return systemd.owner(found.content) or cron.owner(found.content) if found.kind == "file" else None


def _ours(wanted: Schedule, current: Current) -> list[str]:
    """The paths of all that is the instance's, in the order of removal: what names a unit goes before it, so that
    a run that is killed on the way leaves nothing that the next one cannot find."""
    owned = [
        path for path, found in current.found.items() if found is not None and _owner(found) == wanted.layout.instance
    ]
    links = [os.path.join(wanted.wants, os.path.basename(path)) for path in owned if path.endswith(".timer")]
    return [*sorted(links), *sorted(owned, key=lambda path: (not path.endswith(".timer"), path))]


def _reloads(current: Current, wanted: set[str], written: set[str]) -> tuple[UnitReload, ...]:
    """A unit file was changed by somebody, or by a run that was killed, and systemd still has the old one."""
    return tuple(
        change
        for path in sorted(wanted - written)
        for name in [os.path.basename(path)]
        if current.states.get(name, systemd.State()).outdated
        if not path.endswith(f".wants/{name}")
        for change in difference(UnitReload(f"unit {name}", "not reloaded since its file changed", "loaded"))
    )


def _start(current: Current, path: str) -> tuple[TimerStart, ...]:
    name = os.path.basename(path)
    before = current.states.get(name, systemd.State()).active if current.found.get(path) else None
    return difference(TimerStart(f"timer {name}", before, "active", name))


def obstacles(wanted: Schedule) -> list[PgOpsError]:
    """What on the host keeps the jobs from running, and may be mended by what runs before this one.

    Raises Unsupported where systemd does not run the host.
    """
    if wanted.backend == "systemd" and not systemd.booted():
        raise Unsupported(
            "This host does not run systemd.", "Set backend to cron, or to none if something else starts the jobs."
        )
    found: list[PgOpsError] = []
    if wanted.backend == "cron" and not cron.installed():
        found.append(HostFailed("This host has no cron daemon.", "Install the package cron."))
    for job in wanted.jobs if wanted.backend != "none" else ():
        try:
            pwd.getpwnam(job.user)
        except KeyError:
            hint = "Run pg_ops_agent first, or set another user."
            found.append(HostFailed(f"Job {job.name} runs as {job.user}, but this host has no such user.", hint))
    return found


def apply(made: HostPlan) -> None:
    """Carry the plans out. What is running of a removed job is stopped; of a changed one it goes on.

    The files of removed units go last, when systemd has forgotten the units: until then the next run finds them by
    their files, and afterwards nothing is left to find.

    Raises HostFailed.
    """
    plans = [planned for planned, _wanted in made.parts]
    removed = [change for planned in plans for change in planned.removed]
    written = [change for planned in plans for change in planned.written]
    starts = [change.unit for planned in plans for change in planned.starts]
    last = [change for change in removed if _is_unit(change.path)]
    names = [os.path.basename(change.path) for change in last]
    running = systemd.booted()
    if last and running:
        systemd.stop(names)
    first: list[HostChange] = [change for change in removed if change not in last]
    for change in [*first, *written]:
        change.apply()
    reloads = any(planned.reloads for planned in plans) or any(_is_unit(change.path) for change in written)
    if running and (last or reloads):
        systemd.reload()
    if last and running:
        systemd.forget(names)
    _stop_crons(made)
    for _planned, wanted in made.parts:
        _discard_records(wanted)
    for removal in last:
        removal.apply()
    if starts and running:
        systemd.start(starts)


def _discard_records(wanted: Schedule) -> None:
    """Discard the records of jobs that are not scheduled any more: their age would go on growing. They are no part of
    the plan, since jobs write them at any time."""
    scheduled = {job.arguments[0] for job in wanted.jobs}
    for folder in (wanted.layout.state, wanted.layout.inspection):
        with contextlib.suppress(OSError), files.opened_directory(folder) as directory:
            for name in os.listdir(directory):
                found = RECORD.match(name)
                if found and found["job"] not in scheduled:
                    # Never what a link leads to, and no directory: the folder is another user's.
                    os.unlink(name, dir_fd=directory)


def _stop_crons(made: HostPlan) -> None:
    """End what cron has started of instances whose crontab is gone."""
    for planned, wanted in made.parts:
        if wanted.layout.crontab in [change.path for change in planned.removed]:
            cron.stop([wanted.layout.launcher, "--instance", wanted.layout.instance])


def _is_unit(path: str) -> bool:
    return bool(UNIT.match(path)) and not os.path.dirname(path).endswith(".wants")


def unchecked(planned: SchedulePlan, wanted: Schedule) -> dict[str, str]:
    """The calendars, by their jobs' names, that systemd has not yet seen: those of timers that are written."""
    written = {change.path for change in planned.written}
    return {job.name: job.calendar for job in wanted.jobs if wanted.unit(job, "timer") in written}


def described(wanted: Schedule) -> list[dict[str, Any]]:
    """The jobs as a module returns them."""
    return [
        {
            "instance": wanted.layout.instance,
            "name": job.name,
            "command": wanted.command(job),
            "user": job.user,
            "calendar": job.calendar,
        }
        for job in wanted.jobs
    ]


def _arrivals(params: Mapping[str, Any], check_mode: bool) -> list[str]:
    """What is to be known of the standbys among the instances, whose samples have to arrive elsewhere.

    Raises NotDelivered, once all else is in place.
    """
    if params["state"] == "absent":
        return []
    found = []
    for one in params["instances"]:
        places = one.get("delivers_to")
        found += arrival.warnings(one["name"], places)
        if places and not check_mode:
            found += arrival.prove(Layout(one["name"], params["prefix"]), places)
    return found


def converge(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Make the jobs of instances those that a module's arguments declare; the module's result.

    Raises PgOpsError.
    """
    wanted = schedules(params)
    problems = [problem for one in wanted for problem in obstacles(one)]

    def review(_found: list[Current], made: HostPlan) -> None:
        new: dict[str, str] = {}
        for planned, one in made.parts:
            new.update({f"{name} of {one.layout.instance}": when for name, when in unchecked(planned, one).items()})
        systemd.check_calendars(new)
        if problems and not check_mode:
            raise problems[0]

    made = read_plan_apply(
        read=lambda: [read(one) for one in wanted],
        plan=lambda found: plan_all(found, wanted),
        apply=lambda _found, made: apply(made),
        check_mode=check_mode,
        lock=lambda: files.exclusive(Layout("any", params["prefix"]).lock, seconds=60),
        review=review,
    )
    warnings = [*map(str, problems), *_arrivals(params, check_mode)]
    return made.plan.warned(dict.fromkeys(warnings)).result(jobs=[job for one in wanted for job in described(one)])
