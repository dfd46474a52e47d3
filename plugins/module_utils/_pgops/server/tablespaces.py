# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tablespaces that the server itself cannot read: a link is gone, a directory is closed, a file system is broken.

Of these some functions of the server raise an error, for all that a query asks for, and others say 0. So each is
tried by itself, and queries leave out those that are in a setting of the session.
"""

from __future__ import annotations

from ..errors import QueryFailed
from .names import UNREADABLE
from .session import Session

ALL = "SELECT t.oid::bigint AS oid, t.spcname::text AS name, NULL::bigint AS relation FROM pg_tablespace AS t"
USED = """
SELECT t.oid::bigint AS oid, t.spcname::text AS name, c.oid::bigint AS relation
FROM pg_tablespace AS t CROSS JOIN LATERAL (
    SELECT c.oid FROM pg_class AS c
    WHERE c.reltablespace = t.oid AND c.relkind IN ('r', 'm', 't', 'i') AND c.relpages > 0
      AND NOT EXISTS (SELECT FROM pg_locks AS l WHERE l.relation = c.oid AND l.mode = 'AccessExclusiveLock')
    LIMIT 1
) AS c
"""
"""Those in which the database has something, with a relation that has had pages."""
OF_THE_SERVER = "('pg_default', 'pg_global')"

LOOK = "SELECT pg_tablespace_location(%(oid)s), (SELECT count(*) FROM pg_ls_tmpdir(%(oid)s))"
MEASURE = "SELECT pg_relation_size(%(relation)s) = 0"
LOCKED = "55P03"
"""SQLSTATE lock_not_available."""


def leave_out(session: Session, inside: bool) -> list[str]:
    """Have the queries of a session leave out the tablespaces that cannot be read; returns what is wrong with them.
    ``inside``: of those that the session's database uses, else of all.

    Raises QueryFailed if they cannot be listed.
    """
    found = {}
    for space in session.rows(f"{USED if inside else ALL} WHERE t.spcname NOT IN {OF_THE_SERVER} ORDER BY t.oid"):
        error = _error(session, space)
        if error:
            found[space["oid"]] = f"tablespace {space['name']} cannot be read: {error}"
    text = "".join(f",{oid}," for oid in found)
    session.value("SELECT set_config(%s, %s, false)", [UNREADABLE, text])
    return list(found.values())


def _error(session: Session, space: dict[str, object]) -> str:
    try:
        empty = session.value(LOOK if space["relation"] is None else MEASURE, space)
    except QueryFailed as error:
        return "" if error.sqlstate == LOCKED else error.message
    return "its files are missing" if empty is True else ""
