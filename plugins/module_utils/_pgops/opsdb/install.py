# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Carry out the changes inside the ops database, as the schema's owner in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from ..errors import Busy, QueryFailed
from ..server import ownership
from ..server.changes import ServerChange, Statements, apply, apply_together
from ..server.session import Session, statement
from .fingerprints import CATALOGUE, MARKS

LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE."""

HOLDERS = """
SELECT DISTINCT a.pid AS process, a.usename AS role
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid JOIN pg_class AS c ON c.oid = l.relation
WHERE l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
  AND c.relnamespace = to_regnamespace('pgops') AND l.granted AND l.pid <> pg_backend_pid()
ORDER BY 1 LIMIT 5
"""


def install(
    inside: Session,
    migrated: Sequence[ServerChange],
    replaced: Sequence[ServerChange],
    configured: Sequence[Statements],
    rights: Sequence[Statements] = (),
    rehearse: bool = False,
) -> None:
    """Carry out the changes of migrations, objects and contents, and of the owner's rights, as who runs this; a
    rehearsal is rolled back.

    Raises Busy if somebody holds a lock that is needed: who reads a view does until their transaction ends.
    """
    try:
        with inside.transaction(rollback=rehearse):
            apply(inside, migrated)
            apply(inside, replaced)
            apply(inside, rights)
            with ownership.as_owner(inside):
                apply_together(inside, configured)
                _record(inside, tables=bool(migrated))
    except QueryFailed as error:
        if error.sqlstate != LOCK_NOT_AVAILABLE:
            raise
        raise _busy(inside) from error


def _busy(inside: Session) -> Busy:
    found = inside.rows(HOLDERS)
    named = ", ".join(f"process {one['process']} of role {one['role']}" for one in found) or "they have just ended"
    hint = "Let them end their transactions, and run this again"
    ending = "; ".join(f"SELECT pg_terminate_backend({one['process']})" for one in found)
    return Busy(
        f"Sessions in database {inside.database} hold locks that the changes wait for: {named}.",
        f"{hint}. To end them: {ending};" if found else f"{hint}.",
    )


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
