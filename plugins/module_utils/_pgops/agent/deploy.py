# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent on a host, brought to what is declared: its version, its user, and the configuration of each instance."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Callable

from ..converge import read_plan_apply
from ..errors import Conflict, LoginRefused
from ..host import commands, files
from ..host.directories import opened
from ..host.files import Directory, Entry, Found, Link
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..plan import HostChange, Plan, changes
from ..server import disks, target
from . import interpreter, removal
from . import program as versions
from .declared import Desired, Instance, desired, naming
from .entries import (
    any_layout,
    configuration_file,
    directories,
    exported,
    instance_files,
    registration,
    shared_directories,
    shared_files,
)
from .present import Current, Present, configured, read

USER_COMMENT = removal.USER_COMMENT
USERADD = (
    *("useradd", "--system", "--user-group", "--no-create-home"),
    *("--shell", "/usr/sbin/nologin", "--comment", USER_COMMENT),
)


# --- planning


def plan(current: Current, wanted: Desired) -> Plan[HostChange]:
    """What brings the agent to what is desired: user, directories, version, files, the switch to the version, and the
    configurations, which the version before may not understand.

    Raises Conflict where something of somebody else's is in the way.
    """
    program = wanted.program
    layout = any_layout(wanted)
    _check_command(layout, current.found.get(layout.command))
    pairs = [(one, current.instances[one.name]) for one in wanted.instances]
    parts: tuple[Iterable[HostChange], ...] = (
        _user(current, wanted),
        files.plan(shared_directories(wanted), current.found),
        _each(wanted, pairs, _directories),
        [_owned(path, wanted) for _one, present in pairs for path in present.misowned],
        versions.plan(layout, current.installed, program, wanted.runners),
        files.removal(current.retired, current.retired),
        _each(wanted, pairs, _files),
        files.plan(shared_files(wanted), current.found),
        _each(wanted, pairs, _configuration),
        versions.outdated(layout, current.installed, program.version),
    )
    return changes(*parts)


def _each(
    wanted: Desired,
    pairs: Iterable[tuple[Instance, Present]],
    part: Callable[[Desired, Instance, Present], Iterable[HostChange]],
) -> list[HostChange]:
    return [change for one, present in pairs for change in part(wanted, one, present)]


def _directories(wanted: Desired, one: Instance, present: Present) -> Iterable[HostChange]:
    export = exported(wanted, one, present.found.get(wanted.layout(one.name).exported))
    both: list[Entry] = [*directories(wanted, one), *(entry for entry in export if isinstance(entry, Directory))]
    return files.plan(both, present.found)


def _files(wanted: Desired, one: Instance, present: Present) -> Iterable[HostChange]:
    layout = wanted.layout(one.name)
    export = exported(wanted, one, present.found.get(layout.exported))
    links = {entry.path for entry in export if isinstance(entry, Link)}
    for path in links:
        _check_textfile(layout, path, present.found.get(path))
    own = instance_files(wanted, one, present.found.get(layout.passfile), present.drawn)
    own += registration(wanted, one, present.found.get(layout.registration))
    written: list[Entry] = [*own, *(entry for entry in export if not isinstance(entry, Directory))]
    stray = [*present.stray_collectors, *({present.textfile} - {""} - links)]
    return (*files.removal(stray, present.found), *files.plan(written, present.found))


def _configuration(wanted: Desired, one: Instance, present: Present) -> Iterable[HostChange]:
    return files.plan([configuration_file(wanted, one)], present.found)


def _check_command(layout: Layout, present: Found | None) -> None:
    if present and present.to != layout.launcher:
        raise Conflict(f"{layout.command} exists and was not created by pgops.fleet.", "Move it away.")


def _check_textfile(layout: Layout, path: str, present: Found | None) -> None:
    if present and present.to != layout.exported:
        raise Conflict(f"{path} exists and was not created by pgops.fleet.", "Move it away.")


@dataclass(frozen=True)
class NewOwner(HostChange):
    """A file of the agent's state is given to its user."""

    path: str = field(compare=False)
    user: str = field(compare=False)
    group: str = field(compare=False)

    def apply(self) -> None:
        """Change owner and group, unless it is known by another name as well, which may be somebody else's."""
        try:
            with opened(self.path) as descriptor:
                if os.fstat(descriptor).st_nlink == 1:
                    files.own(descriptor, self.user, self.group)
        except OSError as error:
            raise files.failure(error, f"The owner of {self.path} cannot be changed to {self.user}") from error


