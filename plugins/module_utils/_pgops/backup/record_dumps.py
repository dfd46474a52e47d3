# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of dumps, told to the ops database as it happens. Nothing depends on it, as of backups (record.py)."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from ..instance.configuration import Configuration
from ..repository import dumps, recorded_dumps
from ..repository.dumps import Stored
from ..server.session import Session
from .record import LONGEST, written

STARTED = """
INSERT INTO pgops.dump (
    dump_id, status, database_key, database_name, repository, generation, name, node, pid, started_at
) VALUES (
    %(id)s, 'running', %(database)s, %(shown)s, %(repository)s, %(generation)s, %(name)s, %(node)s, %(pid)s, now()
)
"""
FAILED = """
UPDATE pgops.dump
SET status = 'failed', pid = NULL, ended_at = now(), error_message = left(%(message)s, %(longest)s)
WHERE dump_id = %(id)s AND status = 'running'
"""
EXPIRED = """
UPDATE pgops.dump SET status = 'expired', expired_at = now()
WHERE dump_id = ANY (%(ids)s::uuid[]) AND status = 'completed'
"""
UNTIL = """
UPDATE pgops.dump SET retention_until = n.until
FROM unnest(%s::uuid[], %s::timestamptz[]) AS n (id, until)
WHERE dump_id = n.id AND retention_until IS DISTINCT FROM n.until
"""


@dataclass(frozen=True)
class Started:
    """A dump that is being taken: its UUID, the key of its database; ``name`` is that of its directory."""

    id: str
    database: str
    generation: str
    name: str


def started(configuration: Configuration, dump: Started) -> list[str]:
    """A dump begins. Returns warnings."""
    here = {"repository": configuration.repository, "node": configuration.node, "pid": os.getpid()}
    values = {**vars(dump), **here, "shown": dumps.shown(dump.database)}
    return written(configuration, lambda session: session.execute(STARTED, values))


def killed(configuration: Configuration, generation: str) -> list[str]:
    """Inside `dumps.alone`: what is said to be running has been killed. Returns warnings."""
    return written(configuration, lambda session: recorded_dumps.killed(session, generation))


def finished(configuration: Configuration, generation: str, stored: Stored) -> list[str]:
    """A dump is published. Returns warnings."""
    return written(
        configuration, lambda session: recorded_dumps.complete(session, configuration.repository, generation, stored)
    )


def failed(configuration: Configuration, dump: str, message: str) -> list[str]:
    """A dump has failed. Returns warnings."""
    values = {"id": dump, "message": message, "longest": LONGEST}
    return written(configuration, lambda session: session.execute(FAILED, values))


def expired(configuration: Configuration, ids: Iterable[str], until: Mapping[str, datetime]) -> list[str]:
    """Dumps were removed by an expiry; others are kept by their age ``until`` a time, by UUID. Returns warnings."""

    def write(session: Session) -> None:
        session.execute(EXPIRED, {"ids": list(ids)})
        session.execute(UNTIL, [list(until), list(until.values())])

    return written(configuration, write)
