# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent taken from a host: instance by instance, and with the last one the program and its user."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ..converge import read_plan_apply
from ..errors import Conflict
from ..host import commands, files
from ..host.files import Found
from ..instance.layout import Layout
from ..plan import HostChange, Plan, changes
from ..server import discovery, programs
from ..server.programs import Use
from ..settings import originals
from .declared import names
from .present import configured, instances, linked, user_comment

USER_COMMENT = "pgops.fleet agent"


@dataclass(frozen=True)
class Remains:
    """What there is to be removed: all ``instances`` of the host, what is ``found`` at the paths of those that go and
    of what all share, our links for node_exporter by instance, and the comment of the operating system's user, or
    None. ``uses`` are servers whose settings name the program that archives."""

    instances: tuple[str, ...]
    found: Mapping[str, Found | None]
    textfiles: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    uses: tuple[Use, ...] = ()


def read(layouts: Collection[Layout], shared: Layout, user: str, uses: tuple[Use, ...] = ()) -> Remains:
    """What a removal needs of the host.

    Raises HostFailed.
    """
    textfiles = {layout.instance: linked(layout) for layout in layouts}
    own = [path for layout in layouts for path in (layout.configuration, layout.data)]
    both = [*_shared_paths(shared), *_shared_paths(shared, program=False)]
    paths = [*filter(None, textfiles.values()), *own, *both, shared.command]
    return Remains(
        # One that only has a record of its original settings counts as well.
        instances=tuple({*instances(shared.configurations), *instances(os.path.dirname(shared.data))}),
        found={path: files.read(path) for path in paths},
        textfiles=textfiles,
        user=user_comment(user),
        uses=uses,
    )


def _shared_paths(shared: Layout, program: bool = True) -> list[str]:
    """What all instances share; without the program that archives where it has to stay."""
    library = [shared.library] if program else [shared.current, shared.versions]
    return [shared.configurations, os.path.dirname(shared.data), *library]


def plan(layouts: Collection[Layout], shared: Layout, remains: Remains, user: str) -> Plan[HostChange]:
    """What takes instances away, and with the last instance of a host the agent itself and its user."""
    paths: list[str] = []
    for layout in layouts:
        # The link goes first: only the configuration tells of it.
        paths += [*filter(None, [remains.textfiles[layout.instance]]), layout.configuration, layout.data]
    last = bool(layouts) and not {*remains.instances} - {layout.instance for layout in layouts}
    if last:
        command = remains.found.get(shared.command)
        paths += _shared_paths(shared, program=not remains.uses)
        paths += [shared.command] if command and command.to == shared.launcher else []
    ours = last and shared.prefix == "/" and remains.user == USER_COMMENT
    users = (OldUser(f"user {user}", {"system": True}, None, user),) if ours else ()
    parts: tuple[Iterable[HostChange], ...] = (files.removal(paths, remains.found), users)
    return changes(*parts, warnings=[_stays(shared, use) for use in remains.uses] if last else ())


def _stays(shared: Layout, use: Use) -> str:
    return (
        f"{shared.archiver} stays: {_words(use)} names it. Delete {shared.library} once no server of this host does."
    )


def _words(use: Use) -> str:
    return f"{', '.join(use.settings)} of {use.instance} (in {use.data_directory})"


@dataclass(frozen=True)
class OldUser(HostChange):
    """The operating system's user that we made is removed."""

    name: str = field(compare=False)

    def apply(self) -> None:
        """With its group; all that was the user's is gone by now."""
        commands.run(["userdel", self.name])


