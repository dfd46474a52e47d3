# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a dump needs of the server that it is restored into, by the texts that PostgreSQL's own programs make of it.
Pure.

Source of their form: PostgreSQL, src/bin/pg_dump/pg_backup_archiver.c (PrintTOCSummary, _printTocEntry), dumputils.c
(buildACLCommands, buildDefaultACLCommands) and pg_dumpall.c (dumpRoles).
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass

NAME = r'(?:"(?:[^"]|"")+"|[A-Za-z_\x80-\U0010ffff][\w$]*)'
"""An identifier, as they write it."""
EXTENSION = re.compile(r"^\d+; 3079 \d+ EXTENSION - (?P<name>.*?) ?$", re.MULTILINE)
TABLESPACE = re.compile(rf"^SET default_tablespace = (?P<name>{NAME});$", re.MULTILINE)
ROLE = re.compile(rf"^CREATE ROLE (?P<name>{NAME});$", re.MULTILINE)
ROLES = tuple(
    re.compile(pattern, re.MULTILINE)
    for pattern in (
        rf"^ALTER .* OWNER TO (?P<names>{NAME});$",
        rf"^ALTER DEFAULT PRIVILEGES FOR ROLE (?P<names>{NAME}) ",
        rf"^(?:GRANT|REVOKE|ALTER DEFAULT PRIVILEGES) .* (?:TO|FROM) (?P<names>{NAME})(?: WITH GRANT OPTION)?;$",
        rf"^SET SESSION AUTHORIZATION (?P<names>{NAME});$",
        rf"^CREATE USER MAPPING FOR (?P<names>{NAME}) SERVER ",
        rf"^CREATE POLICY .*? TO (?P<names>{NAME}(?:, {NAME})*)(?: USING| WITH CHECK|;)",
    )
)
"""Where a statement names roles."""


@dataclass(frozen=True)
class Needs:
    """What has to be there before a dump is restored: names of ``roles`` (with the statements that create them),
    ``tablespaces`` and ``extensions``."""

    roles: dict[str, str]
    tablespaces: tuple[str, ...]
    extensions: tuple[str, ...]


def needs(listing: str, schema: str, roles: str, owner: str) -> Needs:
    """What a dump needs: by its table of contents (pg_restore --list), the statements of its schema, those that make
    the roles of its server (globals.sql), and the ``owner`` of its database.

    Only roles count that its server had: text in the body of a function may look like a statement.
    """
    known = {plain(match["name"]): match[0] for match in ROLE.finditer(roles)}
    found = {plain(one) for pattern in ROLES for match in pattern.finditer(schema) for one in _names(match["names"])}
    return Needs(
        {name: statement for name, statement in known.items() if name in found or name == owner},
        tuple(dict.fromkeys(plain(match["name"]) for match in TABLESPACE.finditer(schema))),
        tuple(match["name"] for match in EXTENSION.finditer(listing)),
    )


def _names(text: str) -> list[str]:
    return re.findall(NAME, text)


def plain(identifier: str) -> str:
    """The name that an identifier stands for.

    >>> plain('"a ""b"')
    'a "b'
    """
    return identifier[1:-1].replace('""', '"') if identifier.startswith('"') else identifier


def lacking(wanted: Collection[str], there: Collection[str]) -> list[str]:
    """Those that are not there, in their order."""
    return [one for one in wanted if one not in there]
