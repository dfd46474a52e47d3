# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Tables: which columns are shown at which width."""

from __future__ import annotations

import pytest

from pgops.top import tables
from pgops.top.tables import Column, table

COLUMNS = [
    Column("pid", 1, 10),
    Column("user", 3, 6),
    Column("tx", 2, 6, right=True),
    Column("empty", 2),
    Column("statement", 1, 1000),
]
ROWS = [["4711", "alice_the_long", "12s", "", "SELECT 1"], ["7", "bob", "3h12m", "", "COMMIT; " + "x" * 60]]


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            60,
            [
                "pid   user       tx  statement",
                "4711  alice…    12s  SELECT 1",
                "7     bob     3h12m  COMMIT; xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…",
            ],
        ),
        (
            53,
            [
                "pid   user       tx  statement",
                "4711  alice…    12s  SELECT 1",
                "7     bob     3h12m  COMMIT; xxxxxxxxxxxxxxxxxxxxxxx…",
            ],
        ),
        (
            52,
            [
                "pid      tx  statement",
                "4711    12s  SELECT 1",
                "7     3h12m  COMMIT; xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…",
            ],
        ),
        (45, ["pid      tx  statement", "4711    12s  SELECT 1", "7     3h12m  COMMIT; xxxxxxxxxxxxxxxxxxxxxxx…"]),
        (44, ["pid   statement", "4711  SELECT 1", "7     COMMIT; xxxxxxxxxxxxxxxxxxxxxxxxxxxxx…"]),
        (9, ["pid   st…", "4711  SE…", "7     CO…"]),
        (3, ["pid", "47…", "7"]),
        (0, ["", "", ""]),
    ],
)
def test_the_most_important_columns_are_shown(width: int, lines: list[str]) -> None:
    assert table(COLUMNS, ROWS, width) == lines


def test_a_short_last_column_leaves_its_room_to_others() -> None:
    rows = [["4711", "bob", "12s", "", "COMMIT"]]
    assert table(COLUMNS, rows, 26) == ["pid   user   tx  statement", "4711  bob   12s  COMMIT"]
    assert table(COLUMNS, rows, 25) == ["pid    tx  statement", "4711  12s  COMMIT"]


def test_a_table_of_one_column() -> None:
    assert table([Column("pid", 1)], [["4711"]], 3) == ["pid", "47…"]
    assert table([Column("pid", 1), Column("more", 2)], [["4711", ""]], 20) == ["pid", "4711"]


def test_columns_of_one_rank_come_in_their_order_and_the_first_without_room_ends_it() -> None:
    columns = [Column("a", 1), Column("bbbb", 2), Column("cccccc", 3), Column("d", 4), Column("e", 1)]
    rows = [["1", "2", "3", "4", "5"]]
    shown = {width: tables.fitting(columns, rows, range(5), width) for width in (4, 9, 10, 17, 18, 21)}
    assert shown == {
        4: [0, 4],
        9: [0, 4],
        10: [0, 1, 4],
        17: [0, 1, 4],
        18: [0, 1, 2, 4],
        21: [0, 1, 2, 3, 4],
    }
