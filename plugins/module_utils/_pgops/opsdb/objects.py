# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Repeatable objects of the schema: functions and views, each from one file.

A file's name is the object's key, in whichever folder it is. It begins with
``-- object: function pgops.name(types)`` or ``-- object: view pgops.name``, and may
name files that must come before it: ``-- requires: a, b``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter

from ..errors import Conflict, InvalidInput, QueryFailed
from ..metrics.collectors import Collector, wrapped
from ..server import ownership, rows
from ..server.changes import ServerChange
from ..server.names import OWNER
from ..server.session import Session, identifier, raw

IDENTITY = re.compile(r"(function|view) pgops\.[a-z0-9_]+(\([a-z0-9_ ,.\[\]]*\))?\Z")

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


@dataclass(frozen=True)
class SchemaObject:
    """A function or view as a file defines it."""

    identity: str
    text: str
    file: str
    requires: tuple[str, ...] = field(default=())

    @property
    def sha256(self) -> str:
        """Of the file's text."""
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def drop(self) -> str:
        """The statement that removes the object, and fails if objects of others depend on it."""
        return drop_statement(self.identity)


def drop_statement(identity: str) -> str:
    """DROP for the identity of one of our objects.

    Raises InvalidInput for any other text.
    """
    if not IDENTITY.match(identity):
        raise InvalidInput(f"'{identity}' is not an object of the schema pgops.")
    kind, name = identity.split(" ", 1)
    return f"DROP {kind.upper()} IF EXISTS {name}"


def shipped(files: Mapping[str, str]) -> list[SchemaObject]:
    """The objects of the files, those that others require first.

    Raises InvalidInput.
    """
    paths = {_name(path): path for path in sorted(files)}
    twice = sorted(path for path in files if paths[_name(path)] != path)
    if twice:
        raise InvalidInput(f"{twice[0]} and {paths[_name(twice[0])]} have the same file name, which must be unique.")
    parsed = {name: _parse(path, files[path]) for name, path in paths.items()}
    for name, found in parsed.items():
        unknown = [other for other in found.requires if other not in parsed]
        if unknown:
            raise InvalidInput(f"{name}.sql requires {', '.join(unknown)}, which does not exist.")
    try:
        order = TopologicalSorter({name: parsed[name].requires for name in sorted(parsed)}).static_order()
        return [parsed[name] for name in order]
    except CycleError as error:
        raise InvalidInput(f"Circular requirement between objects: {error.args[1]}.") from None


def _name(path: str) -> str:
    """The name of a file, without its folders and its ending."""
    return path.rpartition("/")[2].rpartition(".")[0]


def _parse(file: str, text: str) -> SchemaObject:
    header = dict(re.findall(r"^-- (object|requires): (.+)$", text, re.MULTILINE))
    identity = header.get("object", "").replace(", ", ",")
    if not IDENTITY.match(identity):
        raise InvalidInput(f"{file} must begin with '-- object: function pgops.name(types)' or a view's.")
    requires = tuple(name.strip() for name in header.get("requires", "").split(",") if name.strip())
    return SchemaObject(identity, text, file, requires)


def collector_function(collector: Collector) -> SchemaObject:
    """The function that runs a collector's query in the database where it is called, as the caller."""
    name, body = f"collector_{collector.name}", wrapped(collector.query)
    quote = _quote(body)
    # Its owner may lack rights that its callers have, and checking the body needs some of them.
    text = (
        "SET LOCAL check_function_bodies = off;\n"
        f"CREATE OR REPLACE FUNCTION pgops.{name}()\n"
        "RETURNS SETOF jsonb\nLANGUAGE sql\nSTABLE\nSECURITY INVOKER\n"
        "SET search_path = pg_catalog, pg_temp\n"
        f"AS {quote}\n{body}\n{quote};\n"
        "SET LOCAL check_function_bodies = on;\n"
        f"REVOKE ALL ON FUNCTION pgops.{name}() FROM PUBLIC;\n"
        f"GRANT EXECUTE ON FUNCTION pgops.{name}() TO pgops;\n"
    )
    return SchemaObject(f"function pgops.{name}()", text, f"{name}.sql")


def _quote(text: str) -> str:
    """A dollar quote that nothing in a text ends."""
    tags = ("$collector" + "_" * count + "$" for count in range(len(text) + 1))
    return next(tag for tag in tags if tag not in text)


def drifted(installed: Mapping[str, str], catalogue: Mapping[str, str]) -> list[str]:
    """The objects that are not as they were installed: edited, missing, or added by others."""
    return sorted(name for name in {**installed, **catalogue} if installed.get(name) != catalogue.get(name))


