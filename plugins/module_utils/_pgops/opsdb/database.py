# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ops database: it exists, is in UTF-8, belongs to our owner role, and only granted roles can connect."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..errors import Conflict, QueryFailed
from ..plan import difference
from ..server.changes import ServerChange, Statements
from ..server.names import AGENT, OPERATOR, OWNER, READER
from ..server.session import Session, identifier, listed, statement

INSUFFICIENT_PRIVILEGE = "42501"
"""SQLSTATE."""

ADMITTED = (AGENT, OPERATOR, READER)
WANTED_RIGHTS = tuple(f"{role} CONNECT" for role in ADMITTED)


def plan(current: Mapping[str, Any] | None, name: str) -> tuple[Statements, ...]:
    """What creates the database or corrects its rights.

    Rights granted to others by hand stay; those of PUBLIC are revoked.

    Raises Conflict for a database that is not ours or not in UTF-8.
    """
    database = identifier(name)
    changes: tuple[Statements, ...] = ()
    if current is None:
        # C sorts the same everywhere: no index of ours breaks when the host's libraries are upgraded.
        create = statement(
            "CREATE DATABASE {} OWNER {} TEMPLATE template0 ENCODING 'UTF8' LOCALE_PROVIDER libc "
            "LC_COLLATE 'C' LC_CTYPE 'C'",
            database,
            identifier(OWNER),
        )
        changes = (Statements(f"database {name}", None, {"encoding": "UTF8", "owner": OWNER}, (create,)),)
        rights: list[str] = ["PUBLIC CONNECT", "PUBLIC TEMPORARY"]
    else:
        _adoptable(current)
        rights = list(current["rights"])
    return changes + _rights(name, rights)


def _adoptable(current: Mapping[str, Any]) -> None:
    if current["half_dropped"]:
        raise Conflict(
            f"A DROP DATABASE of {current['name']} was interrupted; connections to it are no longer possible.",
            "Drop it again, for instance with pgops.fleet.remove and pgops_purge.",
        )
    if current["encoding"] != "UTF8":
        raise Conflict(
            f"Database {current['name']} has the encoding {current['encoding']}; the ops database needs UTF8.",
            "Choose another name (pgops_database), or drop this database.",
        )
    if current["owner"] != OWNER:
        raise Conflict(
            f"Database {current['name']} exists already and belongs to {current['owner']}.",
            f"Choose another name (pgops_database), or change its owner: ALTER DATABASE ... OWNER TO {OWNER}.",
        )


def _rights(name: str, present: list[str]) -> tuple[Statements, ...]:
    kept = [right for right in present if not right.startswith("PUBLIC ")]
    wanted = sorted({*kept, *WANTED_RIGHTS})
    database = identifier(name)
    grants = (
        statement("REVOKE ALL ON DATABASE {} FROM PUBLIC", database),
        statement("GRANT CONNECT ON DATABASE {} TO {}", database, listed([*map(identifier, ADMITTED)])),
    )
    before, after = {"rights": sorted(present)}, {"rights": wanted}
    return difference(Statements(f"rights on database {name}", before, after, grants))


@dataclass(frozen=True)
class DatabaseRemoval(ServerChange):
    """A database is dropped, and all sessions in it are ended."""

    name: str = field(compare=False)

    def apply(self, session: Session) -> None:
        """FORCE needs rights on the role of every session, and only a superuser has those on an autovacuum worker.
        Without FORCE the server ends such workers nevertheless, and waits five seconds for sessions."""
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
