# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who waits for whom while a database is dumped: a dump holds a lock on each table until its end, which lets all
others read and write, and makes ALTER TABLE wait."""

from __future__ import annotations

from ..errors import Conflict
from ..server.session import Session
from .dump_options import VARIABLE, Dumps

OURS = """
SELECT a.pid, a.application_name AS name FROM pg_stat_activity AS a
WHERE a.usename = current_user AND a.application_name LIKE %s
"""
END = "SELECT pg_terminate_backend(%s)"
WAITING = """
WITH ours AS MATERIALIZED (
    SELECT a.pid FROM pg_stat_activity AS a WHERE a.usename = current_user AND a.application_name = %(name)s
),

locks AS MATERIALIZED (SELECT l.* FROM pg_locks AS l WHERE l.locktype = 'relation'),

held AS (SELECT l.* FROM locks AS l JOIN ours AS o ON o.pid = l.pid WHERE l.granted)

SELECT w.pid, w.pid IN (SELECT o.pid FROM ours AS o) AS own, w.relation::bigint AS relation,
       extract(epoch FROM clock_timestamp() - w.waitstart)::float8 AS seconds
FROM locks AS w
WHERE NOT w.granted AND w.waitstart IS NOT NULL AND (
    w.pid IN (SELECT o.pid FROM ours AS o)
    OR w.mode = 'AccessExclusiveLock' AND EXISTS (
        SELECT FROM held AS h WHERE h.database = w.database AND h.relation = w.relation))
ORDER BY w.waitstart
"""


def check(session: Session, application_name: str, declared: Dumps) -> None:
    """Look at the locks of the sessions that dump, by their name.

    Raises Conflict if they wait too long for another session, or another for them.
    """
    for row in session.rows(WAITING, {"name": application_name}):
        if row["own"] and row["seconds"] > declared.lock_seconds:
            raise Conflict(
                f"The dump waited {declared.lock_seconds:g} seconds for the relation with OID {row['relation']}, "
                "which another session has locked.",
                f"End that session, or raise lock_seconds of {VARIABLE}.",
            )
        if not row["own"] and 0 < declared.yield_seconds < row["seconds"]:
            raise Conflict(
                f"Process {row['pid']} waited {declared.yield_seconds:g} seconds to lock the relation with "
                f"OID {row['relation']}, which is being dumped: the dump was given up, to let it go on.",
                f"Dump at another time, or raise yield_seconds of {VARIABLE}.",
            )


def end(session: Session, application_name: str) -> None:
    """End the sessions of a dump that was given up: they hold their locks until they notice. Raises QueryFailed."""
    for row in session.rows(OURS, [application_name]):
        session.value(END, [row["pid"]])
