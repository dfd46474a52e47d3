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
from ..plan import Plan, changes
from ..server import foreign
from ..server.changes import ServerChange
from ..server.locking import locked
from ..server.names import AGENT, OWNER, READER
from ..server.ownership import checked
from ..server.session import Session, connect, statement
from ..server.target import Target
from ..settings import deploy as settings
from ..settings.deploy import Request, Settled
from ..settings.planning import Desired

NAME = "pg_stat_statements"
CAPABILITY = "statements"
NEEDED = "an extension cannot be created"

AVAILABLE = "SELECT default_version FROM pg_available_extensions WHERE name = 'pg_stat_statements'"
INSTALLED = """
WITH member AS (
    SELECT d.classid, d.objid FROM pg_depend AS d
    WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
      AND d.refobjid = (SELECT e.oid FROM pg_extension AS e WHERE e.extname = 'pg_stat_statements')
)

SELECT e.extversion AS version, obj_description(e.oid, 'pg_extension') AS comment, ARRAY(
    SELECT DISTINCT coalesce('view ' || w.ev_class::regclass, pg_describe_object(d.classid, d.objid, 0))
    FROM pg_depend AS d LEFT JOIN pg_rewrite AS w ON d.classid = 'pg_rewrite'::regclass AND w.oid = d.objid
    WHERE d.deptype = 'n'
      AND ((d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid)
           OR (d.refclassid, d.refobjid) IN (SELECT m.classid, m.objid FROM member AS m))
      AND (d.classid, d.objid) NOT IN (SELECT m.classid, m.objid FROM member AS m)
      AND coalesce(w.ev_class, 0) NOT IN (SELECT m.objid FROM member AS m WHERE m.classid = 'pg_class'::regclass)
    ORDER BY 1
) AS users
FROM pg_extension AS e WHERE e.extname = 'pg_stat_statements'
"""
LACKING = """
SELECT CASE
    WHEN to_regnamespace('public') IS NULL THEN 'has no schema public, in which the extension is created'
    WHEN to_regclass('public.pg_stat_statements') IS NOT NULL
        THEN 'has a relation public.pg_stat_statements that is not the extension''s'
    WHEN EXISTS (
        SELECT FROM pg_proc AS p
        WHERE p.pronamespace = to_regnamespace('public')
          AND p.proname IN ('pg_stat_statements', 'pg_stat_statements_info', 'pg_stat_statements_reset')
    ) THEN 'has functions public.pg_stat_statements... that are not the extension''s'
END
"""
# Only of the ops database, where these roles read it: elsewhere nobody of ours does. Who creates the extension grants
# that; it may be moved to another schema later, or have been there before.
CLOSED = """
SELECT format('USAGE ON SCHEMA %%I TO %%I', n.nspname, r.rolname) AS lacking
FROM pg_extension AS e JOIN pg_namespace AS n ON n.oid = e.extnamespace
CROSS JOIN pg_roles AS r
WHERE e.extname = 'pg_stat_statements' AND r.rolname = ANY (%(readers)s)
  AND NOT has_schema_privilege(r.oid, n.oid, 'USAGE')
UNION ALL
SELECT format('EXECUTE ON FUNCTION %%s TO %%I', p.oid::regprocedure, r.rolname)
FROM pg_extension AS e
JOIN pg_depend AS d ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid AND d.deptype = 'e'
JOIN pg_proc AS p ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid
CROSS JOIN pg_roles AS r
WHERE e.extname = 'pg_stat_statements' AND r.rolname = %(agent)s
  AND p.proname IN ('pg_stat_statements', 'pg_stat_statements_info')
  AND NOT has_function_privilege(r.oid, p.oid, 'EXECUTE')
ORDER BY 1
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
    this collection has created it; ``users`` are objects of others that use it. ``lacking`` is why it cannot be
    created, ``closed`` the rights, as in GRANT, without which our roles cannot read it."""

    database: str
    exists: bool
    version: str | None = None
    ours: bool = False
    users: tuple[str, ...] = ()
    lacking: str = ""
    closed: tuple[str, ...] = ()


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
        for right in _closed(inside):
            inside.execute(f"GRANT {right}")