def plan(
    wanted: Sequence[SchemaObject],
    sources: Mapping[str, str],
    installed: Mapping[str, str],
    catalogue: Mapping[str, str],
    users: Mapping[str, Sequence[str]] | None = None,
) -> tuple[ServerChange, ...]:
    """One change an object whose file is new or newer, or that was edited by hand, or that is no longer shipped.

    ``sources`` are the SHA-256 of the files applied, ``installed`` the fingerprints recorded then, and
    ``catalogue`` the fingerprints now. What is no longer shipped stays while others use it; ``users`` are those.
    """
    edited = set(drifted(installed, catalogue))
    changes: list[ServerChange] = []
    for found in wanted:
        if sources.get(found.identity) == found.sha256 and found.identity not in edited:
            continue
        before = None
        if found.identity in catalogue:
            hand = "edited by hand" if found.identity in edited else "as installed"
            before = {"source sha256": sources.get(found.identity, "unknown"), "state": hand}
        after = {"source sha256": found.sha256, "state": "as installed"}
        changes.append(ObjectChange(found.identity, before, after, found))
    kept = {found.identity for found in wanted}
    changes += [
        ObjectRemoval(identity, {"source sha256": sources[identity]}, None)
        for identity in sorted(sources)
        if identity not in kept and not (users or {}).get(identity)
    ]
    return tuple(changes)


def anew(wanted: Sequence[SchemaObject], names: Sequence[str]) -> tuple[ServerChange, ...]:
    """What creates the objects of these files as they are shipped, and those that they require, whatever is there."""
    by_name = {_name(one.file): one for one in wanted}
    needed: set[str] = set()
    left = [name for name in names if name in by_name]
    while left:
        name = left.pop()
        needed.add(name)
        left += by_name[name].requires
    chosen = [one for one in wanted if _name(one.file) in needed]
    return tuple(ObjectChange(one.identity, None, {"source sha256": one.sha256}, one) for one in chosen)


def still_used(
    wanted: Sequence[SchemaObject], sources: Mapping[str, str], users: Mapping[str, Sequence[str]]
) -> tuple[str, ...]:
    """Warnings of what stays, though it is no longer shipped."""
    kept = {found.identity for found in wanted}
    return tuple(
        f"{identity} is no longer part of the schema, but stays: {', '.join(users[identity])} "
        f"{'use' if len(users[identity]) > 1 else 'uses'} it. Drop what uses it; the next run drops the rest."
        for identity in sorted(sources)
        if identity not in kept and users.get(identity)
    )


# --- applying


@dataclass(frozen=True)
class ObjectChange(ServerChange):
    """An object is created as its file defines it, whatever it was before."""

    found: SchemaObject = field(repr=False, compare=False)

    def apply(self, session: Session) -> None:
        """As the owner, inside the transaction of all that is installed.

        Raises Conflict if objects of others depend on its old definition.
        """
        found = self.found
        source = rows.upsert("object_source", ["object"], {"object": found.identity, "sha256": found.sha256})
        if not _exists(session, found.identity):
            session.script(*ownership.by_owner(found.text, source))
            return
        _own(session, found.identity)
        with ownership.as_owner(session):
            _revoke_all(session, found.identity)
            try:
                with session.transaction():
                    session.script(found.text)
            except QueryFailed as error:
                if error.sqlstate not in NOT_A_COLUMN:
                    raise
                _recreate(session, found)
            session.execute(source)


@dataclass(frozen=True)
class ObjectRemoval(ServerChange):
    """An object that is no longer shipped is dropped; its identity is the change's subject."""

    def apply(self, session: Session) -> None:
        """As the owner, inside the transaction of all that is installed."""
        if _exists(session, self.subject):
            _own(session, self.subject)
        with ownership.as_owner(session):
            session.script(drop_statement(self.subject))
            session.execute("DELETE FROM pgops.object_source WHERE object = %s", [self.subject])


def _exists(session: Session, identity: str) -> bool:
    kind, name = identity.split(" ", 1)
    return session.value(f"SELECT {LOOKUPS[kind]}(%s)", [name]) is not None


def _own(session: Session, identity: str) -> None:
    """Change the owner back of an object that was given to another role."""
    session.execute(raw(f"ALTER {identity} OWNER TO ") + identifier(OWNER))


def _revoke_all(session: Session, identity: str) -> None:
    """Revoke all rights on an object: its file grants those that it needs."""
    kind, name = identity.split(" ", 1)
    for grantee in session.rows(GRANTEES[kind], [name]):
        who = identifier(grantee["name"]) if grantee["name"] else raw("PUBLIC")
        on = raw(f"REVOKE ALL ON {'FUNCTION' if kind == 'function' else 'TABLE'} {name} FROM ")
        session.execute(on + who + raw(" CASCADE"))


def _recreate(session: Session, found: SchemaObject) -> None:
    try:
        session.script(found.drop)
    except QueryFailed as error:
        if error.sqlstate != "2BP01":
            raise
        raise Conflict(
            f"{found.identity} has a new definition, but your own objects depend on the old one: {error.message}.",
            "Drop them, retry, then create them again.",
        ) from error
    session.script(found.text)
