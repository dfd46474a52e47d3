# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rows of backups in the ops database: brought to what is in the repository, which is the truth about them.

All that is written here is written as the owner of the schema, on the primary.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

from ..errors import Busy
from ..server.session import Session
from . import attempts, backups, inventory, removed, wal
from .attempts import DIED, Attempt, Attempts
from .backups import Kept, Listing
from .removed import Removed

SHOWN = 5
"""How many of several a message names."""
GONE = "It is no longer in the repository, and was not removed by pgops.fleet."
BACK = "It had been removed, and is in the repository again."

KNOWN = """
SELECT b.backup_id::text AS id, b.status, b.repository, b.name, b.pinned, b.damage, b.checksum, b.verified_at
FROM pgops.backup AS b WHERE b.generation = %s AND b.status <> 'requested'
"""
NOTE = """
INSERT INTO pgops.backup AS b (
    backup_id, status, backup_type, repository, generation, name, backup_method, parent_id, node, from_standby,
    server_version, timeline, start_lsn, stop_lsn, layout, compression, stored_bytes, data_bytes, checksum, pinned,
    damage, verified_at, started_at, ended_at
) VALUES (
    %(id)s, 'completed', %(kind)s, %(repository)s, %(generation)s, %(name)s, %(method)s, nullif(%(parent)s, '')::uuid,
    %(node)s, %(from_standby)s, %(server_version)s, %(timeline)s, %(start)s::pg_lsn, %(stop)s::pg_lsn, %(layout)s,
    %(compression)s, %(stored_bytes)s, %(data_bytes)s, %(checksum)s, %(pinned)s, %(damage)s,
    %(verified_at)s, %(started_at)s, %(completed_at)s
)
ON CONFLICT (backup_id) DO UPDATE SET
    status = excluded.status, backup_type = excluded.backup_type, repository = excluded.repository,
    generation = excluded.generation, name = excluded.name, backup_method = excluded.backup_method,
    parent_id = excluded.parent_id, node = excluded.node, from_standby = excluded.from_standby,
    server_version = excluded.server_version, timeline = excluded.timeline, start_lsn = excluded.start_lsn,
    stop_lsn = excluded.stop_lsn, layout = excluded.layout, compression = excluded.compression,
    stored_bytes = excluded.stored_bytes, data_bytes = excluded.data_bytes, checksum = excluded.checksum,
    pinned = excluded.pinned, started_at = excluded.started_at, ended_at = excluded.ended_at, pid = NULL,
    damage = excluded.damage, verified_at = excluded.verified_at, error_message = NULL, expired_at = NULL
"""
DAMAGED = """
UPDATE pgops.backup SET damage = %(reason)s
WHERE generation = %(generation)s AND name = %(name)s AND status = 'completed' AND damage IS DISTINCT FROM %(reason)s
"""
EXPIRED = """
UPDATE pgops.backup SET status = 'expired', expired_at = now(), error_message = %(message)s
WHERE backup_id = ANY (%(ids)s::uuid[]) AND status = 'completed'
"""
SEEN = """
UPDATE pgops.generation SET backups_seen_at = now(), backup_bytes = %(bytes)s WHERE name = %(generation)s
RETURNING recoverable IS NULL
"""
LOST = """
UPDATE pgops.generation SET lost_at = now(), lost = left(%(lost)s, %(longest)s) WHERE name = %(generation)s
"""
LONGEST = 2000
"""Characters of a text that is stored."""
KILLED = """
UPDATE pgops.backup SET status = 'failed', ended_at = now(), pid = NULL, error_message = %(message)s
WHERE generation = %(generation)s AND status = 'running' AND backup_id::text <> %(but)s
"""
LET_GO = """
UPDATE pgops.backup SET status = 'failed', ended_at = now(), pid = NULL, error_message = %(message)s
WHERE backup_id = ANY (%(ids)s::uuid[]) AND status = 'running'
"""
UNANSWERED = """
UPDATE pgops.backup SET status = 'failed', ended_at = now(),
    error_message = 'The request was not carried out within three days. Are jobs scheduled on the node that is '
                    'backed up?'
WHERE status = 'requested' AND requested_at < now() - interval '3 days'
"""
OLD = """
DELETE FROM pgops.backup AS b
WHERE b.status IN ('failed', 'expired') AND coalesce(b.expired_at, b.ended_at, b.requested_at) < now() - (
    SELECT make_interval(days => s.value::integer) FROM pgops.setting AS s WHERE s.name = 'retention_days')
"""
# Of a node that cannot write here. A failure that was forgotten (OLD) is not told again.
ATTEMPTED = """
INSERT INTO pgops.backup AS b (
    backup_id, status, backup_type, repository, generation, name, node, reason, started_at, ended_at, error_message
)
SELECT %(id)s, %(status)s, %(kind)s, %(repository)s, %(generation)s, nullif(%(name)s, ''), %(node)s, %(reason)s,
    %(started_at)s, n.ended_at, left(nullif(%(message)s, ''), %(longest)s)
FROM (SELECT %(ended_at)s::timestamptz AS ended_at) AS n
WHERE n.ended_at IS NULL OR n.ended_at > now() - (
    SELECT make_interval(days => s.value::integer) FROM pgops.setting AS s WHERE s.name = 'retention_days')
ON CONFLICT (backup_id) DO UPDATE SET
    status = excluded.status, repository = excluded.repository, generation = excluded.generation,
    name = excluded.name, node = excluded.node, reason = excluded.reason, started_at = excluded.started_at,
    ended_at = excluded.ended_at, error_message = excluded.error_message, pid = NULL
WHERE b.status IN ('requested', 'running')
"""


