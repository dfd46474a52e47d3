# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ops database: that it is there, in UTF-8, owned by us, and open to nobody who was not let in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import Conflict
from ..plan import Change, difference
from ..server.ownership import AGENT, OWNER, READER
from ..server.session import identifier, listed, statement

WANTED_RIGHTS = (f"{AGENT} CONNECT", f"{READER} CONNECT")


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