def _owned(path: str, wanted: Desired) -> NewOwner:
    before, after = {"owner": "another user"}, {"owner": wanted.user}
    return NewOwner(f"owner of {path}", before, after, path, wanted.user, wanted.group)


@dataclass(frozen=True)
class NewUser(HostChange):
    """The operating system's user is created."""

    name: str = field(compare=False)
    home: str = field(compare=False)

    def apply(self) -> None:
        """Without a password and a shell."""
        commands.run([*USERADD, "--home-dir", self.home, self.name])


def _user(current: Current, wanted: Desired) -> tuple[NewUser, ...]:
    if current.user is not None or wanted.prefix != "/":
        return ()
    after = {"system": True, "shell": "/usr/sbin/nologin"}
    return (NewUser(f"user {wanted.user}", None, after, wanted.user, os.path.dirname(any_layout(wanted).data)),)


# --- all of it


def converge(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_agent returns."""
    if params["state"] == "absent":
        return removal.converge(params, check_mode)
    wanted = interpreter.chosen(_placed(desired(params)), bool(params["python"]), check_mode)
    warnings = [words for one in wanted.instances for words in _validated(wanted, one)] if params["validate"] else []
    made = read_plan_apply(
        read=lambda: Host(_interrupted(wanted), read(wanted)),
        plan=lambda found: changes(found.interrupted, plan(found.current, wanted)),
        apply=lambda _found, made: apply(made),
        check_mode=check_mode,
        lock=lambda: files.exclusive(any_layout(wanted).lock, seconds=60),
    )
    return made.warned(dict.fromkeys(warnings)).result(version=wanted.program.version)


def apply(made: Plan[HostChange]) -> None:
    """Carry a plan out in its order.

    Raises HostFailed; the agent in use is switched only after all else is in place.
    """
    for change in made:
        change.apply()


@dataclass(frozen=True)
class Host:
    """What is there. Nothing can be done to a server that a killed run has left stopped, before it is started:
    ``interrupted``."""

    interrupted: tuple[HostChange, ...]
    current: Current


def _placed(wanted: Desired) -> Desired:
    """With where the servers' directories really are."""
    placed = (
        replace(one, configuration=_real(wanted.layout(one.name), one.configuration)) for one in wanted.instances
    )
    return replace(wanted, instances=tuple(placed))


def _real(layout: Layout, settings: Configuration) -> Configuration:
    """With where the server's directories really are, if they are on this host; where that is not to be seen, since
    it is down or a file system hangs, as they were."""
    if settings.host:
        return settings
    present = configured(layout)
    known = present.real_paths if present else {}
    seen = disks.real_paths(target.Target(settings.socket_directory, str(settings.port))) or known
    places = {path: real or known.get(path) for path, real in seen.items()}
    found = {path: real for path, real in places.items() if real}
    return replace(settings, real_paths=found)


def _validated(wanted: Desired, one: Instance) -> tuple[str, ...]:
    """Try the user's collectors on the server; what a person should know of them.

    Not where a killed run has left the server stopped, which is started later on: pg_ops_schema tries them then.

    Raises InvalidInput, Unreachable, DriverMissing.
    """
    layout, settings = wanted.layout(one.name), one.configuration
    if not wanted.collectors or os.path.exists(layout.journal):
        return ()
    # Only now: it takes the driver along, which costs as much as all the rest.
    from ..metrics import trial
    from ..server.session import connect

    if settings.host:
        return _validated_over_the_network(wanted, one)
    with naming(one.name), connect(endpoints.administrator(settings)) as session:
        agent = trial.agent_at(session.target, wanted.user)
        return trial.validate(session, settings.database, wanted.own_collectors, agent)


def _validated_over_the_network(wanted: Desired, one: Instance) -> tuple[str, ...]:
    """Try them as the agent, once it is let in: until then they do not run, and pg_ops_schema tries them as well."""
    from ..metrics import trial
    from ..server.session import connect

    if not os.path.exists(wanted.layout(one.name).passfile):
        return ()
    try:
        with naming(one.name), connect(endpoints.agent(one.configuration, "deploy")) as session:
            return trial.validate(session, one.configuration.database, wanted.own_collectors, session.target)
    except LoginRefused:
        return ()


def _interrupted(wanted: Desired) -> tuple[HostChange, ...]:
    """What starts servers that a killed run has left stopped."""
    layouts = [wanted.layout(one.name) for one in wanted.instances]
    left = [layout for layout in layouts if os.path.exists(layout.journal)]
    if not left:
        return ()
    # Only now: it takes the driver along, which costs as much as all the rest.
    from ..settings.transaction import interrupted

    return tuple(change for layout in left for change in interrupted(layout))