@dataclass(frozen=True)
class Found:
    """What a look at a generation's backups brought: whether anything has ``changed``, and what is wrong; ``lost`` is
    what shows that others have removed something, or set the repository back."""

    changed: bool = False
    errors: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True)
class Seen:
    """A generation of a repository as it was looked at, and by their UUIDs the rows of backups from before that;
    ``ours`` is what we have removed, ``tried`` are attempts to take backups. ``busy``: one is being taken or
    expired."""

    repository: str
    generation: str
    known: Mapping[str, Mapping[str, Any]]
    listing: Listing
    ours: Removed
    tried: Attempts
    busy: bool


def known(session: Session, generation: str) -> dict[str, dict[str, Any]]:
    """The rows of a generation's backups by their UUIDs, to be read before the repository. Raises QueryFailed."""
    return {row["id"]: row for row in session.rows(KNOWN, [generation])}


def look(repository: str, generation: str, segment_bytes: int, before: Mapping[str, Mapping[str, Any]]) -> Seen:
    """Look at the backups of a generation, whose rows were as they were ``before``. Raises HostFailed."""
    place = backups.folder(repository, generation)
    tried = attempts.read(place)
    busy = tried.running is not None or any(row["status"] == "running" for row in before.values())
    if busy and os.path.isdir(place):
        with contextlib.suppress(Busy), backups.alone(place):
            # Nobody takes it any more.
            tried, busy = attempts.read(place), False
    listing = inventory.own(backups.listed(place), generation, segment_bytes)
    return Seen(repository, generation, before, listing, removed.read(place), tried, busy)


def note(session: Session, seen: Seen) -> Found:
    """Bring the rows of a generation's backups to what was seen in the repository. Those that have changed since are
    left to the next run.

    Raises HostFailed, QueryFailed.
    """
    repository, generation, listing, ours = seen.repository, seen.generation, seen.listing, seen.ours
    now = known(session, generation)
    changed, lost = False, list[str]()
    with session.transaction():
        for kept in listing.backups:
            row = now.get(kept.manifest.id)
            if row != seen.known.get(kept.manifest.id):
                continue
            if row is None or row != _as_known(repository, kept):
                changed = True
                session.execute(NOTE, _row(repository, generation, kept))
            if row is not None and row["status"] == "expired":
                lost.append(f"backup {kept.name}: {BACK} Was the repository set back in time?")
        damage = {row["name"]: row["damage"] for row in now.values()}
        for name, reason in listing.damaged.items():
            changed = changed or damage.get(name) != reason
            session.execute(DAMAGED, {"generation": generation, "name": name, "reason": reason})
        missing = [row for row in _missing(seen.known, listing) if row == now.get(row["id"])]
        gone = [row for row in missing if row["id"] not in ours.backups]
        for message, rows in ((None, [row for row in missing if row not in gone]), (GONE, gone)):
            session.execute(EXPIRED, {"ids": [row["id"] for row in rows], "message": message})
        stored = sum(kept.manifest.stored_bytes for kept in listing.backups)
        new = bool(session.value(SEEN, {"bytes": stored, "generation": generation}))
    lost += [f"backup {row['name']}: {GONE} Was the repository set back in time?" for row in gone]
    _note_attempts(session, seen)
    damaged = [f"backup {name}: {reason}" for name, reason in listing.damaged.items()]
    return Found(changed or new or bool(missing), (*damaged, *lost), tuple(lost))


