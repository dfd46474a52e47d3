# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Apply the settings of a server as one transaction, and restore the original ones."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from .. import secrecy
from ..converge import read_plan_apply
from ..errors import Conflict, HostFailed, InvalidInput, PgOpsError, Unsupported
from ..host import files
from ..instance.layout import Layout
from ..plan import Change, Plan
from ..server import postmaster, service
from ..server.locking import locked
from ..server.service import Service
from ..server.session import Session
from ..server.target import Target
from . import carried, controldata, nodes, originals, places, planning, present, promise, standbys, transaction
from .controldata import AT_LEAST_THE_PRIMARYS
from .nodes import Known
from .originals import Originals
from .parameters import LIBRARIES, SINGLE_LIBRARIES, Value, elements, joined, value_of
from .planning import Desired, SettingsPlan
from .present import Current
from .transaction import Scene

WAIT_FOR_PRIMARY = 30
"""Seconds to wait until a standby has replayed its primary's new values."""

NEEDED = "settings cannot be changed"

LATE = """
SELECT pg_is_in_recovery() AND pg_is_wal_replay_paused() AS paused,
       current_setting('recovery_min_apply_delay') AS delay, s.setting::bigint > %s * 1000 AS delayed
FROM pg_settings AS s
WHERE s.name = 'recovery_min_apply_delay'
"""

ALWAYS = tuple({*planning.ARCHIVING, *places.NAMES, *AT_LEAST_THE_PRIMARYS, *standbys.NAMES})
"""What is looked at, whatever is declared."""


@dataclass(frozen=True)
class Request:
    """The settings that a capability needs; ``absent`` restores those that it changed, ``after_primary`` is for a
    standby after the same settings were applied to its primary. ``peers`` are the cluster's other nodes as the run
    knows them, ``nodes_gone`` those that are not waited for, and ``database`` is the ops database."""

    capability: str
    desired: Desired
    absent: bool = False
    after_primary: bool = False
    peers: tuple[Known, ...] = ()
    nodes_gone: tuple[str, ...] = ()
    database: str = "pgops"


def request(params: Mapping[str, Any]) -> Request:
    """The arguments of pg_ops_settings as a request.

    Raises InvalidInput.
    """
    values = {str(name): _value(str(name), value) for name, value in params["settings"].items()}
    lowered = [name.lower() for name in values]
    twice = sorted(name for name in values if lowered.count(name.lower()) > 1)
    if twice:
        raise InvalidInput(f"settings contains {', '.join(twice)} twice.", "Names are not case-sensitive.")
    desired = Desired(values, params["restart"] == "if_required", params["lists"] == "replace")
    return Request(
        "settings",
        desired,
        params["state"] == "absent",
        params["after_primary"],
        peers=nodes.known(params),
        nodes_gone=tuple(params.get("nodes_gone") or ()),
        database=params.get("database") or "pgops",
    )


def _value(name: str, declared: Any) -> Value:
    try:
        return value_of(declared)
    except InvalidInput as error:
        raise InvalidInput(f"{name}: {error.message}", error.hint) from None


