# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is planned for the inside of the ops database, carried out as the schema's owner in one transaction."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from ..errors import Conflict, QueryFailed
from ..plan import Change
from ..server import ownership
from ..server.session import Session, identifier, raw, statement
from ..version import VERSION
from . import contents, migrations, objects
from .fingerprints import CATALOGUE

NOT_A_COLUMN = ("42P16", "42P13")
"""invalid_table_definition, invalid_function_definition: CREATE OR REPLACE cannot change that much."""

LOOKUPS = {"function": "to_regprocedure", "view": "to_regclass"}

GRANTEES = {
    kind: f"""
SELECT DISTINCT a.grantee AS oid, r.rolname AS name
FROM {catalogue} AS o, aclexplode(o.{acl}) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee
WHERE o.oid = {LOOKUPS[kind]}(%s) AND a.grantee <> o.{owner}
"""
    for kind, catalogue, acl, owner in (
        ("function", "pg_proc", "proacl", "proowner"),
        ("view", "pg_class", "relacl", "relowner"),
    )
}
"""Who besides the owner has rights on an object; PUBLIC has no name."""


def install(
    inside: Session,
    migrated: Sequence[Change],
    replaced: Sequence[Change],
    configured: Sequence[Change],
    rehearse: bool = False,
) -> None:
    """Carry out the plans of the migrations, the objects and the contents; a rehearsal is rolled back."""
    with inside.transaction(rollback=rehearse):
        for change in migrated:
            with named(change):
                _migrate(inside, change)
        for change in replaced:
            with named(change):
                _replace(inside, change.step)
        _as_owner(inside)
        execute(inside, configured)
        _remember(inside, tables=bool(migrated))
        inside.execute("RESET ROLE")


def _migrate(inside: Session, change: Change) -> None:
    if not isinstance(change.step, migrations.Migration):
        execute(inside, [change])
        return
    _as_owner(inside)
    inside.script(change.step.text)
    inside.execute(
        "INSERT INTO pgops.migration (number, name, sha256, collection_version) VALUES (%s, %s, %s, %s)",
        [change.step.number, change.step.name, change.step.sha256, VERSION],
    )
    inside.execute("RESET ROLE")


def _as_owner(inside: Session) -> None:
    # Whoever the owner's objects belong to must not be a superuser: a function of theirs would run as one.
    inside.execute(statement("SET LOCAL ROLE {}", identifier(ownership.OWNER)))


@contextlib.contextmanager
def unhurried(session: Session) -> Iterator[None]:
    """Without a time limit: to create or drop a database waits for a checkpoint."""
    session.execute("SET statement_timeout = 0")
    try:
        yield
    finally:
        session.execute(statement("SET statement_timeout = {}", round(session.target.statement_timeout * 1000)))


@contextlib.contextmanager
def named(change: Change) -> Iterator[None]:
    """Say in an error which change the server refused."""
    try:
        yield
    except QueryFailed as error:
        raise QueryFailed(f"{change.subject}: {error.message}", error.hint, error.sqlstate) from error


def _replace(inside: Session, found: objects.SchemaObject | str) -> None:
    _own(inside, found if isinstance(found, str) else found.identity)
    _as_owner(inside)
    if isinstance(found, str):
        inside.script(objects.drop_statement(found))
        inside.execute("DELETE FROM pgops.object_source WHERE object = %s", [found])
        inside.execute("RESET ROLE")
        return
    _take_back(inside, found)
    try:
        with inside.transaction():
            inside.script(found.text)
    except QueryFailed as error:
        if error.sqlstate not in NOT_A_COLUMN:
            raise
        _recreate(inside, found)
    inside.execute(contents.upsert("object_source", ["object"], {"object": found.identity, "sha256": found.sha256}))
    inside.execute("RESET ROLE")


def _own(inside: Session, identity: str) -> None:
    """Take an object back that somebody gave to another role."""
    kind, name = identity.split(" ", 1)
    if inside.value(f"SELECT {LOOKUPS[kind]}(%s)", [name]) is not None:
        inside.execute(raw(f"ALTER {identity} OWNER TO ") + identifier(ownership.OWNER))


def _take_back(inside: Session, found: objects.SchemaObject) -> None:
    """Take all rights on an object away: its file gives those that are meant."""
    kind, name = found.identity.split(" ", 1)
    for grantee in inside.rows(GRANTEES[kind], [name]):
        who = identifier(grantee["name"]) if grantee["name"] else raw("PUBLIC")
        on = raw(f"REVOKE ALL ON {'FUNCTION' if kind == 'function' else 'TABLE'} {name} FROM ")
        inside.execute(on + who + raw(" CASCADE"))


def _recreate(inside: Session, found: objects.SchemaObject) -> None:
    try:
        inside.script(found.drop)
    except QueryFailed as error:
        if error.sqlstate != "2BP01":
            raise
        raise Conflict(
            f"{found.identity} has a new form, and objects of your own depend on the old one: {error.message}.",
            "Drop them, run this again, and create them anew.",
        ) from error
    inside.script(found.text)


def _remember(inside: Session, tables: bool) -> None:
    """Record how the objects are now; ``tables`` only where a migration changed them, so that what somebody
    else changed in them is not forgotten."""
    chosen = "object NOT LIKE 'table %%' OR %(tables)s OR server_major <> %(major)s"
    bound = {"tables": tables, "major": inside.major}
    inside.execute(f"DELETE FROM pgops.fingerprint WHERE {chosen}", bound)
    inside.execute(
        "INSERT INTO pgops.fingerprint (object, sha256, server_major) "
        f"SELECT found.object, found.sha256, %(major)s FROM ({CATALOGUE}) AS found "
        "ON CONFLICT (object) DO NOTHING",
        bound,
    )


def execute(session: Session, made: Sequence[Change]) -> None:
    """Execute the statements of changes, each a statement or a list of them."""
    for change in made:
        with named(change):
            for step in change.step if isinstance(change.step, list) else [change.step]:
                session.execute(step)
