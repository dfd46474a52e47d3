# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recovery drills as they are remembered: in notes, and in the ops database.

KEEPING/drills.json                   the last drills of the instance on this host, and the one that runs
REPOSITORY/GENERATION/drills.json     those of all nodes, which the job `catalogue` tells the ops database

A standby cannot write to the ops database, and it may be away: nothing depends on it.
"""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

from ..host import files
from ..host.files import File
from ..server.session import Session
from . import manifests

PASSED, FAILED, NOT_RUN = "passed", "failed", "not_run"
STATUSES = (PASSED, FAILED, NOT_RUN)
KILLED = "killed"
"""The reason of a drill whose process ended before it was done."""
DIED = "Its process ended before it was done: it was killed, or its host went down."
NOTE, LOCK = "drills.json", "drills.lock"
FORMAT = 1
MOST = 20
"""Drills that a note has, the last ones."""
PATIENCE = 10.0
"""Seconds to wait for who writes the note, which takes moments."""
LONGEST = 2000
"""Characters of a text."""

KNOWN = "SELECT d.drill_id::text AS id FROM pgops.drill AS d WHERE d.drill_id = ANY (%s::uuid[])"
INSERT = """
INSERT INTO pgops.drill (
    drill_id, node, host, repository, generation, backup_id, backup_name, status, reason, error_message, started_at,
    completed_at, phases, rto_seconds, rpo_seconds, rpo_bytes, checks, place, timeline, reached_lsn, reached_time
)
SELECT %(id)s, %(node)s, %(host)s, %(repository)s, nullif(%(generation)s, ''), nullif(%(backup)s, '')::uuid,
    nullif(%(backup_name)s, ''), %(status)s, nullif(%(reason)s, ''), nullif(%(message)s, ''), %(started_at)s,
    n.completed_at, %(phases)s::jsonb, %(rto)s, %(rpo)s, %(rpo_bytes)s, %(checks)s::jsonb, %(place)s, %(timeline)s,
    nullif(%(lsn)s, '')::pg_lsn, %(reached)s
FROM (SELECT %(completed_at)s::timestamptz AS completed_at) AS n
-- One that was forgotten is not told again.
WHERE n.completed_at > now() - (
    SELECT make_interval(days => s.value::integer) FROM pgops.setting AS s WHERE s.name = 'rollup_days')
ON CONFLICT (drill_id) DO NOTHING
"""
OLD = """
DELETE FROM pgops.drill AS d WHERE d.completed_at < now() - (
    SELECT make_interval(days => s.value::integer) FROM pgops.setting AS s WHERE s.name = 'rollup_days')
