# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts of one instance: who it is, and the sections that its server answers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from .. import discovery
from ..errors import PgOpsError
from ..layout import Layout
from ..server import Session, Target, connect

SECTIONS: tuple[str, ...] = ()

IDENTITY = "SELECT current_setting('server_version'), (SELECT system_identifier::text FROM pg_control_system())"


@dataclass(frozen=True)
class Wanted:
    """What to gather. ``sizes``: whether databases are measured, which reads the sizes of all their files."""

    sections: tuple[str, ...]
    database: str = "pgops"
    sizes: bool = False


def read(found: discovery.Instance, target: Target, wanted: Wanted) -> dict[str, Any]:
    """An instance as one of ``instances`` in the contract. Never raises PgOpsError."""
    facts: dict[str, Any] = {
        "name": found.name,
        "host": None if target.local else target.host,
        "port": found.port,
        "socket_directory": found.socket_directory or None,
        "running": found.running,
        "version": found.version,
        "major": int(found.version) if found.version and found.version.isdigit() else None,
        "role": found.role,
        "system_identifier": found.system_identifier,
        "data_directory": found.data_directory,
        "credential": exists(Layout(found.name).passfile),
        "error": None,
    }
    if not found.running and target.local and target.host == found.socket_directory and found.socket_directory:
        return {**facts, "error": {"code": "unreachable", "message": "The server is down."}}
    try:
        with connect(target) as session:
            return {**facts, **_identity(session)}
    except PgOpsError as error:
        return {**facts, "error": described(error)}


def _identity(session: Session) -> dict[str, Any]:
    version, identifier = session.rows(IDENTITY)[0].values()
    return {
        "running": True,
        "version": version.split(" ")[0],
        "major": session.major,
        "role": "standby" if session.in_recovery else "primary",
        "system_identifier": identifier,
    }


def described(error: PgOpsError) -> dict[str, str]:
    """An error as the contract shows it."""
    return {"code": error.code, "message": str(error)[:1000]}


def exists(path: str) -> bool | None:
    """Whether something is at a path; None where that is out of sight."""
    try:
        os.stat(path)
    except FileNotFoundError:
        return False
    except OSError:
        return None
    return True
