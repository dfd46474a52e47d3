# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which backup is being taken, and which have failed, noted in a generation of a repository: a standby that is backed
up cannot tell the ops database. The job `catalogue` of the primary does."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

from ..host import files
from ..host.files import File
from . import manifests

NOTE, LOCK = "attempts.json", "attempts.lock"
FORMAT = 1
MOST = 20
"""Failures that are kept, the last ones."""
PATIENCE = 10.0
"""Seconds to wait for who writes the note, which takes moments."""
LONGEST = 2000
"""Characters of an error."""
DIED = "Its process ended before it was done: it was killed, or its host went down."


@dataclass(frozen=True)
class Attempt:
    """A backup that is or was to be taken: its UUID, its kind of manifests.KINDS, and the node that it is of;
    ``name`` is that of its directory, '' where it did not come so far, ``reason`` why it is of this kind.
    ``ended_at`` and ``message`` are of one that has failed."""

    id: str
    kind: str
    node: str
    name: str
    reason: str
    started_at: datetime
    ended_at: datetime | None = None
    message: str = ""


@dataclass(frozen=True)
class Attempts:
    """The one that is being taken, or was when its process was killed, and those that have failed, the last ones
    last."""

    running: Attempt | None = None
    failed: tuple[Attempt, ...] = ()

    def failing(self, attempt: Attempt) -> Attempts:
        """The same with one that has failed."""
        running = None if self.running is None or self.running.id == attempt.id else self.running
        if any(one.id == attempt.id for one in self.failed):
            return replace(self, running=running)
        return Attempts(running, (*self.failed, attempt)[-MOST:])


def read(place: str) -> Attempts:
    """The note in a directory of backups; one that cannot be read says nothing."""
    try:
        data = json.loads(files.contents(os.path.join(place, NOTE)))
        running = _attempt(data["running"]) if data["running"] else None
        return Attempts(running, tuple(map(_attempt, data["failed"])))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return Attempts()


def _attempt(data: Mapping[str, Any]) -> Attempt:
    ended = manifests.read_time(data["ended_at"]) if data["ended_at"] else None
    texts = {name: str(data[name]).replace("\0", "") for name in ("node", "name", "reason", "message")}
    if data["kind"] not in manifests.KINDS:
        raise ValueError(f"{data['kind']} is no kind of backup")
    began = manifests.read_time(data["started_at"])
    return Attempt(str(uuid.UUID(data["id"])), data["kind"], **texts, started_at=began, ended_at=ended)


def begin(place: str, attempt: Attempt) -> None:
    """One begins; another that is still noted was killed. To be used inside `backups.alone`. Raises HostFailed."""
    with files.exclusive(os.path.join(place, LOCK), PATIENCE):
        before = read(place)
        left = before.running
        if left is not None:
            before = before.failing(replace(left, ended_at=datetime.now(timezone.utc), message=DIED))
        _write(place, replace(before, running=attempt))


def end(place: str) -> None:
    """The one that was begun is published. To be used inside `backups.alone`. Raises HostFailed."""
    with files.exclusive(os.path.join(place, LOCK), PATIENCE):
        _write(place, replace(read(place), running=None))


def fail(place: str, attempt: Attempt, message: str) -> None:
    """One has failed, whether it was begun or not. Raises HostFailed."""
    failed = replace(attempt, ended_at=datetime.now(timezone.utc), message=message[:LONGEST])
    with files.exclusive(os.path.join(place, LOCK), PATIENCE):
        _write(place, read(place).failing(failed))


def _write(place: str, attempts: Attempts) -> None:
    content = {
        "format": FORMAT,
        "running": _document(attempts.running) if attempts.running else None,
        "failed": [_document(one) for one in attempts.failed],
    }
    files.apply([File(os.path.join(place, NOTE), (json.dumps(content) + "\n").encode(), 0o640)])


def _document(attempt: Attempt) -> dict[str, Any]:
    ended = manifests.written(attempt.ended_at) if attempt.ended_at else None
    return {**asdict(attempt), "started_at": manifests.written(attempt.started_at), "ended_at": ended}
