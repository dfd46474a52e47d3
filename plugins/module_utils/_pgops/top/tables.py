# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tables on a terminal of any width: the most important columns come first, the last one has what is left. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .values import cells, cut, padded

GAP = 2
"""Blanks between columns."""
REST = 32
"""Columns of the terminal that the last column of a table has at least, where it has as much to say."""


@dataclass(frozen=True)
class Column:
    """A column of a table. ``rank``: 1 is shown wherever it fits, higher ones only if there is room besides; ``most``
    is its greatest width."""

    title: str
    rank: int
    most: int = 16
    right: bool = False


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> list[str]:
    """The lines of a table, its titles first; none is wider than ``width``. The cells of ``rows`` are lines of text
    already; columns without any text are left out."""
    used = [at for at, column in enumerate(columns) if any(row[at] for row in rows) or column.rank == 1]
    chosen = fitting(columns, rows, used, width)
    widths = {at: min(_widest(columns[at], [row[at] for row in rows]), columns[at].most) for at in chosen}
    last = chosen[-1]
    widths[last] = max(0, width - sum(widths[at] + GAP for at in chosen[:-1]))
    lines = [[column.title for column in columns], *rows]
    whole = [(" " * GAP).join(padded(line[at], widths[at], columns[at].right) for at in chosen) for line in lines]
    return [cut(line.rstrip(), width) for line in whole]


def _widest(column: Column, texts: Sequence[str]) -> int:
    return max([len(column.title), *map(cells, texts)])


def fitting(columns: Sequence[Column], rows: Sequence[Sequence[str]], used: Sequence[int], width: int) -> list[int]:
    """The places of the columns that are shown: the first and the last one used, and of the others as many as fit, by
    their ranks."""
    first, last = used[0], used[-1]
    needs = {at: min(_widest(columns[at], [row[at] for row in rows]), columns[at].most) + GAP for at in used}
    left = width - needs[first] - min(REST, needs[last] - GAP)
    chosen = {first, last}
    for at in sorted(used[1:-1], key=lambda at: columns[at].rank):
        if needs[at] > left:
            break
        left -= needs[at]
        chosen.add(at)
    return sorted(chosen)
