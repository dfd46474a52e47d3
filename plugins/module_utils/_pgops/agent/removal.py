# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent taken from a host: instance by instance, and with the last one the program and its user."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..converge import read_plan_apply
from ..errors import Conflict
from ..host import commands, files
from ..host.files import Found
from ..instance.layout import Layout
from ..plan import HostChange, Plan, changes
from ..server import discovery
from ..settings import originals
from .declared import names
from .present import configured, instances, linked, user_comment

USER_COMMENT = "pgops.fleet agent"


@dataclass(frozen=True)
class Remains:
    """What there is to be removed: all ``instances`` of the host, what is ``found`` at the paths of those that go and
    of what all share, our links for node_exporter by instance, and the comment of the operating system's user, or
    None."""

    instances: tuple[str, ...]
    found: Mapping[str, Found | None]
    textfiles: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None


def read(layouts: Collection[Layout], shared: Layout, user: str) -> Remains:
    """What a removal needs of the host.

    Raises HostFailed.
    """
    textfiles = {layout.instance: linked(layout) for layout in layouts}
    own = [path for layout in layouts for path in (layout.configuration, layout.data)]
    paths = [*filter(None, textfiles.values()), *own, *_shared_paths(shared), shared.command]
    return Remains(
        # One that only has a record of its original settings counts as well.
        instances=tuple({*instances(shared.configurations), *instances(os.path.dirname(shared.data))}),
        found={path: files.read(path) for path in paths},
        textfiles=textfiles,
        user=user_comment(user),
    )


def _shared_paths(shared: Layout) -> list[str]:
    return [shared.configurations, os.path.dirname(shared.data), shared.library]


def plan(layouts: Collection[Layout], shared: Layout, remains: Remains, user: str) -> Plan[HostChange]:
    """What takes instances away, and with the last instance of a host the agent itself and its user."""
    paths: list[str] = []
    for layout in layouts:
        # The link goes first: only the configuration tells of it.
        paths += [*filter(None, [remains.textfiles[layout.instance]]), layout.configuration, layout.data]
    last = bool(layouts) and not {*remains.instances} - {layout.instance for layout in layouts}
    if last:
        command = remains.found.get(shared.command)
        paths += _shared_paths(shared)
        paths += [shared.command] if command and command.to == shared.launcher else []
    ours = last and shared.prefix == "/" and remains.user == USER_COMMENT
    users = (OldUser(f"user {user}", {"system": True}, None, user),) if ours else ()
    parts: tuple[Iterable[HostChange], ...] = (files.removal(paths, remains.found), users)
    return changes(*parts)


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


def _forgotten(layout: Layout, check_mode: bool) -> tuple[str, ...]:
    """What a person should know of the settings that nobody can put back once the instance is removed.

    Raises Conflict where there still is a server to put them back on. Check mode only says so: it does not put them
    back either, which comes first in pgops.fleet.remove.
    """
    if not files.read(layout.before):
        return ()
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


def converge(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_agent returns with state absent.

    Raises Conflict where an instance has to stay, after the others have been removed.
    """
    shared = Layout("any", params["prefix"])
    going, warnings, conflicts = _sorted_out([Layout(name, params["prefix"]) for name in names(params)], check_mode)
    made = read_plan_apply(
        read=lambda: read(going, shared, params["user"]),
        plan=lambda remains: plan(going, shared, remains, params["user"]),
        apply=lambda _remains, made: _apply(made),
        check_mode=check_mode,
        lock=lambda: files.exclusive(shared.lock, seconds=60),
    )
    if conflicts:
        raise conflicts[0]
    return made.warned(warnings).result()


def _sorted_out(layouts: Iterable[Layout], check_mode: bool) -> tuple[list[Layout], list[str], list[Conflict]]:
    """The instances that can be removed, what a person should know of them, and why others have to stay."""
    going: list[Layout] = []
    warnings: list[str] = []
    conflicts: list[Conflict] = []
    for layout in layouts:
        try:
            warnings += _forgotten(layout, check_mode)
            going.append(layout)
        except Conflict as conflict:
            conflicts.append(conflict)
    return going, warnings, conflicts


def _apply(made: Plan[HostChange]) -> None:
    for change in made:
        change.apply()
