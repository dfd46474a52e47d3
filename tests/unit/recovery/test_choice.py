# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which backup is taken for a target, on which line, and which targets are refused."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keeping import manifest

from pgops.errors import HostFailed, InvalidInput
from pgops.recovery import choice, commits
from pgops.recovery import line as lines
from pgops.recovery.commits import Pick, Reader, Record
from pgops.recovery.line import Line
from pgops.recovery.targets import Target
from pgops.repository.backups import Kept, Listing
from pgops.repository.inventory import Inventory
from pgops.repository.wal import Ancestor, Run

MB = 1 << 20
START = datetime(2026, 11, 29, tzinfo=timezone.utc)


def at(minute: int) -> datetime:
    """The time of the WAL: a segment a minute."""
    return START + timedelta(minutes=minute)


class Told(Reader):
    """The WAL of a test: by the timeline and the number of a segment, its records."""

    known: Mapping[tuple[int, int], Sequence[Record]]
    read: set[int]

    def records(self, segment: int, manager: str) -> list[Record]:
        self.read.add(segment)
        found = self.known.get((self.line.timeline_of(segment), segment), ())
        return [record for record in found if (record.what == "RESTORE_POINT") == (manager == "XLOG")]

    def search(
        self, blocks: Iterable[range], manager: str, pick: Pick, _seconds: float | None = None
    ) -> Iterator[list[Record]]:
        for block in blocks:
            yield [record for number in block for record in pick(self.records(number, manager))]

    def goes_on(self, byte: int) -> bool:
        here = self.records(byte // MB, "Transaction") + self.records(byte // MB, "XLOG")
        return any(record.lsn >= byte for record in here)


def commit(segment: int, when: datetime, offset: int = 1000, xid: int = 0) -> Record:
    return Record("COMMIT", segment * MB + offset, xid or segment, when)


def backup(name: str, start: int, minute: int, **other: Any) -> Kept:
    """One that began in a segment, and ended half a segment later."""
    made = manifest(
        id=name,
        start_lsn=start * MB + 40,
        stop_lsn=start * MB + MB // 2,
        segment_bytes=MB,
        completed_at=at(minute) + timedelta(seconds=30),
        **other,
    )
    return Kept(name, made)


def inventory(
    runs: Sequence[Run], backups: Sequence[Kept], histories: Mapping[int, tuple[Ancestor, ...]] | None = None
) -> Inventory:
    return Inventory("7412345678901234567-17", MB, tuple(sorted(runs)), histories or {}, Listing(tuple(backups)))


def readers(
    known: Mapping[tuple[int, int], Sequence[Record]],
) -> Callable[[Line], contextlib.AbstractContextManager[Told]]:
    @contextlib.contextmanager
    def reader(line: Line) -> Iterator[Told]:
        made = Told("/", "g", "/", line, "/")
        made.known, made.read = known, set()
        yield made

    return reader


USUAL = {(1, number): [commit(number, at(number))] for number in range(2, 21)}
"""A commit in each segment."""
TWO = inventory([Run(1, 2, 20)], [backup("old", 3, 3), backup("new", 10, 10)])


def chosen(found: Inventory, target: Target, known: Mapping[tuple[int, int], Sequence[Record]] = USUAL) -> str:
    return choice.choose(found, target, readers(known)).chain[-1].name


@given(st.integers(0, 25 * 60))
def test_the_newest_backup_from_before_a_time_is_taken_or_the_time_refused(second: int) -> None:
    when = START + timedelta(seconds=second)
    target = Target("time", time=when)
    # A commit within a backup, at the full minute in segments 3 and 10, must not be after the time.
    if second < 3 * 60 or second >= 20 * 60:
        with pytest.raises(InvalidInput, match="these can be reached: from 2026-11-29 00:03:30"):
            chosen(TWO, target)
    else:
        assert chosen(TWO, target) == ("old" if second < 10 * 60 else "new")


def test_the_clock_of_a_backup_does_not_count_where_its_wal_has_a_commit() -> None:
    late = inventory([Run(1, 2, 20)], [backup("old", 3, 3), backup("new", 10, 99)])
    assert chosen(late, Target("time", time=at(15))) == "new"
    silent = {key: value for key, value in USUAL.items() if key != (1, 10)}
    assert chosen(late, Target("time", time=at(15)), silent) == "old"


def test_a_time_is_reached_where_the_first_commit_after_it_is_though_the_last_one_is_older() -> None:
    """The clock was ahead in segment 7, and was set back."""
    ahead = {**USUAL, (1, 7): [commit(7, at(60))]}
    assert chosen(TWO, Target("time", time=at(40)), ahead) == "old"
    # From the newer backup on there is one as well, so that is the better choice.
    assert chosen(TWO, Target("time", time=at(15)), ahead) == "new"
    with pytest.raises(InvalidInput, match="the last commit is of 2026-11-29 00:20:00"):
        chosen(TWO, Target("time", time=at(60)), ahead)


def test_a_commit_after_the_time_anywhere_within_a_backup_rules_it_out() -> None:
    """There PostgreSQL would stop before the backup is consistent."""
    within = {**USUAL, (1, 10): [commit(10, at(30), 100), commit(10, at(10), 200)]}
    assert chosen(TWO, Target("time", time=at(15)), within) == "old"


def test_of_a_clock_that_backups_saw_going_back_is_told() -> None:
    back = inventory([Run(1, 2, 20)], [backup("old", 3, 30), backup("new", 10, 10)])
    (warning,) = choice.choose(back, Target("time", time=at(15)), readers(USUAL)).warnings
    assert "The clock was set back" in warning
    assert choice.choose(TWO, Target("time", time=at(15)), readers(USUAL)).warnings == ()


def test_an_exclusive_time_needs_a_commit_at_it_or_after() -> None:
    assert chosen(TWO, Target("time", time=at(20), inclusive=False)) == "new"
    with pytest.raises(InvalidInput, match="no commit after it"):
        chosen(TWO, Target("time", time=at(20)))
    assert chosen(TWO, Target("time", time=at(10), inclusive=False)) == "old"


@given(st.integers(0, 22 * MB))
def test_an_lsn_takes_the_newest_backup_that_ended_before(byte: int) -> None:
    target = Target("lsn", lsn=byte)
    if byte < 3 * MB + MB // 2 or byte > 20 * MB + 1000:
        with pytest.raises(InvalidInput, match="cannot be reached"):
            chosen(TWO, target)
    else:
        assert chosen(TWO, target) == ("old" if byte < 10 * MB + MB // 2 else "new")


def test_names_and_transactions_are_found_in_the_wal() -> None:
    points = {**USUAL, (1, 7): [Record("RESTORE_POINT", 7 * MB + 90, name="here")]}
    assert chosen(TWO, Target("name", name="here"), points) == "old"
    assert choice.choose(TWO, Target("name", name="here"), readers(points)).lsn == 7 * MB + 90
    again = {**points, (1, 5): [Record("RESTORE_POINT", 5 * MB + 90, name="here")]}
    with pytest.raises(InvalidInput, match="several restore points 'here', at the LSNs 0/50005A, 0/70005A"):
        chosen(TWO, Target("name", name="here"), again)
    # Before the backup that is taken, one of the same name is no matter.
    before = {**points, (1, 2): [Record("RESTORE_POINT", 2 * MB + 90, name="here")]}
    assert chosen(TWO, Target("name", name="here"), before) == "old"
    assert chosen(TWO, Target("xid", xid=12)) == "new"
    assert chosen(TWO, Target("xid", xid=(1 << 32) + 12)) == "new"
    with pytest.raises(InvalidInput, match=r"is not in the WAL; the nearest that ended: 19 \(LSN .*, 20 \(LSN "):
        chosen(TWO, Target("xid", xid=21))
    with pytest.raises(InvalidInput, match="no restore point 'heer' in the WAL; there are 'here'"):
        chosen(TWO, Target("name", name="heer"), points)
    with pytest.raises(InvalidInput, match="cannot be reached"):
        chosen(TWO, Target("xid", xid=3))


@pytest.mark.parametrize("target", [Target("name", name="here"), Target("xid", xid=7)])
def test_a_target_behind_a_segment_that_cannot_be_read_is_refused(target: Target) -> None:
    points = {**USUAL, (1, 7): [Record("RESTORE_POINT", 7 * MB + 90, name="here"), *USUAL[(1, 7)]]}

    @contextlib.contextmanager
    def reader(line: Line) -> Iterator[Reader]:
        with readers(points)(line) as made:
            made.damaged[damaged] = "a segment is damaged"
            yield made

    damaged = 5
    with pytest.raises(InvalidInput, match="cannot be reached from backup old: a segment is damaged"):
        choice.choose(TWO, target, reader)
    damaged = 8
    assert choice.choose(TWO, target, reader).chain[-1].name == "old"


@given(st.integers(0, 60), st.integers(0, 60), st.integers(-5, 70))
def test_a_search_looks_at_each_segment_once(first: int, count: int, middle: int) -> None:
    last = first + count
    newest_first = [list(block) for block in commits.backwards(first, last)]
    assert newest_first == sorted(newest_first, reverse=True)
    assert sorted(number for block in newest_first for number in block) == list(range(first, last + 1))
    around = [number for block in commits.outwards(first, last, middle) for number in block]
    assert sorted(around) == list(range(first, last + 1))
    assert around[0] == max(first, min(middle, last))


@given(st.integers(1, 300), st.integers(0, (1 << 32) - 1), st.data())
def test_a_transaction_is_found_near_its_like_also_where_ids_begin_anew(
    count: int, start: int, data: st.DataObject
) -> None:
    known = {(1, number): [commit(number, START, xid=(start + number) % (1 << 32))] for number in range(count)}
    number = data.draw(st.integers(0, count - 1))
    with readers(known)(lines.to(1, {}, MB)) as reading:
        found = commits.transaction(reading, (start + number) % (1 << 32), 0, count - 1)
        assert found.end == known[(1, number)][0]
        assert len(reading.read) <= 64


def test_a_gap_ends_what_can_be_reached() -> None:
    gap = inventory([Run(1, 2, 8), Run(1, 10, 20)], [backup("old", 3, 3)])
    with pytest.raises(InvalidInput, match="segment 000000010000000000000009 is missing"):
        chosen(gap, Target("latest"))
    with pytest.raises(InvalidInput, match="before LSN 0/900000, the last commit 2026-11-29 00:08:00"):
        chosen(gap, Target("time", time=at(9)))
    assert chosen(gap, Target("time", time=at(5))) == "old"
    mended = inventory([Run(1, 2, 8), Run(1, 10, 20)], [backup("old", 3, 3), backup("new", 11, 11)])
    assert chosen(mended, Target("latest")) == "new"


@pytest.mark.parametrize("runs", [(Run(1, 2, 8), Run(1, 10, 20)), (Run(1, 2, 8),)], ids=["within", "at the end"])
def test_a_damaged_segment_is_not_called_missing(runs: tuple[Run, ...]) -> None:
    """Also where it is the last one: the newest moment is behind it."""
    name = "000000010000000000000009"
    found = replace(inventory(list(runs), [backup("old", 3, 3)]), rotten={name: "its checksum is another."})
    with pytest.raises(InvalidInput, match=f"segment {name} is damaged: its checksum is another. On timeline"):
        chosen(found, Target("latest"))
    with pytest.raises(InvalidInput, match=f"Behind that, the WAL segment {name} is damaged"):
        chosen(found, Target("time", time=at(9)))
    assert chosen(found, Target("time", time=at(5))) == "old"


def test_a_backup_that_lacks_its_own_wal_is_not_taken() -> None:
    lacking = inventory([Run(1, 2, 9), Run(1, 11, 20)], [backup("old", 3, 3), backup("new", 10, 10)])
    assert [reach.kept.name for reach in choice.reaches(lacking)] == ["old"]


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (inventory([Run(1, 2, 20)], []), "it has no backup"),
        (inventory([Run(1, 2, 20)], [backup("i", 3, 3, kind="incremental", parent="f")]), "the full backup"),
        (inventory([], [backup("old", 3, 3)]), "lacks WAL from its own time"),
    ],
)
def test_why_nothing_can_be_restored(found: Inventory, why: str) -> None:
    with pytest.raises(HostFailed, match=why):
        chosen(found, Target("latest"))


