# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Carry out the changes inside the ops database, as the schema's owner in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from ..server import foreign, guard, ownership
from ..server.changes import ServerChange, Statements, apply, apply_together
from ..server.session import Session, statement
from .fingerprints import CATALOGUE, MARKS

PARTITIONED = ("query_usage", "rollup", "round")
"""What only migrations touch: to lock it would wait for a vacuum of any of the partitions."""


def install(
    inside: Session,
    tables: Sequence[str],
    migrated: Sequence[ServerChange],
    replaced: Sequence[ServerChange],
    configured: Sequence[Statements],
    rehearse: bool = False,
) -> None:
    """Carry out the changes of migrations, objects and contents; a rehearsal is rolled back. ``tables`` are there.
    Of the schema's functions, ``configured`` may call those that are ``replaced`` only (server/guard.py).

    Raises Busy if somebody holds a lock that is needed: who reads a view does until their transaction ends.
    """
    used = [name for name in tables if migrated or name not in PARTITIONED]
    with guard.guarded(inside, used, guard.WRITING, foreign.refuse_code, rollback=rehearse):
        apply(inside, migrated)
        apply(inside, replaced)
        with ownership.as_owner(inside):
            apply_together(inside, configured)
            _record(inside, tables=bool(migrated))


@contextlib.contextmanager
def without_timeout(session: Session) -> Iterator[None]:
    """Without statement_timeout: creating or dropping a database waits for a checkpoint."""
    session.execute("SET statement_timeout = 0")
    try:
        yield
    finally:
        session.execute(statement("SET statement_timeout = {}", round(session.target.statement_timeout * 1000)))


def _record(inside: Session, tables: bool) -> None:
    """Record the objects as they are now; ``tables`` only if a migration changed them, so that changes by others
    still show."""
    chosen = "object NOT LIKE 'table %%' OR %(tables)s OR server_major <> %(major)s"
    bound = {"tables": tables, "major": inside.major}
    inside.execute(f"DELETE FROM pgops.fingerprint WHERE {chosen}", bound)
    inside.execute(
        "INSERT INTO pgops.fingerprint (object, sha256, server_major, mark) "
        f"SELECT found.object, found.sha256, %(major)s, m.mark FROM ({CATALOGUE}) AS found JOIN ({MARKS}) AS m "
        "ON m.object = found.object "
        "ON CONFLICT (object) DO NOTHING",
        bound,
    )
