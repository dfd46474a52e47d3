# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The texts of statements that the store lacks: so many bytes in a run, and seldom read if there are many.

The server has no way to show some texts only: pg_stat_statements reads the file of all of them, and makes rows of all
of them, in a temporary file if they do not fit into memory. So the time until they are read again grows with their
size.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from .. import fairness
from ..errors import QueryFailed
from ..host.files import File, write
from ..server import encoding
from ..server.session import Session
from .redaction import redacted

LONGEST = 10240
"""Bytes after which a text is cut."""

ROOM = 1024 * 1024
"""Bytes of texts that a run stores at most, shared out among users and databases."""

FREE = 30_000_000
"""Bytes of all texts up to which each run may read them."""

RATE = 100_000
"""Bytes a second that the server reads for texts on average, if they are more: 300 MB in 50 minutes."""

TEXTS = "SELECT pgops.statement_texts(%s::bigint[], %s)::text"

UNREADABLE = ("22021", "22P05")
"""SQLSTATE of text that is not valid in the ops database's encoding, or has no equivalent there."""

WITHOUT_ENCODING = f"""
SELECT {encoding.BYTES.format("datname")} AS name FROM pg_database
WHERE pg_encoding_to_char(encoding) = 'SQL_ASCII' ORDER BY datname
"""

Owner = tuple[str, str]
"""A database and a user."""


@dataclass(frozen=True)
class Reading:
    """When all texts were last read, in Unix time, and how many bytes they had."""

    at: float = 0.0
    bytes: int = 0

    def due(self, now: float) -> bool:
        """Whether they may be read again. A clock that was set back makes it so as well."""
        return self.bytes <= FREE or not self.at <= now < self.at + self.bytes / RATE


def load(path: str) -> Reading:
    """The last reading; one long ago if there is none that can be read."""
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
        return Reading(float(data["at"]), int(data["bytes"]))
    except (OSError, ValueError, KeyError, TypeError):
        return Reading()


def save(path: str, reading: Reading) -> None:
    """Write the last reading.

    Raises HostFailed or OSError, as on a full disk.
    """
    write(File(path, json.dumps(asdict(reading)).encode(), 0o640))


def read(source: Session, wanted: Sequence[int]) -> tuple[int, dict[int, str]]:
    """The bytes of all texts, and those of some statements, by their identifiers, as the server has them.

    Raises QueryFailed: PostgreSQL converts all texts into the encoding of the ops database, and shows none of them if
    one cannot be converted, which an SQL_ASCII database lets in.
    """
    try:
        found = json.loads(source.value(TEXTS, [list(wanted), LONGEST]))
    except QueryFailed as error:
        if error.sqlstate not in UNREADABLE:
            raise
        names = [encoding.readable(encoding.text(bytes(row["name"]))) for row in source.rows(WITHOUT_ENCODING)]
        place = ", ".join(names) or "another encoding"
        raise QueryFailed(
            f"pg_stat_statements shows no texts: one of a statement in {place} cannot be converted "
            f"({error.message}). Numbers are stored all the same.",
            f"Forget the statements of that database, in {source.database}: "
            "SELECT pg_stat_statements_reset(0, oid, 0) FROM pg_database WHERE datname = '...';",
            error.sqlstate,
        ) from error
    return found["bytes"], {int(queryid): text for queryid, text in found["texts"].items()}


def storable(found: Mapping[int, str], owners: Mapping[int, Owner], room: int = ROOM) -> dict[int, str]:
    """The redacted texts that are stored of those that were ``found``, in the order of ``owners``: together they and
    their originals have no more bytes than there is ``room`` for, and nobody more than a fair share."""
    ordered = {queryid: found[queryid] for queryid in owners if queryid in found}
    chosen = _fitting(ordered, owners, room)
    return _fitting({queryid: redacted(text) for queryid, text in chosen.items()}, owners, room)


def _fitting(found: Mapping[int, str], owners: Mapping[int, Owner], room: int) -> dict[int, str]:
    """Of each owner as many as its share has room for, and then as many as there is room for."""
    sizes = {queryid: len(text.encode()) for queryid, text in found.items()}
    wanted: dict[Owner, int] = {}
    for queryid, size in sizes.items():
        wanted[owners[queryid]] = wanted.get(owners[queryid], 0) + size
    most = fairness.level(wanted.values(), room)
    shares = dict.fromkeys(wanted, min(most, room))
    fitting = set()
    for queryid, size in sizes.items():
        if size <= shares[owners[queryid]]:
            shares[owners[queryid]] -= size
            room -= size
            fitting.add(queryid)
    for queryid, size in sizes.items():
        if queryid not in fitting and size <= room:
            room -= size
            fitting.add(queryid)
    return {queryid: text for queryid, text in found.items() if queryid in fitting}


def owners_of(documents: Iterable[Mapping[str, Any]]) -> dict[int, Owner]:
    """Who ran each statement, of those that ran it who took the most time; those that took the most time first."""
    ordered = sorted(documents, key=lambda one: -one["exec_ms"])
    owners: dict[int, Owner] = {}
    for one in ordered:
        owners.setdefault(one["queryid"], (one["database_name"], one["user_name"]))
    return owners
