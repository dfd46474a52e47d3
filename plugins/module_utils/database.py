# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ops database: that it is there, in UTF-8, owned by us, and open to nobody who was not let in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .errors import Conflict, InvalidInput
from .plan import Change, difference
from .roles import AGENT, OWNER, READER
from .server import Session, identifier, listed, statement

READ = """
SELECT d.datname AS name, d.datconnlimit = -2 AS half_dropped,
       pg_encoding_to_char(d.encoding) AS encoding, d.datdba::regrole::text AS owner,
       ARRAY(SELECT concat_ws(' ', CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_get_userbyid(a.grantee) END,
                              a.privilege_type)
             FROM aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) AS a
             WHERE a.grantee <> d.datdba ORDER BY 1) AS rights
FROM pg_database AS d WHERE d.datname = %s
"""
LOOKED_INTO = "datallowconn AND NOT datistemplate AND datconnlimit <> -2"
"""The databases that collectors look into. Templates are left out: CREATE DATABASE waits for, and then fails on,
anybody who is connected to one. So are those whose DROP was interrupted (-2)."""
WANTED_RIGHTS = (f"{AGENT} CONNECT", f"{READER} CONNECT")


def checked(name: str) -> str:
    """A database name that PostgreSQL and its access files can hold.

    Raises InvalidInput.
    """
    if not name or len(name.encode()) > 63 or any(ord(character) < 32 for character in name):
        raise InvalidInput(f"The database name {name!r} is empty, has line breaks, or is longer than 63 bytes.")
    if name in ("template0", "template1", "postgres"):
        raise InvalidInput(f"The ops database cannot be {name}.", "Give it a name of its own: the default is pgops.")
    return name


def read(session: Session, name: str) -> dict[str, Any] | None:
    """The database's encoding, owner and rights, or None."""
    return session.row(READ, [name])


def ours(found: Mapping[str, Any] | None) -> bool:
    """Whether it is there, and one that we made and can connect to."""
    return bool(found and found["owner"] == OWNER and found["encoding"] == "UTF8" and not found["half_dropped"])


def plan(current: Mapping[str, Any] | None, name: str, major: int) -> tuple[Change, ...]:
    """What creates the database or mends its rights; steps are statements.

    Rights given to others by hand are left; what PUBLIC has is taken.

    Raises Conflict for a database that is not ours or not in UTF-8.
    """
    database = identifier(name)
    if current is None:
        # C sorts the same everywhere: no index of ours breaks when the host's libraries are upgraded.
        provider = "LOCALE_PROVIDER libc " if major >= 15 else ""
        create = statement(
            f"CREATE DATABASE {{}} OWNER {{}} TEMPLATE template0 ENCODING 'UTF8' {provider}"
            "LC_COLLATE 'C' LC_CTYPE 'C'",
            database,
            identifier(OWNER),
        )
        made: tuple[Change, ...] = (Change(f"database {name}", None, {"encoding": "UTF8", "owner": OWNER}, create),)
        rights: list[str] = ["PUBLIC CONNECT", "PUBLIC TEMPORARY"]
    else:
        _adoptable(current)
        made = ()
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


def _rights(name: str, present: list[str]) -> tuple[Change, ...]:
    kept = [right for right in present if not right.startswith("PUBLIC ")]
    wanted = sorted({*kept, *WANTED_RIGHTS})
    database = identifier(name)
    steps = [
        statement("REVOKE ALL ON DATABASE {} FROM PUBLIC", database),
        statement("GRANT CONNECT ON DATABASE {} TO {}", database, listed([identifier(AGENT), identifier(READER)])),
    ]
    return difference(f"rights on database {name}", {"rights": sorted(present)}, {"rights": wanted}, steps)


def removal(current: Mapping[str, Any] | None) -> tuple[Change, ...]:
    """What drops the database, with everybody who is connected to it."""
    if current is None or current["owner"] != OWNER:
        return ()
    step = statement("DROP DATABASE {} WITH (FORCE)", identifier(current["name"]))
    return (Change(f"database {current['name']}", {"owner": current["owner"]}, None, step),)


def refuse_foreign(session: Session) -> None:
    """Refuse a session in a database that is not ours: nothing of somebody else's is run as a superuser.

    Raises Conflict.
    """
    if not ours(read(session, session.database)):
        raise Conflict(
            f"The database {session.database} is not the one that pgops.fleet made.",
            "Run site.yml on this host; it says what is in the way.",
        )
