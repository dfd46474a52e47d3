# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Apply the settings of a server as one transaction, and restore the original ones."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..converge import read_plan_apply
from ..errors import Conflict, HostFailed, InvalidInput, PgOpsError, Unsupported
from ..host import files
from ..instance.layout import Layout
from ..plan import Change, Plan
from ..server import service
from ..server.locking import locked
from ..server.service import Service
from ..server.session import Session
from ..server.target import Target
from . import controldata, originals, places, planning, present, promise, transaction
from .controldata import AT_LEAST_THE_PRIMARYS
from .originals import Originals
from .parameters import LIBRARIES, SINGLE_LIBRARIES, Value, elements, joined, value_of
from .planning import Desired, SettingsPlan
from .present import Current
from .transaction import Scene

WAIT_FOR_PRIMARY = 30
"""Seconds to wait until a standby has replayed its primary's new values."""

NEEDED = "settings cannot be changed"
NEEDED_TOO = (*planning.ARCHIVING, *places.NAMES)
"""Settings without which none can be changed safely."""


@dataclass(frozen=True)
class Request:
    """The settings that a capability needs; ``absent`` restores those that it changed, ``after_primary`` is for a
    standby after the same settings were applied to its primary."""

    capability: str
    desired: Desired
    absent: bool = False
    after_primary: bool = False


def request(params: Mapping[str, Any]) -> Request:
    """The arguments of pg_ops_settings as a request.

    Raises InvalidInput.
    """
    values = {str(name): value_of(value) for name, value in params["settings"].items()}
    lowered = [name.lower() for name in values]
    twice = sorted(name for name in values if lowered.count(name.lower()) > 1)
    if twice:
        raise InvalidInput(f"settings contains {', '.join(twice)} twice.", "Names are not case-sensitive.")
    desired = Desired(values, params["restart"] == "if_required", params["lists"] == "replace")
    return Request("settings", desired, params["state"] == "absent", params["after_primary"])


