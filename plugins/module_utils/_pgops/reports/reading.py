# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a report knows of a host: its facts, and of each instance with an agent what the ops database has stored."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from .. import spelling
from ..errors import InvalidInput, PgOpsError
from ..facts import agent, gathering, instance
from ..facts.answer import failed
from ..instance import configuration, endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..server import discovery
from ..server.session import connect
from ..server.target import SOCKET_DIRECTORIES, Target
from ..statements import options as statements
from . import drift, history, packing, panels, window

FORMAT = 1
"""Of a reading, and of the document that is made of many. Increased when a key is removed or changes its meaning."""


def gather(target: Target, params: Mapping[str, Any]) -> dict[str, Any]:
    """What pg_ops_report returns; ``params`` are its arguments, ``target`` as for the facts.

    Raises InvalidInput.
    """
    window.checked(params)
    wanted = {"gather_subset": ["all"], "database_sizes": False, "max_bytes": params["max_bytes"]}
    facts = gathering.gather(target, {**params, **wanted})["ansible_facts"]["pg_ops"]
    places = {found.name: at for found, at in gathering.places(target, params["prefix"])}
    if not target.host and target.port == "0":
        others = _elsewhere(target, facts, params)
        facts["instances"] += [one for one, _at in others]
        places.update({one["name"]: at for one, at in others})
    if params["instances"]:
        facts["instances"] = _named(facts["instances"], params["instances"])
    stored = {one["name"]: _stored(one, places[one["name"]], params) for one in facts["instances"]}
    report = {"format": FORMAT, "facts": facts, "stored": stored}
    return {"changed": False, "report": packing.packed(report) if params["packed"] else report}


def _named(found: Sequence[dict[str, Any]], names: Sequence[str]) -> list[dict[str, Any]]:
    """Raises InvalidInput."""
    unknown = spelling.unknown(names, {one["name"] for one in found})
    if unknown:
        raise InvalidInput(f"This host has no instance {unknown}.")
    return [one for one in found if one["name"] in names]


def _elsewhere(
    target: Target, facts: Mapping[str, Any], params: Mapping[str, Any]
) -> list[tuple[dict[str, Any], Target]]:
    """The instances with an agent whose sockets are where nobody looks for them unless told, with their targets."""
    known = {one["name"] for one in facts["instances"]}
    wanted = instance.Wanted(tuple(facts["sections"]), params["database"], prefix=params["prefix"])
    found = []
    for one in facts["host"]["agents"] or ():
        with contextlib.suppress(PgOpsError):  # an agent whose configuration cannot be read
            settings = configuration.load(Layout(one["name"], params["prefix"]))
            if settings.instance not in known and settings.socket_directory not in ("", *SOCKET_DIRECTORIES):
                at = replace(target, host=settings.socket_directory, port=str(settings.port))
                place = discovery.Instance(
                    settings.instance, settings.port, settings.socket_directory, socket=False, asked=True
                )
                found.append((instance.read(place, at, wanted), at))
    return found


def _stored(facts: Mapping[str, Any], at: Target, params: Mapping[str, Any]) -> dict[str, Any]:
    """What is stored of an instance: its ``history`` and ``panels``; the ``error`` where nothing can be read.

    Raises InvalidInput for a time that is none.
    """
    absent: dict[str, Any] = {"cluster": None, "node": None, "history": None, "panels": {}}
    section = facts.get("agent", {})
    if section.get("configured") is False:
        return {**absent, "error": None}
    try:
        settings = configuration.load(Layout(facts["name"], params["prefix"]))
        known = {"cluster": settings.cluster, "node": settings.node}
    except PgOpsError as error:
        return {**absent, **failed(error)}
    if facts["error"]:
        return {**absent, **known, "error": facts["error"]}
    try:
        read = {**known, **_read(settings, params), "error": None}
        read["panels"].update({} if settings.host else {"settings": _settings(at, facts["name"], params)})
        return read
    except InvalidInput:  # of the arguments: the configuration has been read
        raise
    except PgOpsError as error:
        return {**absent, **known, **failed(error)}


def _settings(at: Target, name: str, params: Mapping[str, Any]) -> dict[str, Any]:
    """The panel of settings that are not what they should be, which only a superuser can know of."""
    try:
        with connect(replace(at, as_is=True)) as session:
            rows = drift.read(session, drift.declared(Layout(name, params["prefix"])))
            return {"rows": rows, "newest": round(time.time()), "error": None}
    except PgOpsError as error:
        return {"rows": [], "newest": None, **failed(error)}


def _read(settings: Configuration, params: Mapping[str, Any]) -> dict[str, Any]:
    """Raises PgOpsError."""
    at = replace(
        endpoints.agent(settings, "report"),
        os_user="" if settings.host else agent.user(settings.instance, params["prefix"]) or "",
        connect_timeout=params["connect_timeout"],
        statement_timeout=params["statement_timeout"],
    )
    with connect(at) as session:
        span = window.opened(session, params["hours"], params["ends_at"], params["points"])
        texts = statements.options(settings).query_texts
        return {
            "history": history.read(session, settings.node, span),
            "panels": panels.read(session, settings.node, span, texts),
        }