def converge(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_settings returns."""
    layout = Layout(params["instance"], params["prefix"]) if params["instance"] else None
    done = settled(target, layout, request(params), check_mode)
    return done.plan.result(**done.details, **done.place, limits=done.limits.result())


@dataclass(frozen=True)
class Settled:
    """The changes, result or predicted, and the ``details`` that every module returns that applies settings;
    ``place`` is where the server listens then, and ``limits`` are for the cluster's other nodes."""

    plan: Plan[Change]
    details: Mapping[str, Any]
    place: Mapping[str, Any] = field(default_factory=dict)
    limits: standbys.Limits = field(default_factory=standbys.Limits)


@dataclass(frozen=True)
class Prepared:
    """A plan, where to carry it out, and how many client sessions a restart ends."""

    settings: SettingsPlan
    scene: Scene
    sessions: int
    limits: standbys.Limits = field(default_factory=standbys.Limits)

    @property
    def plan(self) -> Plan[Change]:
        """As modules report it."""
        return self.settings.plan


def settled(target: Target, layout: Layout | None, wanted: Request, check_mode: bool) -> Settled:
    """Apply the settings that a capability needs.

    A server that a killed run has left stopped is started first; a lock keeps other runs of this host out meanwhile.
    """
    target = replace(target, as_is=True)
    with secrecy.keeping(secrecy.secrets(wanted.desired.values)):
        return _started_and_settled(target, layout, wanted, check_mode)


def _started_and_settled(target: Target, layout: Layout | None, wanted: Request, check_mode: bool) -> Settled:
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
    on_host = originals.read(layout.before, wanted.capability) if layout else {}
    with locked(target, NEEDED) as session:
        cloned = carried.read(session, wanted.capability) if layout else {}
        recorded = on_host or cloned
        named = dict.fromkeys(recorded) if wanted.absent else wanted.desired.values

        def prepared(current: Current) -> Prepared:
            settings = _planned(session, current, wanted, recorded, check_mode)
            _refuse_before_standbys(session, layout, current, wanted, settings)
            found = _service(session, current, target, settings)
            settings = promise.kept(session, current, settings, found)
            scene = Scene(target, wanted.capability, layout, found)
            ended = transaction.sessions(session) if settings.restarts else 0
            return Prepared(settings, scene, ended, standbys.limits(current, settings))

        def apply(current: Current, ready: Prepared) -> None:
            updated = _to_record(current, recorded, ready.settings, wanted.absent)
            place = carried.place(session) if layout else None
            transaction.apply(ready.scene, session, current, ready.settings, updated)
            carried.write(place, wanted.capability, updated)

        ready = read_plan_apply(
            read=lambda: _spelled(session, read(session, {**dict.fromkeys(ALWAYS), **named}), wanted, recorded),
            plan=prepared,
            apply=apply,
            check_mode=check_mode,
        )
        if layout and not ready.plan and not check_mode:
            _clean_up(layout, wanted, recorded, ready.settings)
            kept = ready.settings.originals if wanted.absent else recorded
            if cloned != kept:
                carried.write(carried.place(session), wanted.capability, kept)
    return Settled(ready.plan, _details(ready), _place(target, ready.settings), ready.limits)


def _details(ready: Prepared) -> dict[str, Any]:
    settings = ready.settings
    return {
        "pending": [] if settings.restarts else list(settings.pending),
        "deferred": list(settings.deferred),
        "kept": list(settings.kept),
        "restarted": bool(settings.restarts),
        "sessions_ended": ready.sessions,
    }


def _place(target: Target, settings: SettingsPlan) -> dict[str, Any]:
    """Where the server listens once a plan is carried out: its port, and the directory of its first socket."""
    moved = {str(one["name"]): str(one["configured"]) for one in settings.pending if settings.restarts}
    directories = elements(moved.get("unix_socket_directories", target.host if target.local else ""))
    return {"port": int(moved.get("port", target.port)), "socket_directory": (*directories, "")[0]}


def _refuse_before_standbys(
    session: Session, layout: Layout | None, current: Current, wanted: Request, settings: SettingsPlan
) -> None:
    """Ask what else is of the cluster, where the plan raises what its standbys must have first.

    Raises Conflict.
    """
    raised = standbys.raised(current, settings)
    if not raised:
        return
    found = nodes.others(session, layout, wanted.peers)
    shown = nodes.signs(session, layout, session.target, wanted.database)
    standbys.refuse(raised, bool(settings.restarts), found, shown, wanted.nodes_gone)


def _planned(
    session: Session, current: Current, wanted: Request, recorded: Originals, check_mode: bool
) -> SettingsPlan:
    """The plan; for a standby that follows its primary, after the primary's new values have been replayed.

    Raises Conflict if a removal would have to be ended now, and something still waits for the primary.
    """

    def planned(found: Current) -> SettingsPlan:
        if wanted.absent:
            return planning.removal(found, recorded, wanted.desired.restart)
        return planning.plan(found, wanted.desired)

    result = planned(current)
    if not (result.deferred and wanted.after_primary):
        return result
    primaries = [one.limits.running for one in wanted.peers if one.limits and not one.limits.standby]
    # As if all of the primary's new values had been replayed.
    best = planned(replace(current, primary=[*primaries, dict.fromkeys(AT_LEAST_THE_PRIMARYS, 0)][0]))
    hopeless = best.deferred or (wanted.peers and not primaries)
    why = "this run has not restarted its primary with less" if hopeless else _late(session)
    if check_mode and not why:
        result = best
    deadline = time.monotonic() + (0 if check_mode or why else WAIT_FOR_PRIMARY)
    while result.deferred and time.monotonic() < deadline:
        time.sleep(0.5)
        result = planned(_with_primary(session, current))
    return _waiting(result, wanted, why) if result.deferred else result


def _late(session: Session) -> str:
    """Why a standby replays nothing for now; '' where it does."""
    row = session.row(LATE, [WAIT_FOR_PRIMARY]) or {}
    if row.get("paused"):
        return "replay is paused here, until pg_wal_replay_resume()"
    return f"replay is late here by recovery_min_apply_delay = {row['delay']}" if row.get("delayed") else ""


def _waiting(result: SettingsPlan, wanted: Request, why: str) -> SettingsPlan:
    """The plan with a word on what a standby still waits for, and why.

    Raises Conflict in a removal.
    """
    why = why or f"the primary's value has not been replayed here within {WAIT_FOR_PRIMARY} s"
    values = ", ".join(
        f"{one['name']} = {one['running']} (primary: {'unknown' if one['primary'] is None else one['primary']})"
        for one in result.deferred
    )
    words = f"This standby must not have less than its primary, and keeps {values}: {why}."
    if wanted.absent:
        raise Conflict(
            words,
            "If its primary already runs with as low a value, run this once more when that has been replayed; else "
            "restore the primary first, with restart=if_required (pgops_restart in remove.yml).",
        )
    return replace(result, warnings=(*result.warnings, f"{words} Run this once more then."))


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
    with contextlib.suppress(HostFailed, Unsupported):
        return replace(current, primary=controldata.read(postmaster.of(session)))
    return current


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
        found = replace(service.of(session), configuration=current.setting("config_file"))
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
