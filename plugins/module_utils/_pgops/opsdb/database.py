# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ops database: that it is there, in UTF-8, owned by us, and open to nobody who was not let in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Conflict, QueryFailed
from ..plan import difference
from ..server.changes import ServerChange, Statements
from ..server.ownership import AGENT, OWNER, READER
from ..server.session import Session, identifier, listed, statement

INSUFFICIENT_PRIVILEGE = "42501"
"""SQLSTATE."""

WANTED_RIGHTS = (f"{AGENT} CONNECT", f"{READER} CONNECT")


def plan(current: Mapping[str, Any] | None, name: str, major: int) -> tuple[Statements, ...]:
    """What creates the database or mends its rights.

    Rights given to others by hand are left; what PUBLIC has is taken.

    Raises Conflict for a database that is not ours or not in UTF-8.
    """
    database = identifier(name)
    made: tuple[Statements, ...] = ()
    if current is None:
        # C sorts the same everywhere: no index of ours breaks when the host's libraries are upgraded.
        provider = "LOCALE_PROVIDER libc " if major >= 15 else ""
        create = statement(
            f"CREATE DATABASE {{}} OWNER {{}} TEMPLATE template0 ENCODING 'UTF8' {provider}"
            "LC_COLLATE 'C' LC_CTYPE 'C'",
            database,
            identifier(OWNER),
        )
        made = (Statements(f"database {name}", None, {"encoding": "UTF8", "owner": OWNER}, (create,)),)
        rights: list[str] = ["PUBLIC CONNECT", "PUBLIC TEMPORARY"]
    else:
        _adoptable(current)
        rights = list(current["rights"])
    return made + _rights(name, rights)


def _adoptable(current: Mapping[str, Any]) -> None:
    if current["half_dropped"]:
        raise Conflict(
            f"A DROP DATABASE of {current['name']} was interrupted, and nobody can connect to it any more.",
            "Drop it again, for instance with pgops.fleet.remove and pgops_purge.",
        )
    if current["encoding"] != "UTF8":
        raise Conflict(
            f"Database {current['name']} is encoded in {current['encoding']}; the ops database must be in UTF8.",
            "Give the ops database another name (pgops_database), or drop this one.",
        )
    if current["owner"] != OWNER:
        raise Conflict(
            f"Database {current['name']} exists already and belongs to {current['owner']}.",
            f"Give the ops database another name (pgops_database), or hand it over: "
            f"ALTER DATABASE ... OWNER TO {OWNER}.",
        )


def _rights(name: str, present: list[str]) -> tuple[Statements, ...]:
    kept = [right for right in present if not right.startswith("PUBLIC ")]
    wanted = sorted({*kept, *WANTED_RIGHTS})
    database = identifier(name)
    given = (
        statement("REVOKE ALL ON DATABASE {} FROM PUBLIC", database),
        statement("GRANT CONNECT ON DATABASE {} TO {}", database, listed([identifier(AGENT), identifier(READER)])),
    )
    before, after = {"rights": sorted(present)}, {"rights": wanted}
    return difference(Statements(f"rights on database {name}", before, after, given))


@dataclass(frozen=True)
class DatabaseRemoval(ServerChange):
    """A database is dropped, with everybody who is connected to it."""

    name: str = field(compare=False)

    def apply(self, session: Session) -> None:
        """To end everybody in it takes rights on their roles, and only a superuser has those on a worker of
        autovacuum. When it is not told to, the server ends such workers all the same, and waits five seconds for
        sessions."""
        try:
            session.execute(statement("DROP DATABASE {} WITH (FORCE)", identifier(self.name)))
        except QueryFailed as error:
            if error.sqlstate != INSUFFICIENT_PRIVILEGE:
                raise
            session.execute(statement("DROP DATABASE {}", identifier(self.name)))


def removal(current: Mapping[str, Any] | None) -> tuple[DatabaseRemoval, ...]:
    """What drops the database."""
    if current is None or current["owner"] != OWNER:
        return ()
    return (DatabaseRemoval(f"database {current['name']}", {"owner": current["owner"]}, None, current["name"]),)
