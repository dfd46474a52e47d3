# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Numbered migrations, and the table (ledger) of those that were applied."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..errors import Conflict, InvalidInput
from ..server import ownership
from ..server.changes import ServerChange
from ..server.foreign import TABLES
from ..server.session import Session
from ..version import VERSION

LEDGER = "INSERT INTO pgops.migration (number, name, sha256, collection_version) VALUES (%s, %s, %s, %s)"


@dataclass(frozen=True)
class Migration:
    """One migration file, or one row of the ledger (whose ``text`` is empty)."""

    number: int
    name: str
    sha256: str
    text: str = ""


@dataclass(frozen=True)
class MigrationChange(ServerChange):
    """A migration is applied and recorded in the ledger."""

    migration: Migration = field(repr=False, compare=False)

    def apply(self, session: Session) -> None:
        """As the owner, inside the transaction of all that is installed."""
        found = self.migration
        with ownership.as_owner(session):
            session.script(found.text)
            session.execute(LEDGER, [found.number, found.name, found.sha256, VERSION])


def shipped(files: Mapping[str, str]) -> list[Migration]:
    """The migrations of files named ``0001_name.sql``, in their order, numbered from 1 without a gap.

    Raises InvalidInput.
    """
    found = []
    for file, text in sorted(files.items()):
        match = re.fullmatch(r"(\d{4})_([a-z0-9_]+)\.sql", file)
        if not match:
            raise InvalidInput(f"{file}: a migration's file name must look like 0001_name.sql.")
        found.append(Migration(int(match.group(1)), match.group(2), hashlib.sha256(text.encode()).hexdigest(), text))
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise InvalidInput("The collection's migrations are not numbered 1, 2, 3 and so on.")
    return found


def pending(ledger: Sequence[Migration], files: Sequence[Migration]) -> list[Migration]:
    """The shipped migrations that the ledger lacks.

    Raises Conflict for a ledger newer than the collection, for one with a gap, and for a migration that
    was edited after it was applied.
    """
    applied = {migration.number: migration for migration in ledger}
    newest = max(applied, default=0)
    if newest > len(files):
        raise Conflict(
            f"The schema pgops is at migration {newest}, but this collection only has {len(files)}.",
            "Install a newer pgops.fleet; a schema is never downgraded.",
        )
    missing = sorted(set(range(1, newest + 1)) - set(applied))
    if missing:
        raise Conflict(
            f"The table pgops.migration lacks rows below {newest}: {', '.join(map(str, missing))}.",
            "Rows were deleted, or only partly restored. Restore them from a backup.",
        )
    edited = [file for file in files if file.number in applied and applied[file.number].sha256 != file.sha256]
    if edited:
        raise Conflict(
            f"Migration {edited[0].number:04d}_{edited[0].name} differs from the applied one.",
            "Applied migrations must not change: reinstall the released collection pgops.fleet.",
        )
    return [file for file in files if file.number not in applied]


def tables(ledger: Sequence[Migration], files: Sequence[Migration]) -> list[str]:
    """The tables of the schema that exist, by the ledger and the files of its migrations."""
    applied = {migration.number for migration in ledger}
    texts = [file.text for file in files if file.number in applied]
    created = {name for text in texts for name in re.findall(r"^CREATE TABLE pgops\.(\w+)", text, re.MULTILINE)}
    return sorted(created & set(TABLES))


def plan(ledger: Sequence[Migration], files: Sequence[Migration]) -> tuple[MigrationChange, ...]:
    """One change a pending migration."""
    return tuple(
        MigrationChange(f"migration {one.number:04d}_{one.name}", None, {"sha256": one.sha256}, one)
        for one in pending(ledger, files)
    )
