# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_stat_statements: loaded and configured by settings, and the extension created in the wanted databases."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ..converge import read_plan_apply
from ..errors import Conflict, InvalidInput, Unsupported
from ..instance.layout import Layout
from ..plan import Plan
from ..server import foreign
from ..server.changes import ServerChange
from ..server.locking import locked
from ..server.names import AGENT, OWNER, READER
from ..server.ownership import checked
from ..server.session import Session, connect, identifier, statement
from ..server.target import Target
from ..settings import deploy as settings
from ..settings.deploy import Request, Settled
from ..settings.planning import Desired

NAME = "pg_stat_statements"
CAPABILITY = "statements"
NEEDED = "an extension cannot be created"

AVAILABLE = "SELECT default_version FROM pg_available_extensions WHERE name = 'pg_stat_statements'"
INSTALLED = """
SELECT e.extversion AS version, obj_description(e.oid, 'pg_extension') AS comment
FROM pg_extension AS e WHERE e.extname = 'pg_stat_statements'
"""
OWNED_BY = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
DATABASE = """
SELECT d.datallowconn AND NOT d.datistemplate AS usable, pg_get_userbyid(d.datdba) AS owner
FROM pg_database AS d WHERE d.datname = %s
"""
OURS = "Managed by pgops.fleet"


@dataclass(frozen=True)
class Found:
    """A database's extension. ``exists``: the database exists; ``version`` None: the extension does not; ``ours``:
    this collection has created it."""

    database: str
    exists: bool
    version: str | None = None
    ours: bool = False


@dataclass(frozen=True)
class ExtensionChange(ServerChange):
    """A change of the extension in a database, in one transaction."""

    database: str = field(compare=False)

    def apply(self, session: Session) -> None:
        """In a session of its own, with the login of ``session``."""
        with connect(replace(session.target, database=self.database)) as inside, inside.transaction():
            self.apply_inside(inside)

    @abstractmethod
    def apply_inside(self, inside: Session) -> None:
        """The same in a session with the database."""


@dataclass(frozen=True)
class NewExtension(ExtensionChange):
    """It is created."""

    def apply_inside(self, inside: Session) -> None:
        """Marked as ours, and usable for the ops database's roles."""
        # With the schema, since otherwise the search_path of the login decides.
        inside.execute(f"CREATE EXTENSION {NAME} WITH SCHEMA public")
        inside.execute(statement(f"COMMENT ON EXTENSION {NAME} IS {{}}", OURS))
        if inside.value(OWNED_BY) == OWNER:
            # In the ops database no other role may use the schema public.
            for role in (AGENT, READER):
                inside.execute(statement("GRANT USAGE ON SCHEMA public TO {}", identifier(role)))


@dataclass(frozen=True)
class NewerExtension(ExtensionChange):
    """It is updated to the version that the server has."""

    def apply_inside(self, inside: Session) -> None:
        """By its own scripts."""
        inside.execute(f"ALTER EXTENSION {NAME} UPDATE")


@dataclass(frozen=True)
class ExtensionRemoval(ExtensionChange):
    """It is dropped."""

    def apply_inside(self, inside: Session) -> None:
        """Fails if other objects depend on it."""
        inside.execute(f"DROP EXTENSION {NAME}")


def plan(found: Sequence[Found], available: str) -> tuple[ExtensionChange, ...]:
    """The changes that create the extension, or update it to the version that the server has."""
    return tuple(change for one in found for change in _extension(one, available))


def _extension(found: Found, available: str) -> list[ExtensionChange]:
    subject = f"extension {NAME} in database {found.database}"
    after = {"version": available}
    if found.version is None:
        return [NewExtension(subject, None, after, found.database)]
    if _number(found.version) < _number(available):
        return [NewerExtension(subject, {"version": found.version}, after, found.database)]
    return []


