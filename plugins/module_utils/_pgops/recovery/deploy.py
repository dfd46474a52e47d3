# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What pg_ops_restore does: a restore as the server's user, and in place the start of the server in its usual way."""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from ..errors import HostFailed
from ..host import systemd
from ..host.identity import as_user, user
from ..plan import Change, Plan
from ..server import discovery, service
from ..server.service import Service
from . import restore as restoring
from . import targets
from .restore import Restore

LONGEST = 7 * 86400.0
"""Seconds that a restore may take, or the search for its target."""
NOTHING: dict[str, Any] = {
    "reached": None,
    "phases": [],
    "moved": {},
    "fetched_ahead": None,
    "socket_directory": None,
    "port": None,
}
"""What is not known before a restore."""


@dataclass(frozen=True)
class Restored(Change):
    """A data directory that is filled from a backup."""

    verb: ClassVar[str] = "restore"


def converge(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Plan, and unless in check mode restore; what pg_ops_restore returns."""
    target = targets.parse(params)
    targets.check_end(target, params["end"])
    repository = os.path.normpath(params["repository"])
    generation = params["generation"] or restoring.only_generation(repository)
    uid = _owner(params["owner"], repository)
    request = _request(params, target, repository, generation)
    if check_mode:
        told = as_user(uid, lambda: _planned(request), LONGEST)
        return _plan(request, told).result(**NOTHING, **told["plan"], started=False)
    before = as_user(uid, lambda: _planned(request), LONGEST)
    done = as_user(uid, lambda: restoring.restore(request), LONGEST)
    started = request.in_place and request.end == targets.PROMOTE and params["start"]
    if started:
        service.start(_service(request, before, uid, params["unit"]))
    result = {key: done[key] for key in [*NOTHING, *before["plan"]]}
    told = {"plan": before["plan"], "warnings": done["warnings"], "before": before["before"]}
    return _plan(request, told).result(**result, started=started)


def _planned(request: Restore) -> dict[str, Any]:
    planned = restoring.plan(request)
    identifier = discovery.system_identifier(request.directory)
    before = {"system_identifier": identifier} if request.in_place and identifier else None
    told = {"plan": planned.told(), "warnings": list(planned.warnings), "before": before}
    return {**told, "programs": planned.programs, "configuration": planned.configuration}


def _plan(request: Restore, told: Mapping[str, Any]) -> Plan[Restored]:
    plan = told["plan"]
    after = {"backup": plan["backup"]["name"], "target": plan["target"], "timeline": plan["timeline"]}
    subject = f"data directory {request.directory}"
    return Plan((Restored(subject, told["before"], {**after, "end": plan["end"]}),)).warned(told["warnings"])


def _owner(asked: str, repository: str) -> int:
    """The uid of the server's user: the one that is asked for, or whose repository it is.

    Raises HostFailed, also for root.
    """
    if os.geteuid() != 0:
        return 0
    try:
        return user(pwd.getpwnam(asked).pw_uid if asked else restoring.owner(repository)).uid
    except KeyError as error:
        raise HostFailed(f"This host has no user {asked}.") from error


def _request(params: Mapping[str, Any], target: targets.Target, repository: str, generation: str) -> Restore:
    return Restore(
        repository=repository,
        generation=generation,
        directory=os.path.normpath(params["directory"]),
        target=target,
        end=params["end"],
        in_place=params["in_place"],
        tablespace_map={
            os.path.normpath(old): os.path.normpath(new) for old, new in (params["tablespace_map"] or {}).items()
        },
        bin_directory=params["bin_directory"] or "",
        server_directory=params["server_bin_directory"] or "",
        port=params["port"],
        superuser=params["superuser"],
        configuration=params["configuration"] or "",
        search_directory=params["search_directory"] or "",
        search_seconds=float(params["search_seconds"]),
        preload=None if params["preload"] is None else tuple(filter(None, params["preload"])),
        shared_buffers=params["shared_buffers"],
    )


def _service(request: Restore, told: Mapping[str, Any], uid: int, unit: str) -> Service:
    """How the server of a directory is started, which cannot be asked."""
    found = [one for one in discovery.instances() if one.version and _same(one.data_directory, request.directory)]
    cluster = found[0].name if found else ""
    if not unit and cluster and systemd.booted():
        unit = f"postgresql@{cluster}.service"
    return Service(
        data_directory=request.directory,
        bin_directory=told["programs"],
        owner=uid if os.geteuid() == 0 else os.geteuid(),
        unit=unit,
        cluster=cluster,
        configuration=told["configuration"],
    )


def _same(path: str | None, other: str) -> bool:
    return path is not None and os.path.realpath(path) == os.path.realpath(other)
