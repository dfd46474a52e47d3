# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Work in the ops database by a session with more rights than its owner: a transaction in which what would run with
these rights stays as it was looked at.

Who can act as the owner cannot be kept out, nor even be seen: a session that has become a role stays it after its
membership was revoked, and before PostgreSQL 16 CREATEROLE grants any. So no membership is locked, but what the work
uses: first the locks, which wait for all that is not yet committed, then the look, then the work. Whatever makes a
table run code (a trigger, rule, policy, constraint, index, child, or another table of its name) needs a lock on the
table that conflicts with ours, and to exchange the whole schema one on pg_namespace. Functions have no locks: such
sessions call none of the schema but those that the same transaction has created anew.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence

from ..errors import Busy, QueryFailed
from .locking import LEDGER
from .session import Session, identifier, listed, statement

READING = "ACCESS SHARE"
"""It conflicts with whatever changes what reading a table does."""
WRITING = "SHARE UPDATE EXCLUSIVE"
"""It conflicts with all DDL, and with no reading or writing."""

PATIENCE = 5.0
"""Seconds that a lock is waited for."""

SCHEMAS = "LOCK TABLE pg_catalog.pg_namespace IN SHARE MODE"
"""Renaming a schema locks nothing else; who only reads names goes on."""

LOCK_NOT_AVAILABLE = "55P03"
"""SQLSTATE."""

HOLDERS = """
SELECT DISTINCT a.pid AS process, a.usename AS role
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid JOIN pg_class AS c ON c.oid = l.relation
WHERE l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
  AND (c.relnamespace = to_regnamespace('pgops') OR c.oid = 'pg_namespace'::regclass AND l.mode <> 'AccessShareLock')
  AND l.granted AND l.pid <> pg_backend_pid()
ORDER BY 1 LIMIT 5
"""


@contextlib.contextmanager
def guarded(
    session: Session, tables: Sequence[str], mode: str, look: Callable[[Session], None], rollback: bool = False
) -> Iterator[None]:
    """A transaction that begins with locks on ``tables`` of the schema in a ``mode``, READING or WRITING, and then
    ``look``, which raises Conflict if code of others would run; a rehearsal is rolled back.

    Only tables that are locked may be used inside, or those that the transaction creates. A role that is no superuser
    may not lock schemas, and a standby has no such locks.

    Raises Busy if somebody holds a lock that is needed: who reads a view does until their transaction ends.
    """
    before = round(session.target.lock_timeout * 1000)
    try:
        with session.transaction(rollback=rollback):
            session.script(*_locks(session, tables, mode), statement("SET LOCAL lock_timeout = {}", before))
            look(session)
            yield
    except QueryFailed as error:
        if error.sqlstate != LOCK_NOT_AVAILABLE:
            raise
        raise _busy(session) from error


def _locks(session: Session, tables: Sequence[str], mode: str) -> list[object]:
    locks: list[object] = [statement("SET LOCAL lock_timeout = {}", round(PATIENCE * 1000))]
    if session.superuser and not session.in_recovery:
        locks.append(SCHEMAS)
    elif mode == WRITING and not session.superuser:
        # A run of such a role has locked the ledger in this mode already, in another session (server/locking.py).
        tables = [name for name in tables if f"pgops.{name}" != LEDGER]
    if tables:
        # Reading looks at a table itself; what is written may be anywhere below it.
        only = "ONLY " if mode == READING else ""
        named = listed([statement(f"{only}{{}}", identifier("pgops", name)) for name in sorted(tables)])
        locks.append(statement(f"LOCK TABLE {{}} IN {mode} MODE", named))
    return locks


def _busy(session: Session) -> Busy:
    found = session.rows(HOLDERS)
    named = ", ".join(f"process {one['process']} of role {one['role']}" for one in found) or "they have just ended"
    hint = "Let them end their transactions, and run this again"
    ending = "; ".join(f"SELECT pg_terminate_backend({one['process']})" for one in found)
    return Busy(
        f"Sessions in database {session.database} hold locks that the run waits for: {named}.",
        f"{hint}. To end them: {ending};" if found else f"{hint}.",
    )