# Timeline 2 left timeline 1 within segment 12.
FORK = {2: (Ancestor(1, 12 * MB + 5000),)}


def test_after_a_failover_the_new_line_is_taken_without_a_word() -> None:
    found = inventory([Run(1, 2, 11), Run(2, 12, 20)], [backup("old", 3, 3)], FORK)
    known = {(2 if number > 11 else 1, number): [commit(number, at(number))] for number in range(2, 21)}
    made = choice.choose(found, Target("latest"), readers(known))
    assert (made.reach.line.timeline, made.reach.last, made.warnings) == (2, 20, ())


@pytest.mark.parametrize(("newest", "line"), [(13, 1), (40, 2)], ids=["stray", "taken back"])
def test_of_several_ends_the_one_with_the_newest_commit_is_taken(newest: int, line: int) -> None:
    found = inventory([Run(1, 2, 20), Run(2, 12, 13)], [backup("old", 3, 3)], FORK)
    known = {**USUAL, (2, 13): [commit(13, at(newest))]}
    made = choice.choose(found, Target("latest"), readers(known))
    assert made.reach.line.timeline == line
    (warning,) = made.warnings
    assert "several ends" in warning
    named = choice.choose(found, Target("latest", timeline=3 - line), readers(known))
    assert (named.reach.line.timeline, named.warnings) == (3 - line, ())


def test_a_backup_behind_a_fork_is_not_on_the_other_line() -> None:
    found = inventory([Run(1, 2, 20), Run(2, 12, 13)], [backup("old", 3, 3), backup("new", 15, 15)], FORK)
    assert chosen(found, Target("latest", timeline=2), {**USUAL, (2, 13): [commit(13, at(50))]}) == "old"
    assert chosen(found, Target("latest", timeline=1)) == "new"
    with pytest.raises(InvalidInput, match="Timeline 3 cannot be reached"):
        chosen(found, Target("latest", timeline=3))
