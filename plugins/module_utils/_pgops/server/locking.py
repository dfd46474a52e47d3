# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run at a time on a server.

What is locked is nothing that an ordinary role, or user of the host, could hold: anybody can take an advisory lock.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from ..errors import Busy, LoginRefused, PermissionMissing, QueryFailed
from ..host.identity import acting_as
from . import managers
from .session import Session, connect, socket_owner
from .target import Target

PATIENCE = 30.0
"""Seconds that a run waits for another."""

CATALOGUE = "pg_catalog.pg_authid"
"""Of all servers, and closed to all but superusers: who may not write to a table can hold no lock on it that matters,
and of this one not even read. CREATE ROLE and the like go on meanwhile."""

LEDGER = "pgops.migration"
"""The same for its owner, for who is no superuser."""

OTHERS = """
SELECT a.pid AS process, a.usename AS role, a.application_name AS program, a.client_addr::text AS address
FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
WHERE l.granted AND l.locktype = 'relation' AND l.mode = 'ShareUpdateExclusiveLock' AND l.relation = to_regclass(%s)
  AND l.database IN (0, (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database()))
"""


AT_WORK = """
SELECT a.pid AS process, r.rolname AS role, a.application_name AS program, a.client_addr::text AS address
FROM pg_stat_get_activity(NULL) AS a JOIN pg_roles AS r ON r.oid = a.usesysid
WHERE a.pid <> pg_backend_pid() AND a.application_name = %s AND a.state <> 'idle'
  AND (r.rolsuper OR r.rolname = session_user)
"""


@contextlib.contextmanager
def locked(target: Target, needed_for: str, superuser: bool = True, ops_database: str = "") -> Iterator[Session]:
    """A session, of a superuser if that is needed, that locks out other runs on the server until it ends.

    ``needed_for`` says in a message what needs the superuser; who is none locks in the ``ops_database``, if there is
    one. Raises PermissionMissing, Managed, Busy.
    """
    with connect(replace(target, lock_timeout=PATIENCE)) as session:
        if superuser and not session.superuser:
            managers.refuse_ops_database(managers.manager(session))
            raise PermissionMissing(
                f"Role {session.user} is not a superuser: {needed_for}.",
                "Log in as a superuser: become root or postgres on the host, or set login_user (pgops_login_user in "
                "the inventory).",
            )
        with contextlib.ExitStack() as held:
            file = _lock_file(session)
            if file is not None:
                held.callback(os.close, file)
                _wait_for(file)
            elif not session.in_recovery:
                _hold(held, session, ops_database)
            _outlast_killed(session)
            yield session


def _lock_file(session: Session) -> int | None:
    """The open lock file of a local server, which it keeps beside its socket: it belongs to the server's user, and
    nobody else but root can open it. None where there is none like that.

    A standby locks no tables, so there the file is also taken where the server's group can read it.
    """
    owner = socket_owner(session.target) if session.target.local else None
    if owner is None:
        return None
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
    try:
        with acting_as(owner if os.geteuid() == 0 else None):
            file = os.open(f"{session.target.socket_path}.lock", flags)
    except OSError:
        return None
    found = os.fstat(file)
    closed = not found.st_mode & (stat.S_IRWXO if session.in_recovery else stat.S_IRWXO | stat.S_IRWXG)
    if stat.S_ISREG(found.st_mode) and found.st_uid == owner and closed:
        return file
    os.close(file)
    return None


def _wait_for(file: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise _busy(_process(file)) from None
            time.sleep(0.1)


def _outlast_killed(session: Session) -> None:
    """Wait until the server has ended what a run did that was killed: its lock is gone, but a statement goes on."""
    deadline = time.monotonic() + PATIENCE
    while found := session.row(AT_WORK, [session.target.application_name]):
        if time.monotonic() >= deadline:
            raise _busy(_named(found))
        time.sleep(0.1)


def _process(file: int) -> str:
    """Who holds the lock of a file, as the kernel lists it."""
    number = str(os.fstat(file).st_ino)
    with contextlib.suppress(OSError), open("/proc/locks", encoding="ascii") as lines:
        for words in (line.split() for line in lines):
            if len(words) > 5 and words[1] == "FLOCK" and words[5].rpartition(":")[2] == number:
                return f"process {words[4]} of this host"
    return "it has just ended"


def _hold(held: contextlib.ExitStack, session: Session, ops_database: str) -> None:
    """Hold a lock in a session of its own, whose transaction stays open meanwhile: it holds back no cleaning up."""
    table, database = (CATALOGUE, session.database) if session.superuser else (LEDGER, ops_database)
    if not database:
        return
    name = f"{session.target.application_name} lock"
    try:
        holder = held.enter_context(
            connect(replace(session.target, database=database, application_name=name, as_is=False))
        )
    except LoginRefused:
        return  # there is no such database yet
    if not session.superuser and not holder.value("SELECT to_regclass(%s)", [table]):
        return
    try:
        holder.execute("BEGIN")
        holder.execute(f"LOCK TABLE {table} IN SHARE UPDATE EXCLUSIVE MODE")
    except QueryFailed as error:
        if error.sqlstate == "42501":  # insufficient_privilege: what is missing is reported by who needs it
            holder.execute("ROLLBACK")
            return
        if error.sqlstate != "55P03":
            raise
        holder.execute("ROLLBACK")
        raise _busy(_named(holder.row(OTHERS, [table]) or {})) from error


def _named(holder: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in holder.items() if value)


def _busy(holder: str) -> Busy:
    return Busy(f"Another run has been working on this server for {PATIENCE:g} seconds: {holder}.")