def server_gone(layout: Layout, root: str = "/") -> bool:
    """Whether the instance's server exists no longer, as after pg_dropcluster: it is not found on the host, where one
    that is down is found too, and the data directory that the agent knew is not there. ``root`` is where the host's
    files begin.

    A data directory that may not be seen, or was never known, counts as there.
    """
    present = configured(layout)
    data = present.real_paths[present.data_directory] if present and present.data_directory else None
    if data is None or any(found.name == layout.instance for found in discovery.instances(root)):
        return False
    try:
        os.lstat(data)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _forgotten(layout: Layout, check_mode: bool, use: Use | None) -> tuple[str, ...]:
    """What a person should know of the settings that nobody can put back once the instance is removed.

    Raises Conflict where there still is a server to put them back on, or one that would archive by a program that is
    gone. Check mode only says so: it does not put them back either, which comes first in pgops.fleet.remove.
    """
    if not files.read(layout.before):
        return _archiving(layout, check_mode, use) if use else ()
    if server_gone(layout):
        names = ", ".join(originals.names(layout.before))
        return (
            f"The server of {layout.instance} no longer exists. These original settings cannot be restored: {names}.",
        )
    holds = f"{layout.before} records the original server settings."
    if check_mode:
        return (f"{holds} A run refuses to remove it until they are restored; pgops.fleet.remove restores them.",)
    raise Conflict(
        holds,
        "Restore them first, with pgops.fleet.remove, or with pg_ops_settings, pg_ops_archiving and "
        "pg_ops_statements with state absent (archive_command only after a restart). "
        f"If the server is gone for good, delete {layout.before}.",
    )


def _archiving(layout: Layout, check_mode: bool, use: Use) -> tuple[str, ...]:
    """Of a server that names the program that archives, though nothing is recorded of it, as of a clone.

    Raises Conflict.
    """
    runs = f"{_words(use)} runs {layout.archiver}, which would be missing: pg_wal would grow."
    if check_mode:
        return (
            f"{runs} A run refuses to remove it as long as that is so; pgops.fleet.remove restores the settings.",
        )
    raise Conflict(
        runs,
        "Restore the settings first, with pgops.fleet.remove, or by hand: ALTER SYSTEM RESET archive_command, and "
        "archive_mode if it was off before, which needs a restart.",
    )


def converge(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_agent returns with state absent.

    Raises Conflict where an instance has to stay, after the others have been removed.
    """
    shared = Layout("any", params["prefix"])
    layouts = [Layout(name, params["prefix"]) for name in names(params)]
    used = _uses(layouts, shared)
    going, warnings, conflicts = _sorted_out(layouts, check_mode, used)
    others = tuple(use for use in used.values() if use.instance not in {layout.instance for layout in layouts})
    made = read_plan_apply(
        read=lambda: read(going, shared, params["user"], others),
        plan=lambda remains: plan(going, shared, remains, params["user"]),
        apply=lambda _remains, made: _apply(made),
        check_mode=check_mode,
        lock=lambda: files.exclusive(shared.lock, seconds=60),
    )
    if conflicts:
        raise conflicts[0]
    return made.warned(warnings).result()


def _uses(layouts: Iterable[Layout], shared: Layout) -> dict[str, Use]:
    """The servers that name the program that archives, by their instance or data directory."""
    if not os.path.lexists(shared.archiver):
        return {}
    every = {*layouts, *(Layout(name, shared.prefix) for name in instances(shared.configurations))}
    present = {layout.instance: configured(layout) for layout in every}
    known = {name: one.data_directory for name, one in present.items() if one and one.data_directory}
    names_of = {os.path.realpath(data): name for name, data in known.items()}
    found = programs.uses(shared.archiver, known, others=f"--config={shared.configurations}/")
    named = [replace(use, instance=names_of.get(os.path.realpath(use.data_directory), use.instance)) for use in found]
    return {use.instance: use for use in named}


def _sorted_out(
    layouts: Iterable[Layout], check_mode: bool, uses: Mapping[str, Use]
) -> tuple[list[Layout], list[str], list[Conflict]]:
    """The instances that can be removed, what a person should know of them, and why others have to stay."""
    going: list[Layout] = []
    warnings: list[str] = []
    conflicts: list[Conflict] = []
    for layout in layouts:
        try:
            warnings += _forgotten(layout, check_mode, uses.get(layout.instance))
            going.append(layout)
        except Conflict as conflict:
            conflicts.append(conflict)
    return going, warnings, conflicts


def _apply(made: Plan[HostChange]) -> None:
    for change in made:
        change.apply()
