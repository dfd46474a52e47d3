# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which texts a run stores, and when they are read again."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.statements.texts import FREE, RATE, Owner, Reading, load, owners_of, save, storable

OWNERS = st.tuples(st.sampled_from(["shop", "crm"]), st.sampled_from(["app", "dba"]))
TEXTS = st.dictionaries(st.integers(1, 99), st.tuples(st.text(max_size=40), OWNERS), max_size=20)


@given(TEXTS, st.integers(0, 400))
def test_a_run_stores_no_more_bytes_than_it_has_room_for(found: dict[int, tuple[str, Owner]], room: int) -> None:
    texts = {queryid: text for queryid, (text, _owner) in found.items()}
    owners = {queryid: owner for queryid, (_text, owner) in found.items()}
    stored = storable(texts, owners, room)
    sizes = {queryid: len(text.encode()) for queryid, text in texts.items()}
    assert sum(len(text.encode()) for text in stored.values()) <= room
    assert stored.items() <= {**texts, **stored}.items()
    if sum(sizes.values()) <= room:
        assert stored.keys() == texts.keys()
    for owner in set(owners.values()):
        own = [queryid for queryid in texts if owners[queryid] == owner]
        # Nobody's few bytes are left out for another one's many.
        if sum(sizes[queryid] for queryid in own) * len(set(owners.values())) <= room:
            assert stored.keys() >= set(own)


def test_what_everybody_has_too_much_of_comes_in_turn() -> None:
    texts = dict.fromkeys(range(4), "x" * 10)
    owners = {number: ("shop", f"user {number}") for number in range(4)}
    assert list(storable(texts, owners, 25)) == [0, 1]


def test_redaction_makes_no_text_longer_than_there_is_room_for() -> None:
    text = "ALTER ROLE a PASSWORD 'x'; SELECT " + "1," * 50
    assert storable({1: text}, {1: ("", "")}, 200) == {}
    assert "'x'" not in storable({1: text}, {1: ("", "")}, 2000)[1]


def test_a_statement_belongs_to_who_needs_the_most_time_for_it() -> None:
    def one(queryid: int, user: str, exec_ms: float) -> dict[str, object]:
        return {"queryid": queryid, "database_name": "shop", "user_name": user, "exec_ms": exec_ms}

    found = owners_of([one(1, "a", 1.0), one(2, "b", 5.0), one(1, "c", 9.0)])
    assert list(found.items()) == [(1, ("shop", "c")), (2, ("shop", "b"))]


@pytest.mark.parametrize(
    ("size", "after", "due"),
    [
        (FREE, 0, True),
        (10 * FREE, 10 * FREE / RATE - 1, False),
        (10 * FREE, 10 * FREE / RATE, True),
        (10 * FREE, -1, True),  # the clock was set back
    ],
)
def test_many_texts_are_read_seldom(size: int, after: float, due: bool) -> None:
    assert Reading(1000.0, size).due(1000.0 + after) is due


def test_a_reading_is_remembered(tmp_path: Path) -> None:
    path = str(tmp_path / "texts.json")
    assert load(path).due(0.0)
    save(path, Reading(7.0, 8))
    assert load(path) == Reading(7.0, 8)
    (tmp_path / "texts.json").write_text("[]")
    assert load(path) == Reading()
