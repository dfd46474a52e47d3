# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts of one instance: its identity, and its sections."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from ..errors import DriverMissing, LoginRefused, PgOpsError, TooOld, Unreachable
from ..server import discovery, majors
from ..server.names import AGENT
from ..server.session import Session, connect, listening
from ..server.target import Target
from . import agent, engine, ops
from .answer import failed

SERVER = ("server", "settings", "databases", "connections", "replication", "archiver")
OPS = tuple(section.name for section in ops.SECTIONS)
HOST = ("agent", "jobs")
SECTIONS = SERVER + OPS + HOST


@dataclass(frozen=True)
class Wanted:
    """What to gather. ``sizes``: whether databases are measured, which reads the sizes of all their files;
    ``prefix``: the directory below which the agent is installed."""

    sections: tuple[str, ...]
    database: str = "pgops"
    sizes: bool = False
    prefix: str = "/"

    def some(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """Those of ``names`` that are wanted."""
        return tuple(name for name in names if name in self.sections)


def read(found: discovery.Instance, target: Target, wanted: Wanted) -> dict[str, Any]:
    """An instance as one of ``instances`` in the contract. Failures are recorded in it as errors."""
    target = replace(target, as_is=True)
    facts: dict[str, Any] = {
        "name": found.name,
        "host": None if target.local else target.host,
        "port": found.port,
        "socket_directory": found.socket_directory or None,
        "running": False,
        "version": found.version,
        "major": int(found.version) if found.version and found.version.isdigit() else None,
        "role": found.role,
        "system_identifier": found.system_identifier,
        "data_directory": found.data_directory,
        "owner": found.owner,
        "start": found.start,
        "error": None,
    }
    try:
        if not found.socket and not found.asked:
            raise Unreachable(f"The server {found.name} is down.")
        with connect(target) as session:
            facts.update(_asked(session, found.name, wanted))
    except PgOpsError as error:
        facts["running"] = _running(target, error)
        facts["major"] = error.major if isinstance(error, TooOld) else facts["major"]
        facts.update({"error": failed(error)["error"], **{name: failed(error) for name in wanted.some(SERVER + OPS)}})
    facts["support"] = majors.support(facts["major"])
    facts.update({name: agent.section(name, found.name, wanted.prefix) for name in wanted.some(HOST)})
    return facts


def _running(target: Target, error: PgOpsError) -> bool:
    """Whether a server runs, judged by the error of connecting to it."""
    if isinstance(error, DriverMissing):
        return "," not in target.host and listening(target)
    return isinstance(error, LoginRefused) or not isinstance(error, Unreachable)


def _asked(session: Session, name: str, wanted: Wanted) -> dict[str, Any]:
    """The answers of a server: its identity, and its wanted sections."""
    server = engine.server(session, wanted.database)
    readers = {
        "server": lambda: server.section,
        "settings": lambda: engine.settings(session, server),
        "databases": lambda: engine.databases(session, server, wanted.sizes),
        "connections": lambda: engine.connections(session, server),
        "replication": lambda: engine.replication(session, server),
        "archiver": lambda: engine.archiver(session),
    }
    facts = {
        "running": True,
        "version": server.version.split(" ")[0],
        "major": session.major,
        "role": "standby" if session.in_recovery else "primary",
    }
    known = {key: server.section.get(key) for key in ("system_identifier", "data_directory")}
    facts.update({key: value for key, value in known.items() if value is not None})
    facts.update({name: readers[name]() for name in wanted.some(SERVER)})
    if wanted.some(OPS):
        facts.update(_of_ops_database(session, name, wanted, server))
    return facts


def _of_ops_database(session: Session, name: str, wanted: Wanted, server: engine.Server) -> Mapping[str, Any]:
    sections = wanted.some(OPS)
    if server.ops_database is None and not server.section.get("error"):
        absent = ops.absent(wanted.database)
        return {name: absent[name] for name in sections}
    if session.database == wanted.database and not session.superuser:
        return ops.read(session, sections)
    try:
        with _inside(session, name, wanted) as inside:
            return ops.read(inside, sections)
    except PgOpsError as error:
        return {name: failed(error) for name in sections}


def _inside(session: Session, name: str, wanted: Wanted) -> Session:
    """A session in the ops database: instead of a superuser's one of the agent's role, which may do no more than read
    its views, where the host has the agent's user."""
    at = replace(session.target, database=wanted.database)
    user = agent.user(name, wanted.prefix) if session.superuser and session.target.local else None
    if user:
        with contextlib.suppress(LoginRefused):
            return connect(replace(at, user=AGENT, os_user=user, password=None))
    return connect(at)
