# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One run at a time on a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from ..errors import Busy, PermissionMissing, QueryFailed
from . import managers
from .session import Session, connect
from .target import Target

HOLDER = """
SELECT l.pid AS process, a.usename AS role, a.application_name AS program, a.client_addr::text AS address
FROM pg_locks AS l LEFT JOIN pg_stat_activity AS a ON l.pid = a.pid
WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 2
  AND l.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
  AND l.classid::bigint = hashtext('pgops.fleet')::bigint & 4294967295 AND l.objid = 1
"""

LOCK = "SELECT pg_advisory_lock(hashtext('pgops.fleet'), 1)"


@contextlib.contextmanager
def locked(target: Target, needed_for: str, superuser: bool = True) -> Iterator[Session]:
    """A session, of a superuser if that is needed, that locks out other runs until it ends, if they log in to the
    same database.

    ``needed_for`` says in a message what needs the superuser. Raises PermissionMissing, Managed, Busy.
    """
    with connect(replace(target, lock_timeout=30.0)) as session:
        if superuser and not session.superuser:
            managers.refuse_ops_database(managers.manager(session))
            raise PermissionMissing(
                f"Role {session.user} is not a superuser: {needed_for}.",
                "Log in as a superuser: become root or postgres on the host, or set login_user (pgops_login_user in "
                "the inventory).",
            )
        try:
            session.value(LOCK)
        except QueryFailed as error:
            if error.sqlstate == "55P03":
                raise Busy(
                    f"Another run has been working on this server for 30 seconds: {_holder(session)}."
                ) from error
            raise
        yield session


def _holder(session: Session) -> str:
    found = session.row(HOLDER) or {}
    return ", ".join(f"{name} {value}" for name, value in found.items() if value) or "it has just ended"