"""


@dataclass(frozen=True)
class Drill:
    """A drill: its UUID, the node and host that it ran on, and what came of it.

    ``status`` is one of STATUSES, '' while it runs, and ``reason`` a word for one that did not pass. ``phases`` are
    seconds by the phases of a restore, ``rto`` those until the first query was answered, ``rpo`` and ``rpo_bytes``
    what would have been lost at most, None where that is not known. ``checks`` have a name, seconds, a detail, and
    whether they passed, None for what could not be checked. ``lsn`` and ``reached`` are the end of what was replayed
    and the time of its last commit.
    """

    id: str
    node: str
    host: str
    started_at: datetime
    repository: str = ""
    generation: str = ""
    backup: str = ""
    backup_name: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""
    completed_at: datetime | None = None
    phases: Mapping[str, float] = field(default_factory=dict)
    rto: float | None = None
    rpo: float | None = None
    rpo_bytes: int | None = None
    checks: tuple[Mapping[str, Any], ...] = ()
    place: str = ""
    timeline: int | None = None
    lsn: str = ""
    reached: datetime | None = None

    def ended(self, status: str, reason: str, message: str, when: datetime) -> Drill:
        """The same with what came of it."""
        return replace(self, status=status, reason=reason, message=message[:LONGEST], completed_at=when)

    def document(self) -> dict[str, Any]:
        """As notes have it."""
        times = {
            name: manifests.written(when) if when else None
            for name, when in (
                ("started_at", self.started_at),
                ("completed_at", self.completed_at),
                ("reached", self.reached),
            )
        }
        return {**asdict(self), "checks": [dict(one) for one in self.checks], **times}

    def row(self) -> dict[str, Any]:
        """As parameters of INSERT."""
        whole = {"phases": json.dumps(dict(self.phases)), "checks": json.dumps([dict(one) for one in self.checks])}
        return {**vars(self), **whole}


@dataclass(frozen=True)
class Drills:
    """The drill that runs, or did when its process was killed, and those that are over, the last ones last."""

    running: Drill | None = None
    over: tuple[Drill, ...] = ()

    def with_one(self, drill: Drill) -> Drills:
        """The same with one that is over, in the place of what is known of it."""
        running = None if self.running is not None and self.running.id == drill.id else self.running
        return Drills(running, (*(one for one in self.over if one.id != drill.id), drill)[-MOST:])


def read(folder: str) -> Drills:
    """The note in a directory; one that cannot be read says nothing."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError, AttributeError):
        data = json.loads(files.contents(os.path.join(folder, NOTE), follow=False))
        if data["format"] == FORMAT:
            return Drills(_drill(data["running"]) if data["running"] else None, tuple(map(_drill, data["over"])))
    return Drills()


def _drill(data: Mapping[str, Any]) -> Drill:
    """Raises ValueError, KeyError, TypeError and AttributeError."""
    words = ("node", "host", "repository", "generation", "backup", "backup_name", "status", "reason", "message")
    known: dict[str, Any] = {name: str(data[name]).replace("\0", "") for name in (*words, "place", "lsn")}
    if known["status"] not in (*STATUSES, ""):
        raise ValueError(f"{known['status']} is no status of a drill")
    for names, read_one in (
        (("started_at", "completed_at", "reached"), manifests.read_time),
        (("rto", "rpo"), float),
        (("rpo_bytes", "timeline"), int),
    ):
        known.update({name: None if data[name] is None else read_one(data[name]) for name in names})
    known["phases"] = {str(name): float(seconds) for name, seconds in data["phases"].items()}
    known["checks"] = tuple(dict(one) for one in data["checks"])
    if known["started_at"] is None:
        raise ValueError("a drill has a beginning")
    return Drill(id=str(uuid.UUID(data["id"])), **known)


def begin(folder: str, drill: Drill) -> None:
    """Note that a drill begins. Raises HostFailed."""
    with files.exclusive(os.path.join(folder, LOCK), PATIENCE):
        _write(folder, replace(read(folder), running=drill))


def add(folder: str, drills: Iterable[Drill]) -> None:
    """Note drills that are over, those that are known already anew. Raises HostFailed."""
    with files.exclusive(os.path.join(folder, LOCK), PATIENCE):
        found = read(folder)
        for drill in drills:
            found = found.with_one(drill)
        _write(folder, found)


def _write(folder: str, drills: Drills) -> None:
    content = {
        "format": FORMAT,
        "running": drills.running.document() if drills.running else None,
        "over": [one.document() for one in drills.over],
    }
    files.apply([File(os.path.join(folder, NOTE), (json.dumps(content) + "\n").encode(), 0o640)])


def tell(session: Session, drills: Iterable[Drill]) -> int:
    """Record those drills that are over and are not known, as the owner of the schema on the primary; how many.

    Raises QueryFailed.
    """
    over = [one for one in drills if one.status]
    known = {row["id"] for row in session.rows(KNOWN, [[one.id for one in over]])} if over else set()
    new = [one for one in over if one.id not in known]
    for one in new:
        session.execute(INSERT, one.row())
    return len(new)


def forget(session: Session) -> None:
    """Forget old drills. Raises QueryFailed."""
    session.execute(OLD)