def note_lost(session: Session, generation: str, lost: Sequence[str]) -> None:
    """Remember what is gone from a generation that we have not removed. Raises QueryFailed."""
    if lost:
        session.execute(LOST, {"generation": generation, "lost": "; ".join(lost), "longest": LONGEST})


def _missing(known: Mapping[str, Mapping[str, Any]], listing: Listing) -> list[Mapping[str, Any]]:
    """The rows of backups that should be there and are not; one whose manifest is damaged is."""
    present = {kept.manifest.id for kept in listing.backups}
    return [
        row
        for row in known.values()
        if row["status"] == "completed" and row["id"] not in present and row["name"] not in listing.damaged
    ]


def _as_known(repository: str, kept: Kept) -> dict[str, Any]:
    """The row of a backup that is as it is in the repository, as KNOWN has it."""
    return {
        "id": kept.manifest.id,
        "status": "completed",
        "repository": repository,
        "name": kept.name,
        "pinned": kept.pin,
        "damage": damage(kept),
        "checksum": kept.manifest.checksum or None,
        "verified_at": None if kept.problems else kept.checked_at,
    }


def _row(repository: str, generation: str, kept: Kept) -> dict[str, Any]:
    """A backup as parameters of NOTE."""
    manifest = kept.manifest
    return {
        **{name: value for name, value in vars(manifest).items() if name not in ("tablespaces", "environment")},
        "repository": repository,
        "generation": generation,
        "name": kept.name,
        "start": wal.lsn(manifest.start_lsn),
        "stop": wal.lsn(manifest.stop_lsn),
        "pinned": kept.pin,
        "damage": damage(kept),
        "checksum": kept.manifest.checksum or None,
        "verified_at": None if kept.problems else kept.checked_at,
    }


def damage(kept: Kept) -> str | None:
    """What the last verification found wrong with a backup, None for nothing."""
    return "; ".join(kept.problems[:SHOWN]) or None


def complete(session: Session, repository: str, generation: str, kept: Kept) -> None:
    """Record one backup that has just been published. Raises QueryFailed."""
    session.execute(NOTE, _row(repository, generation, kept))


def killed(session: Session, generation: str, but: str = "") -> None:
    """Mark failed what is said to be running, apart from one backup; inside `backups.alone`, or for who is: whatever
    else ran has let go of its lock.

    Raises QueryFailed.
    """
    session.execute(KILLED, {"generation": generation, "but": but, "message": DIED})


def _note_attempts(session: Session, seen: Seen) -> None:
    """Record the attempts of nodes that cannot write here, and what was killed."""
    for attempt in seen.tried.failed:
        _note_attempt(session, seen, "failed", attempt)
    if not seen.busy:
        running = [row["id"] for row in seen.known.values() if row["status"] == "running"]
        session.execute(LET_GO, {"ids": running, "message": DIED})
    if seen.tried.running is not None and seen.busy:
        _note_attempt(session, seen, "running", seen.tried.running)
    elif seen.tried.running is not None:
        died = replace(seen.tried.running, ended_at=datetime.now(timezone.utc), message=DIED)
        _note_attempt(session, seen, "failed", died)


def _note_attempt(session: Session, seen: Seen, status: str, attempt: Attempt) -> None:
    row = seen.known.get(attempt.id)
    if row is None or (row["status"] == "running" and status == "failed"):
        here = {"repository": seen.repository, "generation": seen.generation, "longest": LONGEST}
        session.execute(ATTEMPTED, {**vars(attempt), **here, "status": status})


def forget(session: Session) -> None:
    """Give up on requests that nobody carries out, and forget old failures. Raises QueryFailed."""
    session.execute(UNANSWERED)
    session.execute(OLD)


def unexplained(ours: Removed, names: Iterable[str], segment_bytes: int) -> list[str]:
    """Those segments among names of files that are gone which we have not removed, in their order."""
    found = []
    for name in sorted(names):
        place = wal.place(name, segment_bytes)
        if place is not None and place.segment is not None and not ours.has(place.timeline, place.segment):
            found.append(name)
    return found


def told(names: Sequence[str]) -> str:
    """Segments that are gone, as a sentence."""
    few = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return (
        f"segments are no longer in the repository, and were not removed by pgops.fleet: {few}. Was the repository "
        "set back in time?"
    )
