# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the collection's modules have changed on an instance: written on its host by who changed it, and read by the
agent, which records it as events.

A file with a line of JSON for each module that changed something. It is no part of what is declared, as the host's
log is none: nothing is written in check mode, nor where the instance has no agent, which would read it.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

from ..errors import PgOpsError
from ..version import VERSION
from . import configuration
from .layout import Layout

LARGEST = 128 * 1024
"""Bytes after which the older half of the file goes."""
MOST, LONGEST = 20, 200
"""Changes that a line has, and characters of each."""


@dataclass(frozen=True)
class Deployment:
    """``module`` of a version of the collection has made these ``changes`` at a time, as ISO 8601 has it; ``more`` is
    how many it made besides."""

    at: str
    module: str
    version: str
    changes: tuple[str, ...] = ()
    more: int = 0


def note(module: str, params: Mapping[str, Any], changes: Sequence[str]) -> None:
    """Write down what a module has changed, for each instance that its arguments name; a file that cannot be written
    is left: the change is made."""
    made = Deployment(
        datetime.now(timezone.utc).isoformat(timespec="milliseconds"),
        module,
        VERSION,
        tuple(str(one)[:LONGEST] for one in changes[:MOST]),
        max(0, len(changes) - MOST),
    )
    line = (json.dumps(asdict(made)) + "\n").encode()
    for layout in concerned(params):
        with contextlib.suppress(OSError):
            _append(layout.deployments, line)


def concerned(params: Mapping[str, Any]) -> list[Layout]:
    """The instances with an agent on this host that a module's arguments name, by their names or by where their
    server listens."""
    prefix = str(params.get("prefix") or "/")
    named = [one["name"] for one in params.get("instances") or () if one.get("name")]
    named += [params["instance"]] if params.get("instance") else []
    if not named and "login_port" in params:
        named = _listening(prefix, str(params.get("login_host") or ""), int(params["login_port"]))
    found: list[Layout] = []
    for name in named:
        with contextlib.suppress(PgOpsError):
            found.append(Layout(str(name), prefix))
    return [layout for layout in found if os.path.isdir(layout.state)]


def _listening(prefix: str, host: str, port: int) -> list[str]:
    """The instances whose agents know their server there."""
    folder = Layout("any", prefix).configurations
    found: list[str] = []
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        with contextlib.suppress(PgOpsError):
            known = configuration.load(Layout(name, prefix))
            local = not host or host.startswith("/")
            if known.port == port and (not known.host if local else known.host == host):
                found.append(name)
    return found


def _append(path: str, line: bytes) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o644), "r+b", buffering=0) as file:
        file.seek(0)
        held = file.read(2 * LARGEST)
        if len(held) + len(line) > LARGEST:
            newer = held[len(held) // 2 :].partition(b"\n")[2]
            file.truncate(0)
            line = newer + line
        file.write(line)


def read(layout: Layout, since: float) -> list[Deployment]:
    """What was changed since a Unix time, the oldest first; nothing of lines that cannot be read."""
    try:
        with open(layout.deployments, "rb", opener=_opened) as file:
            lines = file.read(2 * LARGEST).splitlines() if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else []
    except OSError:
        return []
    return [one for one in map(_parsed, lines) if one and datetime.fromisoformat(one.at).timestamp() > since]


def _opened(name: str, flags: int) -> int:
    return os.open(name, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _parsed(line: bytes) -> Deployment | None:
    try:
        data = json.loads(line)
        if datetime.fromisoformat(data["at"]).timestamp() > time.time() + 86_400:
            return None
        changes = tuple(str(one)[:LONGEST] for one in data["changes"][:MOST])
        return Deployment(str(data["at"]), str(data["module"]), str(data["version"]), changes, int(data["more"]))
    except (ValueError, TypeError, KeyError, RecursionError, OverflowError):
        return None
