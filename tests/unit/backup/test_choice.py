# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which backup is taken, and why."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from keeping import MIDNIGHT, SOURCE, manifest

from pgops.backup.choice import Choice, Summaries, There, chosen, covered
from pgops.backup.options import Options
from pgops.backup.source import Source
from pgops.errors import Conflict, InvalidInput
from pgops.repository.backups import Kept, Listing

OPTIONS = Options("native", "none", "primary", True, False, 168.0, 0.0, {}, "", "", "")
SUMMARIES = Summaries([{"tli": 1, "start_lsn": "0/2000028", "end_lsn": "0/9000000"}], 1, 0x9000000)


def kept(number: int, kind: str = "full", parent: int = 0, **other: Any) -> Kept:
    made = manifest(
        id=str(number),
        kind=kind,
        parent=str(parent) if parent else "",
        stop_lsn=0x2000120 + number,
        environment={"data_checksums": "on"},
        **other,
    )
    return Kept(f"name{number}", made)


FULL, SECOND = kept(1), kept(2, "incremental", 1)


def choose(*there: Kept, kind: str = "auto", hours: float = 1, **other: Any) -> Choice:
    found = replace(SOURCE, **{key: value for key, value in other.items() if key in Source.__dataclass_fields__})
    declared = replace(OPTIONS, **{key: value for key, value in other.items() if key in Options.__dataclass_fields__})
    now = MIDNIGHT + timedelta(hours=hours)
    known = There(Listing(there), other.get("failed", False), other.get("summaries", SUMMARIES))
    return chosen(kind, declared, found, known, now)


def test_the_first_backup_is_full() -> None:
    assert choose() == Choice("full", why="there is no full one yet")


def test_others_add_to_the_newest_until_a_full_one_is_due() -> None:
    assert choose(FULL) == Choice("incremental", FULL)
    assert choose(FULL, SECOND, hours=167) == Choice("incremental", SECOND)
    assert choose(FULL, SECOND, hours=168).kind == "full"
    assert choose(FULL, SECOND, kind="differential", hours=999) == Choice("differential", FULL)
    assert choose(FULL, SECOND, kind="full").parent is None


def test_a_clock_that_was_set_back_makes_a_full_one_due() -> None:
    assert "the clock was set back" in choose(FULL, hours=-1).why


def test_after_a_failed_attempt_a_full_one_is_due() -> None:
    assert choose(FULL, failed=True) == Choice("full", why="the last attempt to take a backup failed")
    assert choose(FULL, failed=True, kind="incremental").parent == FULL


def test_they_have_to_be_declared_unless_asked_for() -> None:
    assert "not declared" in choose(FULL, incremental=False).why
    assert choose(FULL, incremental=False, kind="incremental").parent == FULL


@pytest.mark.parametrize(
    ("there", "other", "said"),
    [
        ([FULL], {"version_num": 160009}, "PostgreSQL 16 has no incremental backups"),
        ([FULL], {"version_num": 170012}, "corrected in 17.13 and 18.7"),
        ([FULL], {"version_num": 180006}, "corrected in 17.13 and 18.7"),
        ([FULL], {"summarize_wal": "off"}, "summarize_wal is off"),
        ([FULL], {"timeline": 2}, "The server is on timeline 2, and name1 on 1"),
        ([FULL], {"data_checksums": "off"}, "Data checksums were switched"),
        ([FULL], {"summaries": Summaries()}, "summaries of WAL do not reach back to name1"),
        ([FULL, kept(3, "incremental", 2)], {}, "name3 lacks one of the backups"),
        ([replace(FULL, problems=("base/1 is missing",)), SECOND], {}, "name1 is damaged"),
    ],
)
def test_what_an_incremental_one_cannot_add_to_makes_it_a_full_one(
    there: list[Kept], other: dict[str, Any], said: str
) -> None:
    found = choose(*there, **other)
    assert (found.kind, found.parent) == ("full", None)
    assert said in found.why
    with pytest.raises(Conflict, match=said) as caught:
        choose(*there, kind="incremental", **other)
    assert caught.value.hint


@pytest.mark.parametrize("number", [170013, 180007, 190000])
def test_versions_without_the_error_may(number: int) -> None:
    assert choose(FULL, version_num=number).kind == "incremental"


def test_the_error_may_be_taken_on() -> None:
    assert choose(FULL, version_num=170001, unsafe_incremental=True).kind == "incremental"


def test_an_incremental_one_needs_something_to_add_to() -> None:
    with pytest.raises(Conflict, match="no backup that it could add to"):
        choose(kind="incremental")


def test_other_kinds_are_refused() -> None:
    with pytest.raises(InvalidInput, match="logical"):
        choose(kind="logical")


@pytest.mark.parametrize(
    ("spans", "enough"),
    [
        ([(0, 10)], True),
        ([(0, 5), (5, 10)], True),
        ([(5, 10), (0, 5)], True),
        ([(0, 5), (6, 10)], False),
        ([(5, 10)], False),
        ([(0, 4)], False),
        ([], False),
    ],
)
def test_summaries_reach_back_where_they_have_no_gap(spans: list[tuple[int, int]], enough: bool) -> None:
    rows = [{"tli": 3, "start_lsn": f"0/{begin}", "end_lsn": f"0/{end:X}"} for begin, end in spans]
    assert covered(Summaries(rows, 3, 10), 3, 4) is enough
    assert not covered(Summaries(rows, 3, 10), 2, 4)


@pytest.mark.parametrize(
    ("timeline", "reached", "enough"), [(3, 4, True), (3, 3, True), (3, 5, False), (2, 4, False), (3, 0, False)]
)
def test_those_that_are_still_to_come_go_on_from_where_the_server_is(
    timeline: int, reached: int, enough: bool
) -> None:
    older = [{"tli": 3, "start_lsn": "0/1", "end_lsn": "0/4"}]
    assert covered(Summaries(older, timeline, reached), 3, 4) is enough
