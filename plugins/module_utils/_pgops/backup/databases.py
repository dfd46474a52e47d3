# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The databases of a server, and which of them are to be dumped now. Names are bytes: one that was created in another
encoding is no text here."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from ..repository import dumps
from ..repository.dumps import Dumped
from ..server.names import RESTORING
from ..server.session import Session
from .dump_options import Dumps

SLACK = 1 / 8
"""The part of an interval that a dump may come early: jobs do not begin at the same minute each night."""

QUERY = """
SELECT d.oid::bigint AS oid, encode(replace(d.datname::text, '\\', '\\\\')::bytea, 'hex') AS name,
       pg_encoding_to_char(d.encoding) AS encoding, pg_get_userbyid(d.datdba)::text AS owner,
       d.datallowconn AND d.datconnlimit <> -2 AS open, d.datistemplate AS template,
       d.datcollate::text AS "collate", d.datctype::text AS ctype, {locale},
       pg_database_size(d.oid) AS bytes
FROM pg_database AS d WHERE NOT starts_with(d.datname::text, '{restoring}') ORDER BY d.oid
"""
LOCALE = {
    15: "d.datlocprovider::text AS provider, coalesce(d.daticulocale, '')::text AS locale",
    17: "d.datlocprovider::text AS provider, coalesce(d.datlocale, '')::text AS locale",
}
"""By the first major version that has such columns."""


@dataclass(frozen=True)
class Database:
    """A database. ``key`` is its name as that of a directory, ``open``: it can be connected to."""

    oid: int
    key: str
    encoding: str
    owner: str
    locale: Mapping[str, str]
    open: bool
    template: bool
    bytes: int

    @property
    def shown(self) -> str:
        """Its name for people."""
        return dumps.shown(self.key)

    @property
    def argument(self) -> str:
        """Its name as an argument of a program."""
        return os.fsdecode(dumps.name(self.key))


def present(session: Session) -> tuple[Database, ...]:
    """All databases of a server, but those that are being filled from a dump. Raises QueryFailed."""
    locale = LOCALE[max(major for major in LOCALE if major <= session.major)]
    return tuple(
        Database(
            oid=row["oid"],
            key=dumps.key(bytes.fromhex(row["name"])),
            encoding=row["encoding"],
            owner=row["owner"],
            locale={name: row[name] for name in ("provider", "collate", "ctype", "locale")},
            open=row["open"],
            template=row["template"],
            bytes=row["bytes"] or 0,
        )
        for row in session.rows(QUERY.format(locale=locale, restoring=RESTORING))
    )


@dataclass(frozen=True)
class Chosen:
    """``due`` are dumped now, the others are ``fresh``; ``closed`` cannot be dumped, as nobody can connect to them;
    ``missing`` are declared, or asked for, and not there."""

    due: tuple[Database, ...] = ()
    fresh: tuple[str, ...] = ()
    closed: tuple[str, ...] = ()
    missing: tuple[str, ...] = field(default=())


def choose(
    there: Sequence[Database], declared: Dumps, asked: Sequence[str], dumped: Mapping[str, Dumped], now: datetime
) -> Chosen:
    """Which databases are dumped at ``now``: those that are ``asked`` for by name, or else those that are declared
    and due. ``dumped`` is what there is of each, by its key. Pure."""
    named = asked or declared.named
    wanted = [
        one for one in there if (one.shown in named) or (not asked and not one.template and declared.wants(one.shown))
    ]
    able = [one for one in wanted if one.open]
    due = tuple(one for one in able if asked or _due(one, dumped.get(one.key), declared, now))
    return Chosen(
        due,
        tuple(one.shown for one in able if one not in due),
        tuple(one.shown for one in wanted if not one.open),
        tuple(name for name in named if name not in {one.shown for one in there}),
    )


def _due(database: Database, dumped: Dumped | None, declared: Dumps, now: datetime) -> bool:
    newest = dumped.newest if dumped else None
    # Another database may have had the name.
    if newest is None or newest.dump.oid != database.oid:
        return True
    age = now - newest.dump.started_at
    # A clock that was set back says nothing about an age.
    return not timedelta() <= age < timedelta(hours=declared.interval_hours * (1 - SLACK))
