# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of backups, told to the ops database as it happens: what is asked for, begun, done, failed, removed.

Nothing depends on it. On a standby, and where the ops database is away, nothing is written there; the job `catalogue`
brings the rows to what is in the repository, where attempts and failures are noted as well.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from ..errors import PgOpsError
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..repository import attempts, backups, recorded
from ..repository.attempts import Attempt
from ..repository.backups import Kept
from ..repository.catalogue import guarded
from ..server.session import Session, connect

LONGEST = 2000
"""Characters of an error that are stored."""

STARTED = """
INSERT INTO pgops.backup (
    backup_id, status, backup_type, repository, generation, name, node, pid, reason, started_at
) VALUES (
    %(id)s, 'running', %(kind)s, %(repository)s, %(generation)s, %(name)s, %(node)s, %(pid)s, %(reason)s, now()
)
ON CONFLICT (backup_id) DO UPDATE SET
    status = 'running', backup_type = excluded.backup_type, repository = excluded.repository,
    generation = excluded.generation, name = excluded.name, node = excluded.node, pid = excluded.pid,
    reason = excluded.reason, started_at = excluded.started_at, ended_at = NULL, error_message = NULL
"""
FAILED = """
UPDATE pgops.backup
SET status = 'failed', pid = NULL, ended_at = now(), error_message = left(%(message)s, %(longest)s)
WHERE backup_id = %(id)s AND status IN ('requested', 'running')
"""
EXPIRED = """
UPDATE pgops.backup SET status = 'expired', expired_at = now()
WHERE backup_id = ANY (%(ids)s::uuid[]) AND status = 'completed'
"""
REQUESTED = """
SELECT b.backup_id::text AS id, b.backup_type AS kind, b.compressed
FROM pgops.backup AS b WHERE b.status = 'requested' ORDER BY b.requested_at
"""
EXPIRY = """
SELECT e.requested_at IS NOT NULL AND (e.ended_at IS NULL OR e.ended_at < e.requested_at) AS requested,
       e.forecast_at IS NULL OR e.forecast_at < now() - interval '1 hour' OR e.forecast_at < (
           SELECT max(greatest(b.ended_at, b.expired_at)) FROM pgops.backup AS b) AS outdated
FROM pgops.expiry AS e
"""
EXPIRING = "UPDATE pgops.expiry SET started_at = clock_timestamp(), node = %s, ended_at = NULL, error_message = NULL"
EXPIRY_ENDED = """
UPDATE pgops.expiry SET ended_at = clock_timestamp(), error_message = left(%(message)s, %(longest)s)
"""
FORECAST = "UPDATE pgops.expiry SET releasable = %s, releasable_bytes = %s, forecast_at = clock_timestamp()"
UNTIL = """
UPDATE pgops.backup SET retention_until = n.until
FROM unnest(%s::uuid[], %s::timestamptz[]) AS n (id, until)
WHERE backup_id = n.id AND retention_until IS DISTINCT FROM n.until
"""


@dataclass(frozen=True)
class Request:
    """A backup that somebody has asked for in SQL; ``compressed``: as is configured."""

    id: str
    kind: str
    compressed: bool


@dataclass(frozen=True)
class Asked:
    """What has been asked for in SQL, and whether it is to be found out again what an ``expiry`` would release."""

    backups: tuple[Request, ...] = ()
    expiry: bool = False
    outdated: bool = False


def requested(session: Session) -> Asked:
    """What is asked for, from a session in the ops database; also on a standby. Raises QueryFailed."""
    expiry = session.rows(EXPIRY)
    found = tuple(Request(**row) for row in session.rows(REQUESTED))
    if not expiry:
        return Asked(found)
    return Asked(found, bool(expiry[0]["requested"]), bool(expiry[0]["outdated"]))


def started(configuration: Configuration, generation: str, attempt: Attempt) -> list[str]:
    """A backup begins, inside `backups.alone`: what was running before has been killed. Returns warnings."""

    def write(session: Session) -> None:
        recorded.killed(session, generation, attempt.id)
        here = {"repository": configuration.repository, "generation": generation, "pid": os.getpid()}
        session.execute(STARTED, {**vars(attempt), **here})

    noted = _noted(configuration, generation, lambda place: attempts.begin(place, attempt))
    return noted + written(configuration, write)


def finished(configuration: Configuration, generation: str, kept: Kept) -> list[str]:
    """A backup is published, inside `backups.alone`. Returns warnings."""
    noted = _noted(configuration, generation, attempts.end)
    return noted + written(
        configuration, lambda session: recorded.complete(session, configuration.repository, generation, kept)
    )


def failed(configuration: Configuration, generation: str, attempt: Attempt, message: str) -> list[str]:
    """A backup, or the request of one, has failed. Returns warnings."""
    values = {"id": attempt.id, "message": message, "longest": LONGEST}
    noted = _noted(configuration, generation, lambda place: attempts.fail(place, attempt, message))
    return noted + written(configuration, lambda session: session.execute(FAILED, values))


def _noted(configuration: Configuration, generation: str, write: Callable[[str], None]) -> list[str]:
    """Note it in the repository; why that could not be done."""
    try:
        write(backups.prepared(configuration.repository, generation))
    except PgOpsError as error:
        return [f"It could not be noted in the repository: {error}"]
    return []


def expired(configuration: Configuration, ids: Iterable[str]) -> list[str]:
    """Backups were removed by an expiry. Returns warnings."""
    gone = list(ids)
    return written(configuration, lambda session: session.execute(EXPIRED, {"ids": gone})) if gone else []


def expiring(configuration: Configuration) -> list[str]:
    """An expiry that was asked for begins. Returns warnings."""
    return written(configuration, lambda session: session.execute(EXPIRING, [configuration.node]))


def expiry_ended(configuration: Configuration, message: str = "") -> list[str]:
    """It is over, for a ``message`` where it has failed. Returns warnings."""
    values = {"message": message or None, "longest": LONGEST}
    return written(configuration, lambda session: session.execute(EXPIRY_ENDED, values))


def forecast(
    configuration: Configuration, releasable: int, releasable_bytes: int, until: dict[str, datetime]
) -> list[str]:
    """How many backups an expiry would remove now, and of how many bytes; and by their UUIDs until when retention
    keeps backups. Returns warnings."""

    def write(session: Session) -> None:
        session.execute(FORECAST, [releasable, releasable_bytes])
        session.execute(UNTIL, [list(until), list(until.values())])

    return written(configuration, write)


def written(configuration: Configuration, write: Callable[[Session], Any]) -> list[str]:
    """Write into the ops database of the local server, if that is the primary; why it could not be done."""
    try:
        with connect(endpoints.superuser(configuration, "backup")) as session:
            if not session.in_recovery:
                with guarded(session):
                    write(session)
    except PgOpsError as error:
        return [f"The ops database was not told; the job catalogue does it once that is possible: {error}"]
    return []
