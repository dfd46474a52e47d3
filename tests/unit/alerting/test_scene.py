# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The bounds of a scene's parts."""

from __future__ import annotations

import json
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from pgops.alerting import scene
from pgops.server.session import Session

NO_SESSION = cast(Session, None)
TEXTS = st.dictionaries(st.sampled_from(["query", "user", "relation"]), st.text(max_size=2000), min_size=1)


def test_rows_that_have_no_room_are_counted() -> None:
    rows = [{"query": "x" * 900}] * 100
    part = scene.fitted(rows, 7, size=10_000)
    assert len(part["rows"]) == 10
    assert part["left_out"] == 97


def test_texts_are_cut_by_bytes_and_at_the_end_of_a_character() -> None:
    part = scene.fitted([{"query": "é" * 2000, "user": "é" * 2000, "blocked_by": [1, "é" * 2000], "pid": 5}], 0)
    (row,) = part["rows"]
    assert row == {"query": "é" * 500, "user": "é" * 150, "blocked_by": [1, "é" * 150], "pid": 5}


def test_without_time_nothing_is_begun() -> None:
    seen = scene.take(NO_SESSION, "db1/main", texts=True, seconds=0)
    assert seen.parts == {name: {"error": scene.NO_TIME} for name in scene.PARTS}
    assert seen.errors[0] == f"scene: blocking: {scene.NO_TIME}"


@given(st.lists(TEXTS, max_size=30), st.integers(0, 20_000))
def test_a_part_never_takes_more_than_its_room(rows: list[dict[str, str]], size: int) -> None:
    part = scene.fitted(rows, 0, size)
    assert len(json.dumps(part["rows"], ensure_ascii=False).encode()) <= size + 2
    assert len(part["rows"]) + part["left_out"] == len(rows)
