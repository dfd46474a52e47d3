# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tables of the ops database that hold declared rows, and no others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..plan import difference
from .changes import Statements
from .session import identifier, statement


def plan(
    table: str,
    key: str,
    current: Mapping[str, Mapping[str, Any]],
    wanted: Mapping[str, Mapping[str, Any]],
    then: tuple[Any, ...] = (),
) -> tuple[Statements, ...]:
    """What gives a table the wanted rows and no others; ``then`` are the statements that follow a change."""
    changes: tuple[Statements, ...] = ()
    for name, row in wanted.items():
        if current.get(name) != row:
            kept = (upsert(table, [key], row), *then)
            changes += difference(Statements(f"{table} {name}", current.get(name), row, kept))
    for name in sorted(set(current) - set(wanted)):
        deleted = statement("DELETE FROM pgops.{} WHERE {} = {}", identifier(table), identifier(key), name)
        changes += (Statements(f"{table} {name}", current[name], None, (deleted, *then)),)
    return changes


def upsert(table: str, key: Sequence[str], row: Mapping[str, Any]) -> Any:
    """The statement that inserts or updates a row of one of our tables."""
    columns = ", ".join(["{}"] * len(row))
    assigned = ", ".join(["{} = excluded.{}"] * (len(row) - len(key)))
    names = [identifier(column) for column in row]
    pairs = [identifier(column) for column in row if column not in key for _side in (1, 2)]
    return statement(
        f"INSERT INTO pgops.{{}} ({columns}) VALUES ({columns}) "
        f"ON CONFLICT ({', '.join(['{}'] * len(key))}) DO UPDATE SET {assigned}",
        identifier(table),
        *names,
        *row.values(),
        *[identifier(column) for column in key],
        *pairs,
    )
