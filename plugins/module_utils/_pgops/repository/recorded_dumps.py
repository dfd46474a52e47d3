# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rows of dumps in the ops database: brought to what is in the repository, which is the truth about them.

All that is written here is written as the owner of the schema, on the primary.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import Busy
from ..server.session import Session
from . import dumps, removed, wal
from .attempts import DIED
from .dumps import Dumped, Stored
from .recorded import BACK, GONE, SHOWN, Found

KNOWN = """
SELECT d.dump_id::text AS id, d.database_key AS database, d.status, d.repository, d.name, d.pinned, d.damage,
       d.checksum, d.verified_at
FROM pgops.dump AS d WHERE d.generation = %s
"""
NOTE = """
INSERT INTO pgops.dump AS d (
    dump_id, status, database_key, database_name, repository, generation, name, node, from_standby, server_version,
    program_version, timeline, snapshot_lsn, encoding, compression, stored_bytes, data_bytes, checksum, pinned,
    damage, verified_at, started_at, ended_at
) VALUES (
    %(id)s, 'completed', %(database)s, %(shown)s, %(repository)s, %(generation)s, %(name)s, %(node)s,
    %(from_standby)s, %(server_version)s, %(program_version)s, %(timeline)s, %(snapshot)s::pg_lsn, %(encoding)s,
    %(compression)s, %(stored_bytes)s, %(data_bytes)s, %(checksum)s, %(pinned)s, %(damage)s, %(verified_at)s,
    %(started_at)s, %(completed_at)s
)
ON CONFLICT (dump_id) DO UPDATE SET
    status = excluded.status, database_key = excluded.database_key, database_name = excluded.database_name,
    repository = excluded.repository, generation = excluded.generation, name = excluded.name, node = excluded.node,
    from_standby = excluded.from_standby, server_version = excluded.server_version,
    program_version = excluded.program_version, timeline = excluded.timeline, snapshot_lsn = excluded.snapshot_lsn,
    encoding = excluded.encoding, compression = excluded.compression, stored_bytes = excluded.stored_bytes,
    data_bytes = excluded.data_bytes, checksum = excluded.checksum, pinned = excluded.pinned,
    damage = excluded.damage, verified_at = excluded.verified_at, started_at = excluded.started_at,
    ended_at = excluded.ended_at, pid = NULL, error_message = NULL, expired_at = NULL
"""
DAMAGED = """
UPDATE pgops.dump SET damage = %(reason)s
WHERE generation = %(generation)s AND database_key = %(database)s AND name = %(name)s AND status = 'completed'
  AND damage IS DISTINCT FROM %(reason)s
"""
EXPIRED = """
UPDATE pgops.dump SET status = 'expired', expired_at = now(), error_message = %(message)s
WHERE dump_id = %(id)s AND status = 'completed'
"""
KILLED = """
UPDATE pgops.dump SET status = 'failed', ended_at = now(), pid = NULL, error_message = %(message)s
WHERE generation = %(generation)s AND status = 'running'
"""
LET_GO = """
UPDATE pgops.dump SET status = 'failed', ended_at = now(), pid = NULL, error_message = %(message)s
WHERE dump_id = ANY (%(ids)s::uuid[]) AND status = 'running'
"""
FORGOTTEN = "DELETE FROM pgops.dump AS d WHERE d.status = 'completed' AND d.repository = %(path)s"
OLD = """
DELETE FROM pgops.dump AS d
WHERE d.status IN ('failed', 'expired') AND coalesce(d.expired_at, d.ended_at) < now() - (
    SELECT make_interval(days => s.value::integer) FROM pgops.setting AS s WHERE s.name = 'retention_days')
"""


@dataclass(frozen=True)
class Seen:
    """The dumps of a generation as they were looked at, and by their UUIDs the rows from before that. ``ours`` are
    the UUIDs of dumps that we have removed, by the keys of their databases; ``killed``: nobody takes any."""

    repository: str
    generation: str
    known: Mapping[str, Mapping[str, Any]]
    found: tuple[Dumped, ...]
    ours: Mapping[str, frozenset[str]]
    killed: bool


def known(session: Session, generation: str) -> dict[str, dict[str, Any]]:
    """The rows of a generation's dumps by their UUIDs, to be read before the repository. Raises QueryFailed."""
    return {row["id"]: row for row in session.rows(KNOWN, [generation])}


