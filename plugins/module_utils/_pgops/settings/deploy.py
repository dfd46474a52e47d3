# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server's settings as they are to be, as one transaction, and as they were before."""

from __future__ import annotations

import contextlib
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
from . import controldata, originals, planning, present, transaction
from .controldata import AT_LEAST_THE_PRIMARYS
from .originals import Former, Formers
from .parameters import LIBRARIES, Value, elements, value_of
from .planning import Desired, SettingsPlan
from .present import Current
from .transaction import Scene

PATIENCE = 30
"""Seconds that a standby is waited for to have replayed what its primary has come to."""

NEEDED = "settings cannot be changed"


@dataclass(frozen=True)
class Wish:
    """What a capability wants of the server's settings; ``absent`` takes back what it changed, ``after_primary`` is
    for a standby whose primary has just been brought to the same."""

    capability: str
    desired: Desired
    absent: bool = False
    after_primary: bool = False


def wish(params: Mapping[str, Any]) -> Wish:
    """What the arguments of pg_ops_settings ask for.

    Raises InvalidInput.
    """
    values = {str(name): value_of(value) for name, value in params["settings"].items()}
    lowered = [name.lower() for name in values]
    twice = sorted(name for name in values if lowered.count(name.lower()) > 1)
    if twice:
        raise InvalidInput(f"settings has one parameter twice: {', '.join(twice)}.", "Case makes no difference.")
    desired = Desired(values, params["restart"] == "if_required", params["lists"] == "replace")
    return Wish("settings", desired, params["state"] == "absent", params["after_primary"])


def converge(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_settings returns."""
    layout = Layout(params["instance"], params["prefix"]) if params["instance"] else None
    done = settled(target, layout, wish(params), check_mode)
    return done.plan.result(**done.details)


@dataclass(frozen=True)
class Settled:
    """What was changed, or would be, and the ``details`` that every module returns that sets anything."""

    plan: Plan[Change]
    details: Mapping[str, Any]


@dataclass(frozen=True)
class Prepared:
    """A plan, and what it takes to carry it out: where, and how many clients' sessions a restart ends."""

    settings: SettingsPlan
    scene: Scene
    sessions: int

    @property
    def plan(self) -> Plan[Change]:
        """As modules report it."""
        return self.settings.plan


def settled(target: Target, layout: Layout | None, wanted: Wish, check_mode: bool) -> Settled:
    """The settings as a capability wants them, and what was changed.

    What a killed run has left is put right first; no other run of this host is let in between.
    """
    if check_mode or layout is None:
        return _settled(target, layout, wanted, check_mode)
    with files.exclusive(layout.lock, seconds=60):
        started = transaction.interrupted(layout)
        for change in started:
            change.apply()
        done = _settled(target, layout, wanted, check_mode=False)
    return replace(done, plan=Plan(started) + done.plan)


def _settled(target: Target, layout: Layout | None, wanted: Wish, check_mode: bool) -> Settled:
    formers = originals.read(layout.before, wanted.capability) if layout else {}
    named = dict.fromkeys(formers) if wanted.absent else wanted.desired.values
    with locked(target, NEEDED) as session:

        def prepared(current: Current) -> Prepared:
            made = _planned(session, current, wanted, formers, check_mode)
            scene = Scene(target, wanted.capability, layout, _service(session, current, target, made))
            return Prepared(made, scene, transaction.sessions(session) if made.restarts else 0)

        def apply(current: Current, ready: Prepared) -> None:
            known = _remembered(current, formers, ready.settings, wanted.absent)
            transaction.apply(ready.scene, session, current, ready.settings, known)

        ready = read_plan_apply(
            read=lambda: read(session, {**dict.fromkeys(planning.ARCHIVING), **named}),
            plan=prepared,
            apply=apply,
            check_mode=check_mode,
        )
        if layout and not ready.plan and not check_mode:
            _forget(layout, wanted, formers, ready.settings)
    return Settled(ready.plan, _details(ready))


def _details(ready: Prepared) -> dict[str, Any]:
    made = ready.settings
    return {
        "pending": [] if made.restarts else list(made.pending),
        "deferred": list(made.deferred),
        "kept": list(made.kept),
        "restarted": bool(made.restarts),
        "sessions_ended": ready.sessions,
    }


def _planned(session: Session, current: Current, wanted: Wish, formers: Formers, check_mode: bool) -> SettingsPlan:
    """The plan; where a standby follows its primary, once what the primary has come to has been replayed.

    Raises Conflict where something cannot be put back before the primary's is.
    """

    def planned(found: Current) -> SettingsPlan:
        if wanted.absent:
            return planning.removal(found, formers, wanted.desired.restart)
        return planning.plan(found, wanted.desired)

    made = planned(current)
    follows = wanted.desired.restart if wanted.absent else wanted.after_primary
    if made.deferred and follows and check_mode:
        return planned(replace(current, primary=dict.fromkeys(AT_LEAST_THE_PRIMARYS, 0)))
    deadline = time.monotonic() + (PATIENCE if follows else 0)
    while made.deferred and time.monotonic() < deadline:
        time.sleep(0.5)
        made = planned(_with_primary(session, current))
    if made.deferred and wanted.absent:
        names = ", ".join(str(one["name"]) for one in made.deferred)
        raise Conflict(
            f"{names} cannot be put back on this standby before the primary runs with a value as low.",
            "Put it back on the primary first, with a restart: restart (in remove.yml pgops_restart) is if_required.",
        )
    return made


def read(session: Session, values: Mapping[str, Value]) -> Current:
    """What is configured and what runs of the parameters named, with what the host's files tell besides."""
    libraries = {
        name: value if isinstance(value, tuple) else elements(value or "")
        for name, value in values.items()
        if name.lower() in LIBRARIES
    }
    return _with_primary(session, present.read(session, list(values), libraries))


def _with_primary(session: Session, current: Current) -> Current:
    if not (session.in_recovery and session.target.local):
        return current
    with contextlib.suppress(HostFailed):
        return replace(current, primary=controldata.read(current.data_directory, _bin_directory(session)))
    return current


def _bin_directory(session: Session) -> str:
    return str(session.value("SELECT setting FROM pg_config() WHERE name = 'BINDIR'"))


def _service(session: Session, current: Current, target: Target, made: SettingsPlan) -> Service | None:
    """How the server is restarted; None where it need not be and cannot be."""
    if not made.plan:
        return None
    try:
        if not target.local:
            raise Unsupported(
                "The server is reached over the network, so it cannot be restarted from here.",
                "Run this on its host, over its socket; or leave restart at 'never'.",
            )
        found = service.of(current.data_directory, _bin_directory(session))
        service.check_rights(found)
        return found
    except PgOpsError:
        if made.restarts:
            raise
        return None


def _remembered(current: Current, formers: Formers, made: SettingsPlan, absent: bool) -> Mapping[str, Former]:
    if absent:
        return made.formers
    wanted = {setting.parameter.name: setting.text for setting in made.settings}
    return originals.remembered(formers, {name: current.automatic(name) for name in wanted}, wanted)


def _forget(layout: Layout, wanted: Wish, formers: Formers, made: SettingsPlan) -> None:
    """There is nothing to change: forget what a killed run had begun, and what is no longer to be put back."""
    if files.read(layout.journal):
        files.discard(layout.journal)
    if wanted.absent and formers != made.formers:
        originals.write(layout.before, wanted.capability, made.formers)