def removal(found: Sequence[Found]) -> tuple[ExtensionChange, ...]:
    """The changes that drop the extension if this collection has created it."""
    return tuple(
        ExtensionRemoval(f"extension {NAME} in database {one.database}", {"version": one.version}, None, one.database)
        for one in found
        if one.ours
    )


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split(".") if part.isdigit())


# --- reading


def read(session: Session, names: Sequence[str]) -> list[Found]:
    """The extension in each database."""
    return [_read(session, name) for name in names]


def _read(session: Session, name: str) -> Found:
    database = session.row(DATABASE, [name])
    if database is None:
        return Found(name, exists=False)
    if not database["usable"]:
        raise Conflict(f"Database {name} does not allow connections, or is a template.", "Remove it from databases.")
    with connect(replace(session.target, database=name)) as inside:
        foreign.refuse_event_triggers(inside)
        extension = inside.row(INSTALLED) or {}
    return Found(name, True, extension.get("version"), extension.get("comment") == OURS)


# --- all of it


def wanted(params: Mapping[str, Any]) -> dict[str, str | tuple[str, ...]]:
    """The settings that the options of pg_ops_statements need."""
    switches = {True: "on", False: "off"}
    return {
        "shared_preload_libraries": (NAME,),
        f"{NAME}.max": str(params["max"]),
        f"{NAME}.track": params["track"],
        f"{NAME}.track_planning": switches[params["track_planning"]],
        f"{NAME}.track_utility": switches[params["track_utility"]],
        "track_io_timing": switches[params["track_io_timing"]],
        "compute_query_id": params["compute_query_id"],
    }


def converge(target: Target, params: Mapping[str, Any], check_mode: bool) -> dict[str, Any]:
    """Read, plan, and unless in check mode apply; what pg_ops_statements returns.

    Raises Unsupported if the server has no such extension.
    """
    if params["max"] < 100:
        raise InvalidInput("max must be 100 or more.")
    names = [checked(params["database"]), *params["databases"]]
    layout = Layout(params["instance"], params["prefix"]) if params["instance"] else None
    absent = params["state"] == "absent"
    values = wanted(params) if params["configure"] or absent else {}
    wish = Request(CAPABILITY, Desired(values, params["restart"] == "if_required"), absent)
    if absent:
        dropped = _extensions(target, names, absent, check_mode)
        return _result(dropped, settings.settled(target, layout, wish, check_mode), {})
    with connect(target) as session:
        if session.value(AVAILABLE) is None:
            raise Unsupported(
                f"The server has no extension {NAME}.",
                "Install the package with PostgreSQL's contrib modules (Debian's server package has them).",
            )
    done = settings.settled(target, layout, wish, check_mode)
    return _result(_extensions(target, names, absent, check_mode), done, {"settings": wanted(params)})


def _extensions(target: Target, names: Sequence[str], absent: bool, check_mode: bool) -> Plan[ExtensionChange]:
    def review(found: Sequence[Found], _made: Plan[ExtensionChange]) -> None:
        missing = [one.database for one in found if not one.exists]
        if missing and not absent and not check_mode:
            raise Conflict(f"Database {', '.join(missing)} does not exist.", "Create it, or correct the name.")

    def apply(session: Session, made: Plan[ExtensionChange]) -> None:
        for change in made:
            change.apply(session)

    with locked(target, NEEDED) as session:
        if session.in_recovery:
            return Plan(skipped_reason="standby: the extension is replicated from its primary")
        available = str(session.value(AVAILABLE))
        return read_plan_apply(
            read=lambda: read(session, list(dict.fromkeys(names))),
            plan=lambda found: Plan(removal(found) if absent else plan(found, available)),
            apply=lambda _found, made: apply(session, made),
            check_mode=check_mode,
            review=review,
        )


def _result(extensions: Plan[ExtensionChange], done: Settled, more: Mapping[str, Any]) -> dict[str, Any]:
    return (done.plan + extensions).result(**done.details, **more)