@dataclass(frozen=True)
class Opening(ExtensionChange):
    """The roles of the ops database may read it, wherever it is."""

    def apply_inside(self, inside: Session) -> None:
        """What is lacking then is granted."""
        for right in _closed(inside):
            inside.execute(f"GRANT {right}")


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
    planned: list[ExtensionChange] = []
    if _number(found.version) < _number(available) and not found.users:
        planned.append(NewerExtension(subject, {"version": found.version}, after, found.database))
    if found.closed:
        granted = {"granted": list(found.closed)}
        planned.append(Opening(f"rights to {subject}", {"granted": []}, granted, found.database))
    return planned


def removal(found: Sequence[Found]) -> tuple[ExtensionChange, ...]:
    """The changes that drop the extension if this collection has created it."""
    return tuple(
        ExtensionRemoval(f"extension {NAME} in database {one.database}", {"version": one.version}, None, one.database)
        for one in found
        if one.ours and not one.users
    )


def left(found: Sequence[Found], available: str, absent: bool) -> tuple[str, ...]:
    """Warnings of what is left as it is, since objects of others use it, which an update or a removal would drop."""
    return tuple(
        f"The extension {NAME} in database {one.database} {'stays' if absent else f'stays at {one.version}'}: "
        f"{', '.join(one.users)} {'use' if len(one.users) > 1 else 'uses'} it. Drop what uses it, run this again, "
        "and create it anew."
        for one in found
        if one.users and one.version and (one.ours if absent else _number(one.version) < _number(available))
    )


def refuse_lacking(found: Sequence[Found], check_mode: bool) -> None:
    """Refuse databases in which the extension cannot be created, before anything is changed. In check mode one that
    does not exist may be created by what the check did not do.

    Raises Conflict.
    """
    missing = [one.database for one in found if not one.exists]
    if missing and not check_mode:
        raise Conflict(
            f"Database {', '.join(missing)} does not exist.",
            "Create it, or correct the name; pgops_statements_databases may have a list for each instance of a host.",
        )
    wrong = [f"database {one.database} {one.lacking}" for one in found if one.lacking]
    if wrong:
        raise Conflict(
            f"The extension {NAME} cannot be created: {'; '.join(wrong)}.",
            f"Mend that, or create the extension where you want it (CREATE EXTENSION {NAME} SCHEMA ...).",
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
        extension = inside.row(INSTALLED) or {"users": ()}
        lacking = "" if "version" in extension else inside.value(LACKING) or ""
        closed = tuple(_closed(inside))
    ours = extension.get("comment") == OURS
    return Found(name, True, extension.get("version"), ours, tuple(extension["users"]), lacking, closed)


def _closed(inside: Session) -> list[str]:
    if inside.value(OWNED_BY) != OWNER:
        return []
    return [row["lacking"] for row in inside.rows(CLOSED, {"readers": [AGENT, READER], "agent": AGENT})]


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
        if not session.in_recovery:  # before a setting is changed, and the server restarted for it
            refuse_lacking(read(session, list(dict.fromkeys(names))), check_mode)
    done = settings.settled(target, layout, wish, check_mode)
    return _result(_extensions(target, names, absent, check_mode), done, {"settings": wanted(params)})


def _extensions(target: Target, names: Sequence[str], absent: bool, check_mode: bool) -> Plan[ExtensionChange]:
    def review(found: Sequence[Found], _made: Plan[ExtensionChange]) -> None:
        if not absent:
            refuse_lacking(found, check_mode)

    def apply(session: Session, made: Plan[ExtensionChange]) -> None:
        for change in made:
            change.apply(session)

    with locked(target, NEEDED) as session:
        if session.in_recovery:
            return Plan(skipped_reason="standby: the extension is replicated from its primary")
        available = str(session.value(AVAILABLE))
        return read_plan_apply(
            read=lambda: read(session, list(dict.fromkeys(names))),
            plan=lambda found: changes(
                removal(found) if absent else plan(found, available), warnings=left(found, available, absent)
            ),
            apply=lambda _found, made: apply(session, made),
            check_mode=check_mode,
            review=review,
        )


def _result(extensions: Plan[ExtensionChange], done: Settled, more: Mapping[str, Any]) -> dict[str, Any]:
    return (done.plan + extensions).result(**done.details, **more)