def converge(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_settings returns."""
    layout = Layout(params["instance"], params["prefix"]) if params["instance"] else None
    done = settled(target, layout, request(params), check_mode)
    return done.plan.result(**done.details)


@dataclass(frozen=True)
class Settled:
    """The changes, result or predicted, and the ``details`` that every module returns that applies settings."""

    plan: Plan[Change]
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Prepared:
    """A plan, where to carry it out, and how many client sessions a restart ends."""

    settings: SettingsPlan
    scene: Scene
    sessions: int

    @property
    def plan(self) -> Plan[Change]:
        """As modules report it."""
        return self.settings.plan


def settled(target: Target, layout: Layout | None, wanted: Request, check_mode: bool) -> Settled:
    """Apply the settings that a capability needs.

    A server that a killed run has left stopped is started first; a lock keeps other runs of this host out meanwhile.
    """
    if check_mode or layout is None:
        return _settled(target, layout, wanted, check_mode)
    with files.exclusive(layout.lock, seconds=60):
        started = transaction.interrupted(layout, _declared(wanted))
        for change in started:
            change.apply()
        done = _settled(target, layout, wanted, check_mode=False)
    return replace(done, plan=Plan(started) + done.plan)


def _declared(wanted: Request) -> dict[str, str | None]:
    """The texts of what is declared, but for the lists to which others add."""
    if wanted.absent:
        return {}
    return {
        name: joined(value) if isinstance(value, tuple) else value
        for name, value in wanted.desired.values.items()
        if name.lower() not in LIBRARIES
    }


def _settled(target: Target, layout: Layout | None, wanted: Request, check_mode: bool) -> Settled:
    recorded = originals.read(layout.before, wanted.capability) if layout else {}
    named = dict.fromkeys(recorded) if wanted.absent else wanted.desired.values
    with locked(target, NEEDED) as session:

        def prepared(current: Current) -> Prepared:
            settings = _planned(session, current, wanted, recorded, check_mode)
            found = _service(session, current, target, settings)
            settings = promise.kept(session, current, settings, found)
            scene = Scene(target, wanted.capability, layout, found)
            return Prepared(settings, scene, transaction.sessions(session) if settings.restarts else 0)

        def apply(current: Current, ready: Prepared) -> None:
            updated = _to_record(current, recorded, ready.settings, wanted.absent)
            transaction.apply(ready.scene, session, current, ready.settings, updated)

        ready = read_plan_apply(
            read=lambda: _spelled(session, read(session, {**dict.fromkeys(NEEDED_TOO), **named}), wanted, recorded),
            plan=prepared,
            apply=apply,
            check_mode=check_mode,
        )
        if layout and not ready.plan and not check_mode:
            _clean_up(layout, wanted, recorded, ready.settings)
    return Settled(ready.plan, _details(ready))


def _details(ready: Prepared) -> dict[str, Any]:
    settings = ready.settings
    return {
        "pending": [] if settings.restarts else list(settings.pending),
        "deferred": list(settings.deferred),
        "kept": list(settings.kept),
        "restarted": bool(settings.restarts),
        "sessions_ended": ready.sessions,
    }


def _planned(
    session: Session, current: Current, wanted: Request, recorded: Originals, check_mode: bool
) -> SettingsPlan:
    """The plan; for a standby that follows its primary, after the primary's new values have been replayed.

    Raises Conflict if a setting must be restored on the primary first.
    """

    def planned(found: Current) -> SettingsPlan:
        if wanted.absent:
            return planning.removal(found, recorded, wanted.desired.restart)
        return planning.plan(found, wanted.desired)

    result = planned(current)
    follows = wanted.desired.restart if wanted.absent else wanted.after_primary
    if result.deferred and follows and check_mode:
        return planned(replace(current, primary=dict.fromkeys(AT_LEAST_THE_PRIMARYS, 0)))
    deadline = time.monotonic() + (WAIT_FOR_PRIMARY if follows else 0)
    while result.deferred and time.monotonic() < deadline:
        time.sleep(0.5)
        result = planned(_with_primary(session, current))
    if result.deferred and wanted.absent:
        names = ", ".join(str(one["name"]) for one in result.deferred)
        raise Conflict(
            f"{names} cannot be restored on this standby until the primary runs with a value that is as low.",
            "Restore it on the primary first, with restart=if_required (pgops_restart in remove.yml).",
        )
    return result


def read(session: Session, values: Mapping[str, Value]) -> Current:
    """The configured and running values of the parameters named, and what the host's files add."""
    libraries = {
        name: value if isinstance(value, tuple) else _words(value or "")
        for name, value in values.items()
        if name.lower() in (*LIBRARIES, *(SINGLE_LIBRARIES if value else ()))
    }
    return _with_primary(session, present.read(session, list(values), libraries))


def _words(text: str) -> tuple[str, ...]:
    """The elements of a list; none of what is not a list, which the plan refuses."""
    with contextlib.suppress(ValueError):
        return elements(text)
    return ()


def _spelled(session: Session, current: Current, wanted: Request, recorded: Originals) -> Current:
    """With how the server itself writes values that are not the configured ones as they stand."""
    texts = {name: one.ours for name, one in recorded.items()} if wanted.absent else _declared(wanted)
    asked: dict[str, list[str]] = {}
    for name, text in texts.items():
        there = current.automatic(name) if wanted.absent else current.configured(name)
        if text is not None and there is not None and not current.same(name, text, there):
            asked[name] = [text, there, *_as_written(current, name, text)]
    return replace(current, spelled=present.spelled(session, current, asked))


def _as_written(current: Current, name: str, text: str) -> list[str]:
    """A list as ALTER SYSTEM gets it."""
    with contextlib.suppress(ValueError):
        return [", ".join(elements(text))] if current.parameter(name).is_list else []
    return []


def _with_primary(session: Session, current: Current) -> Current:
    if not (session.in_recovery and session.target.local):
        return current
    with contextlib.suppress(HostFailed):
        return replace(current, primary=controldata.read(current.data_directory, _bin_directory(session)))
    return current


def _bin_directory(session: Session) -> str:
    return str(session.value("SELECT setting FROM pg_config() WHERE name = 'BINDIR'"))


def _service(session: Session, current: Current, target: Target, settings: SettingsPlan) -> Service | None:
    """How to restart the server and where to write its files; None if that is neither needed nor possible."""
    if not settings.plan:
        return None
    try:
        if not target.local:
            raise Unsupported(
                "The connection is over the network, so the server cannot be restarted.",
                "Run this on its host, over its socket, or set restart=never.",
            )
        found = service.of(current.data_directory, _bin_directory(session))
        found = replace(found, configuration=current.setting("config_file"))
        if settings.restarts:
            service.check_restart(found)
        return found if os.geteuid() in (0, found.owner) else None
    except PgOpsError as error:
        if settings.restarts:
            raise type(error)(f"{error.message} {promise.UNTOUCHED}", error.hint) from error
        return None


def _to_record(current: Current, recorded: Originals, settings: SettingsPlan, absent: bool) -> Originals:
    if absent:
        return settings.originals
    wanted = {setting.parameter.name: setting.text for setting in settings.settings}
    return originals.after(recorded, {name: current.automatic(name) for name in wanted}, wanted)


def _clean_up(layout: Layout, wanted: Request, recorded: Originals, settings: SettingsPlan) -> None:
    """Without a change, delete the journal of a killed run, and the records of what need not be restored any more."""
    if files.read(layout.journal):
        files.discard(layout.journal)
    if wanted.absent and recorded != settings.originals:
        originals.write(layout.before, wanted.capability, settings.originals)
