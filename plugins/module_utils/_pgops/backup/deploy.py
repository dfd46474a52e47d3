# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What pg_ops_backup does: a backup or dumps now, an expiry, a verification, a pin, a list. All work is the server's
user's, with the agent's configuration of the instance, as in its jobs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import HostFailed, InvalidInput
from ..host.identity import as_user
from ..instance import configuration
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..plan import Change, Plan, changes
from ..repository import backups, dumps, wal
from ..repository.backups import Kept
from ..repository.manifests import written
from . import pins, work
from .dump import foreseen as dumps_foreseen
from .take import foreseen

LONGEST = 172_800.0
"""Seconds that an action may take."""


@dataclass(frozen=True)
class Asked:
    """An action on an instance's backups, as the server's user carries it out."""

    settings: Configuration
    layout: Layout
    params: Mapping[str, Any]
    check_mode: bool


def converge(params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Carry out an action; what pg_ops_backup returns.

    Raises PgOpsError.
    """
    layout = Layout(params["instance"], params["prefix"])
    try:
        owner = os.stat(layout.keeping).st_uid
    except OSError as error:
        raise HostFailed(
            f"The agent is not set up for the backups of instance {layout.instance}: {error.filename} is missing.",
            "Set pgops_backup to true and run site.yml on this host.",
        ) from error
    action, asked = ACTIONS[params["action"]], Asked(configuration.load(layout), layout, params, check_mode)
    if not asked.settings.repository:
        raise InvalidInput("This instance has no repository.", "Set pgops_repository and run site.yml.")
    done = dict(as_user(owner, lambda: action.work(asked), LONGEST))
    if done.get("errors"):
        raise HostFailed(f"The action {params['action']} ended with errors: {' '.join(done['errors'])}")
    told = {name: done.get(name) for name in action.keys}
    return action.plan(done).warned(done.get("warnings", [])).result(**told)


def _take(asked: Asked) -> dict[str, Any]:
    kind = asked.params["type"]
    if asked.check_mode:
        return foreseen(asked.settings, kind)
    return work.back_up(asked.settings, asked.layout, kind)


def _taken(done: Mapping[str, Any]) -> Plan[Change]:
    if done.get("skipped"):
        return changes(skipped_reason=done["skipped"])
    about = {name: done[name] for name in ("kind", "parent", "why")}
    return changes([Change(f"{done['kind']} backup", None, about)])


def _dump(asked: Asked) -> dict[str, Any]:
    names = asked.params["databases"] or ()
    if asked.check_mode:
        return {**dumps_foreseen(asked.settings, names), "expired": None}
    return work.dump_databases(asked.settings, names)


def _dumped(done: Mapping[str, Any]) -> Plan[Change]:
    if done.get("skipped"):
        return changes(skipped_reason=done["skipped"])
    names = [one if isinstance(one, str) else one["database"] for one in done["dumped"]]
    return changes([Change(f"dump of database {name}", None, {"database": name}) for name in names])


def _expire(asked: Asked) -> dict[str, Any]:
    return work.expire(asked.settings, asked.layout, asked.check_mode)


def _expired(done: Mapping[str, Any]) -> Plan[Change]:
    removed = [Change(f"backup {one['name']}", {"reason": one["reason"]}, None) for one in done["removed"]]
    removed += [
        Change(f"dump {one['name']} of database {one['database']}", {"completed_at": one["completed_at"]}, None)
        for one in done["dumps_removed"]
    ]
    number = done["wal_removed"]
    segments = [Change(f"{number} WAL files", "in the repository", None)] if number else []
    return changes([*removed, *segments], skipped_reason=" ".join(done["skipped"]))


def _verify(asked: Asked) -> dict[str, Any]:
    named = asked.params["backup"]
    names = [pins.find(asked.settings.repository, named, dumped=False).name] if named else []
    if asked.check_mode:
        return dict.fromkeys(VERIFIED)
    return work.verify(asked.settings, asked.layout, names)


def _pin(asked: Asked) -> dict[str, Any]:
    """Pin a backup or a dump, or let it go."""
    named, place = asked.params["backup"], asked.settings.repository
    if asked.params["action"] == "pin":
        return pins.pin(place, named, asked.params["reason"] or "pinned by pg_ops_backup", asked.check_mode)
    return pins.unpin(place, named, asked.check_mode)


def _pinned(done: Mapping[str, Any]) -> Plan[Change]:
    if not done["changed"]:
        return changes()
    return changes([Change(f"pin of {done['title']}", done["before"], done["pinned"])])


def _list(asked: Asked) -> dict[str, Any]:
    where = asked.settings.repository
    found = [dumps.told(where, name, one) for name, one in dumps.everywhere(where)]
    return {"backups": [told(kept) for _generation, kept in backups.everywhere(where)], "dumps": found}


def _unchanged(_done: Mapping[str, Any]) -> Plan[Change]:
    return changes()


def told(kept: Kept) -> dict[str, Any]:
    """A backup as pg_ops_backup returns it."""
    made = kept.manifest
    return {
        "name": kept.name,
        "id": made.id,
        "kind": made.kind,
        "parent": made.parent or None,
        "node": made.node,
        "started_at": written(made.started_at),
        "completed_at": written(made.completed_at),
        "timeline": made.timeline,
        "start_lsn": wal.lsn(made.start_lsn),
        "stop_lsn": wal.lsn(made.stop_lsn),
        "stored_bytes": made.stored_bytes,
        "data_bytes": made.data_bytes,
        "compression": made.compression,
        "pinned": kept.pin,
        "problems": list(kept.problems),
    }


@dataclass(frozen=True)
class Action:
    """What an action does as the server's user, the changes that its result stands for, and those of its keys that
    are returned."""

    work: Callable[[Asked], dict[str, Any]]
    plan: Callable[[Mapping[str, Any]], Plan[Change]]
    keys: tuple[str, ...]


ONE = ("backup", "name")
EXPECTED = ("kind", "expected_bytes", "expected_seconds", "wal_waiting", "wal_waiting_seconds")
TAKEN = ("stored_bytes", "data_bytes", "seconds", "expired")
VERIFIED = ("verified", "dumps_verified", "damaged", "wal_verified", "wal_damaged")
EXPIRED = (
    *("removed", "wal_removed", "retained", "dumps_removed", "dumps_retained", "window_before", "window_after"),
)
ACTIONS = {
    "take": Action(_take, _taken, (*ONE, *EXPECTED, *TAKEN)),
    "dump": Action(_dump, _dumped, ("dumped", "fresh", "expired")),
    "expire": Action(_expire, _expired, EXPIRED),
    "verify": Action(_verify, _unchanged, VERIFIED),
    "pin": Action(_pin, _pinned, ONE),
    "unpin": Action(_pin, _pinned, ONE),
    "list": Action(_list, _unchanged, ("backups", "dumps")),
}
