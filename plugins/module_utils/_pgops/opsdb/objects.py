# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Repeatable objects of the schema: functions and views, each from one file. Pure.

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

from ..errors import InvalidInput
from ..metrics.collectors import Collector, wrapped
from ..plan import Change

IDENTITY = re.compile(r"(function|view) pgops\.[a-z0-9_]+(\([a-z0-9_ ,\[\]]*\))?\Z")


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
        """The statement that removes the object, and fails where somebody's own objects depend on it."""
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
        raise InvalidInput(
            f"{twice[0]} and {paths[_name(twice[0])]} have one name: an object's file name is its key."
        )
    parsed = {name: _parse(path, files[path]) for name, path in paths.items()}
    for name, found in parsed.items():
        unknown = [other for other in found.requires if other not in parsed]
        if unknown:
            raise InvalidInput(f"{name}.sql requires {', '.join(unknown)}, which is not there.")
    try:
        order = TopologicalSorter({name: parsed[name].requires for name in sorted(parsed)}).static_order()
        return [parsed[name] for name in order]
    except CycleError as error:
        raise InvalidInput(f"Objects require each other in a circle: {error.args[1]}.") from None


def _name(path: str) -> str:
    """The name of a file, without its folders and its ending."""
    return path.rpartition("/")[2].rpartition(".")[0]


def _parse(file: str, text: str) -> SchemaObject:
    header = dict(re.findall(r"^-- (object|requires): (.+)$", text, re.MULTILINE))
    identity = header.get("object", "").replace(", ", ",")
    if not IDENTITY.match(identity):
        raise InvalidInput(f"{file} does not begin with '-- object: function pgops.name(types)' or a view's.")
    requires = tuple(name.strip() for name in header.get("requires", "").split(",") if name.strip())
    return SchemaObject(identity, text, file, requires)


def collector_function(collector: Collector) -> SchemaObject:
    """The function that runs a collector's query in the database where it is called, as the caller."""
    name, body = f"collector_{collector.name}", wrapped(collector.query)
    quote = _quote(body)
    # Its owner need not have the rights that its callers have, and checking the body takes some of them.
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
    """The objects that are not as they were installed: edited, missing, or added by somebody."""
    return sorted(name for name in {**installed, **catalogue} if installed.get(name) != catalogue.get(name))


def plan(
    wanted: Sequence[SchemaObject],
    sources: Mapping[str, str],
    installed: Mapping[str, str],
    catalogue: Mapping[str, str],
) -> tuple[Change, ...]:
    """One change an object whose file is new or newer, or that was edited by hand, or that is shipped no more.

    ``sources`` are the SHA-256 of the files applied, ``installed`` the fingerprints recorded then, and
    ``catalogue`` the fingerprints now. A change's step is the SchemaObject, or the identity of one to drop.
    """
    edited = set(drifted(installed, catalogue))
    made = []
    for found in wanted:
        if sources.get(found.identity) == found.sha256 and found.identity not in edited:
            continue
        before = None
        if found.identity in catalogue:
            hand = "edited by hand" if found.identity in edited else "as installed"
            before = {"source sha256": sources.get(found.identity, "unknown"), "state": hand}
        made.append(Change(found.identity, before, {"source sha256": found.sha256, "state": "as installed"}, found))
    kept = {found.identity for found in wanted}
    gone = [
        Change(identity, {"source sha256": sources[identity]}, None, identity)
        for identity in sorted(sources)
        if identity not in kept
    ]
    return tuple(made + gone)