def look(repository: str, generation: str, before: Mapping[str, Mapping[str, Any]]) -> Seen:
    """Look at the dumps of a generation, whose rows were as they were ``before``. Raises HostFailed."""
    place = dumps.folder(repository, generation)
    keys = {row["database"] for row in before.values()}
    ours = {key: frozenset(removed.read(os.path.join(place, key)).backups) for key in keys}
    killed = False
    if any(row["status"] == "running" for row in before.values()):
        with contextlib.suppress(Busy), dumps.alone(place) if os.path.isdir(place) else contextlib.nullcontext():
            killed = True
    return Seen(repository, generation, before, dumps.databases(repository, generation), ours, killed)


def note(session: Session, seen: Seen) -> Found:
    """Bring the rows of a generation's dumps to what was seen in the repository. Those that have changed since are
    left to the next run.

    Raises QueryFailed.
    """
    now = known(session, seen.generation)
    errors: list[str] = []
    lost: list[str] = []
    with session.transaction():
        for dumped in seen.found:
            for stored in dumped.dumps:
                row = now.get(stored.dump.id)
                if row != seen.known.get(stored.dump.id):
                    continue
                if row is None or row != _as_known(seen.repository, stored):
                    session.execute(NOTE, _row(seen.repository, seen.generation, stored))
                if row is not None and row["status"] == "expired":
                    lost.append(f"dump {stored.name}: {BACK} Was the repository set back in time?")
            for name, reason in dumped.damaged.items():
                which = {"generation": seen.generation, "database": dumped.key, "name": name}
                session.execute(DAMAGED, {**which, "reason": reason})
                errors.append(f"dump {name} of database {dumps.shown(dumped.key)}: {reason}")
        lost += _expire(session, seen, now)
        if seen.killed:
            running = [row["id"] for row in seen.known.values() if row["status"] == "running"]
            session.execute(LET_GO, {"ids": running, "message": DIED})
    return Found(errors=(*errors, *lost), lost=tuple(lost))


def _expire(session: Session, seen: Seen, now: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Mark expired what is no longer there; what we have not removed."""
    lost = []
    present = {(dumped.key, one.dump.id) for dumped in seen.found for one in dumped.dumps}
    damaged = {(dumped.key, name) for dumped in seen.found for name in dumped.damaged}
    for row in seen.known.values():
        there = (row["database"], row["id"]) in present or (row["database"], row["name"]) in damaged
        if row["status"] != "completed" or row != now.get(row["id"]) or there:
            continue
        ours = row["id"] in seen.ours[row["database"]]
        session.execute(EXPIRED, {"id": row["id"], "message": None if ours else GONE})
        if not ours:
            lost.append(f"dump {row['name']}: {GONE} Was the repository set back in time?")
    return lost


def _as_known(repository: str, stored: Stored) -> dict[str, Any]:
    """The row of a dump that is as it is in the repository, as KNOWN has it."""
    return {
        "id": stored.dump.id,
        "database": stored.dump.database,
        "status": "completed",
        "repository": repository,
        "name": stored.name,
        "pinned": stored.pin,
        "damage": damage(stored),
        "checksum": stored.dump.checksum,
        "verified_at": None if stored.problems else stored.checked_at,
    }


def _row(repository: str, generation: str, stored: Stored) -> dict[str, Any]:
    """A dump as parameters of NOTE."""
    made = stored.dump
    return {
        **{name: value for name, value in vars(made).items() if name not in ("locale", "versions")},
        "shown": made.shown,
        "program_version": made.versions.get(dumps.METHOD),
        "repository": repository,
        "generation": generation,
        "name": stored.name,
        "snapshot": wal.lsn(made.snapshot_lsn),
        "pinned": stored.pin,
        "damage": damage(stored),
        "verified_at": None if stored.problems else stored.checked_at,
    }


def damage(stored: Stored) -> str | None:
    """What the last verification found wrong with a dump, None for nothing."""
    return "; ".join(stored.problems[:SHOWN]) or None


def complete(session: Session, repository: str, generation: str, stored: Stored) -> None:
    """Record one dump that has just been published. Raises QueryFailed."""
    session.execute(NOTE, _row(repository, generation, stored))


def killed(session: Session, generation: str) -> None:
    """Mark failed what is said to be running, inside `dumps.alone`: whoever ran has let go of its lock.

    Raises QueryFailed.
    """
    session.execute(KILLED, {"generation": generation, "message": DIED})


def forget(session: Session) -> None:
    """Forget old failures. Raises QueryFailed."""
    session.execute(OLD)
