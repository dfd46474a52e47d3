# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is ours on a server: the ops database, and what is done in it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

from ..errors import Conflict, InvalidInput
from . import foreign
from .names import OWNER
from .session import Session, identifier, statement

READ = """
SELECT d.datname AS name, d.datconnlimit = -2 AS half_dropped,
       pg_encoding_to_char(d.encoding) AS encoding, d.datdba::regrole::text AS owner,
       ARRAY(SELECT concat_ws(' ', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
                              a.privilege_type)
             FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
             WHERE a.grantee <> d.datdba ORDER BY 1) AS rights
FROM pg_database AS d WHERE d.datname = %s
"""


def checked(name: str) -> str:
    """A database name that PostgreSQL and its access files can hold.

    Raises InvalidInput.
    """
    if not name or len(name.encode()) > 63 or any(ord(character) < 32 for character in name):
        raise InvalidInput(f"The database name {name!r} is empty, has line breaks, or is longer than 63 bytes.")
    if name in ("template0", "template1", "postgres"):
        raise InvalidInput(f"{name} cannot be the ops database.", "Use a separate database; the default is pgops.")
    return name


def ops_database(session: Session, name: str) -> dict[str, Any] | None:
    """A database's encoding, owner and rights, or None."""
    return session.row(READ, [name])


def is_ours(found: Mapping[str, Any] | None) -> bool:
    """Whether a database exists, was created by us, and can be connected to."""
    return bool(found and found["owner"] == OWNER and found["encoding"] == "UTF8" and not found["half_dropped"])


def refuse_foreign(session: Session) -> None:
    """Refuse a session in a database that is not ours, or in which code of others would run: none of other users is
    run as a superuser.

    Raises Conflict.
    """
    if not is_ours(ops_database(session, session.database)):
        raise Conflict(
            f"Database {session.database} was not created by pgops.fleet.",
            "Run site.yml on this host; it reports the problem.",
        )
    foreign.refuse(session)


@contextlib.contextmanager
def as_owner(session: Session) -> Iterator[None]:
    """Within a transaction, act as the owner of the ops database; after an error, until the transaction ends.

    The owner of our objects must not be a superuser: its functions would run as one.
    """
    become, leave = by_owner()
    session.execute(become)
    yield
    session.execute(leave)


def by_owner(*parts: Any) -> tuple[Any, ...]:
    """Parts of a script that are run as the owner of the ops database, within a transaction."""
    return (statement("SET LOCAL ROLE {}", identifier(OWNER)), *parts, "RESET ROLE")
