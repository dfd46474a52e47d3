# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The databases of a server that jobs look into, as they are known from outside of them."""

from __future__ import annotations

from dataclasses import dataclass

from . import encoding
from .names import RESTORING
from .session import Session

LOOKED_INTO = (
    f"datallowconn AND NOT datistemplate AND datconnlimit <> -2 AND NOT starts_with(datname::text, '{RESTORING}')"
)
"""Those in which collectors run. Templates are left out: CREATE DATABASE waits for sessions in its template, and then
fails. So are those whose DROP was interrupted (-2), and those that are being filled from a dump."""

QUERY = f"""
SELECT oid::bigint AS oid, {encoding.BYTES.format("datname")} AS name, datallowconn AND datconnlimit <> -2 AS open
FROM pg_database
"""


@dataclass(frozen=True)
class Database:
    """A database; ``name`` is what a Target takes, and may have bytes that are not UTF-8; ``open``: it can be
    connected to."""

    name: str
    oid: int
    open: bool = True

    @property
    def shown(self) -> str:
        """Its name as it is stored and shown."""
        return encoding.readable(self.name)


def present(session: Session) -> list[Database]:
    """All databases, in the order of their creation.

    Raises QueryFailed.
    """
    return _read(session, f"{QUERY} ORDER BY oid")


def looked_into(session: Session) -> list[Database]:
    """Those that are looked into, in the order of their creation.

    Raises QueryFailed.
    """
    return _read(session, f"{QUERY} WHERE {LOOKED_INTO} ORDER BY oid")


def _read(session: Session, query: str) -> list[Database]:
    return [Database(encoding.text(bytes(row["name"])), int(row["oid"]), row["open"]) for row in session.rows(query)]
