# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recovery windows, and the WAL that a restore takes: over timelines, promotions that were mistakes, and gaps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import worlds
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from keeping import GENERATION, MIDNIGHT, manifest
from worlds import QUARTER, SEGMENT, World

from pgops.errors import InvalidInput
from pgops.repository import wal, windows
from pgops.repository.backups import Kept, Listing
from pgops.repository.inventory import Inventory
from pgops.repository.wal import Ancestor, Run
from pgops.repository.windows import Piece, Reach, Span, Window

MB = 1 << 20
BRANCHED = {2: (Ancestor(1, 5 * MB + 77),)}
TWICE = {3: (Ancestor(1, 5 * MB + 77), Ancestor(2, 5 * MB + 99))}
KINDS = ("write", "write", "backup", "backup", "promote", "recover", "stray", "lose")


def kept(name: str, start: int, stop: int, timeline: int = 1, **other: object) -> Kept:
    made = manifest(id=name, start_lsn=start, stop_lsn=stop, timeline=timeline, segment_bytes=MB, **other)
    return Kept(name, made)


def inventory(runs: list[Run], *backups: Kept, **other: object) -> Inventory:
    usual: dict[str, object] = {"histories": BRANCHED, "listing": Listing(backups), **other}
    return Inventory(GENERATION, MB, tuple(runs), **usual)  # type: ignore[arg-type]


def found(held: Inventory) -> list[tuple[int, int, int, tuple[str, ...]]]:
    """The windows: timeline, bytes since and until, and backups."""
    all_of_them = windows.windows(held, held.listing.backups)
    return [(window.timeline, window.since, window.until, window.backups) for window in all_of_them]


def test_lines() -> None:
    assert windows.line(1, {}) == (Piece(1, 0, None),)
    assert windows.line(2, BRANCHED) == (Piece(1, 0, 5 * MB + 77), Piece(2, 5 * MB + 77, None))
    # Without its history file, but with that of one that comes from it.
    assert windows.line(2, TWICE) == windows.line(2, BRANCHED)
    # Archiving began after the promotion: nobody knows where it comes from.
    assert windows.line(4, TWICE) == (Piece(4, 0, None),)
    assert windows.ancestors(4, TWICE) is None
    assert windows.ancestors(1, TWICE) == ()


def test_the_segment_in_which_a_timeline_branched_off_is_on_the_newest() -> None:
    assert windows.spans(2, BRANCHED, MB) == (Span(1, 0, 4), Span(2, 5, None))
    assert windows.spans(3, TWICE, MB) == (Span(1, 0, 4), Span(3, 5, None))
    assert windows.spans(2, {2: (Ancestor(1, 5 * MB),)}, MB) == (Span(1, 0, 4), Span(2, 5, None))


def test_the_wal_that_a_restore_replays() -> None:
    backup = kept("a", 3 * MB + 40, 3 * MB + 300).manifest
    assert windows.needed(backup, 1, 0, BRANCHED) == windows.own(backup) == (Run(1, 3, 3),)
    assert windows.needed(backup, 1, 7 * MB, BRANCHED) == (Run(1, 3, 6),)
    assert windows.needed(backup, 1, 7 * MB + 1, BRANCHED) == (Run(1, 3, 7),)
    assert windows.needed(backup, 2, 7 * MB + 1, BRANCHED) == (Run(1, 3, 4), Run(2, 5, 7))
    assert windows.segments(backup, 2, 5 * MB + 1, BRANCHED) == (
        "000000010000000000000003",
        "000000010000000000000004",
        "000000020000000000000005",
    )
    # It ends with a segment: the next one is not needed.
    assert windows.own(kept("a", 3 * MB + 40, 5 * MB).manifest) == (Run(1, 3, 4),)
    assert windows.own(kept("a", 3 * MB + 40, 5 * MB + 1).manifest) == (Run(1, 3, 5),)
    # It began in the segment in which the timeline branched off.
    early = kept("a", 5 * MB + 40, 5 * MB + 70).manifest
    assert windows.needed(early, 2, 6 * MB, BRANCHED) == (Run(2, 5, 5),)
    assert windows.needed(early, 1, 6 * MB, BRANCHED) == (Run(1, 5, 5),)


def test_a_backup_leads_to_no_timeline_that_left_before_its_end() -> None:
    for stop, leads in ((5 * MB + 77, True), (5 * MB + 78, False), (9 * MB, False)):
        backup = kept("a", 5 * MB + 40, stop).manifest
        assert windows.leads_to(backup, 2, BRANCHED) is leads
        assert windows.leads_to(backup, 1, BRANCHED)
    newer = kept("b", 6 * MB, 6 * MB + 5, timeline=2).manifest
    assert not windows.leads_to(newer, 1, BRANCHED)
    with pytest.raises(InvalidInput, match=r"0/600005.*not in the history of timeline 1"):
        windows.needed(newer, 1, 7 * MB, BRANCHED)


@pytest.mark.parametrize(
    ("runs", "timeline", "reach"),
    [
        ([Run(1, 0, 9)], 1, Reach(10 * MB, "00000001000000000000000A")),
        ([Run(1, 2, 3), Run(1, 5, 9)], 1, Reach(4 * MB, "000000010000000000000004")),
        ([Run(1, 0, 2), Run(1, 4, 9)], 1, Reach(None, "000000010000000000000003", "missing_wal")),
        ([], 1, Reach(None, "000000010000000000000003", "missing_wal")),
        ([Run(1, 0, 4), Run(2, 5, 8)], 2, Reach(9 * MB, "000000020000000000000009")),
        ([Run(1, 0, 9), Run(2, 6, 8)], 2, Reach(5 * MB, "000000020000000000000005")),
        ([Run(1, 0, 9)], 2, Reach(5 * MB, "000000020000000000000005")),
        ([Run(1, 0, 3), Run(2, 5, 8)], 2, Reach(4 * MB, "000000010000000000000004")),
    ],
)
def test_how_far_replay_gets(runs: list[Run], timeline: int, reach: Reach) -> None:
    backup = kept("a", 3 * MB + 40, 3 * MB + 300)
    assert windows.reachable(backup.manifest, timeline, inventory(runs, backup)) == reach


def test_a_backup_of_another_timeline_is_of_no_use() -> None:
    backup = kept("a", 6 * MB, 7 * MB)
    reach = windows.reachable(backup.manifest, 2, inventory([Run(1, 0, 9), Run(2, 5, 9)], backup))
    assert reach == Reach(None, "", "another_timeline")


def test_windows_are_split_by_gaps() -> None:
    backups = [kept("a", MB, MB + 9), kept("b", 2 * MB, 2 * MB + 9), kept("c", 6 * MB, 6 * MB + 9)]
    held = inventory([Run(1, 1, 3), Run(1, 5, 8)], *backups, histories={})
    assert found(held) == [(1, MB + 9, 4 * MB, ("a", "b")), (1, 6 * MB + 9, 9 * MB, ("c",))]
    (first, _second) = windows.windows(held, held.listing.backups)
    assert first == Window(1, MB + 9, MIDNIGHT, 4 * MB, "000000010000000000000004", ("a", "b"))
    # The WAL of the gap's end makes it one.
    whole = replace(held, runs=(Run(1, 1, 8),))
    assert found(whole) == [(1, MB + 9, 9 * MB, ("a", "b", "c"))]
    # Damaged is as bad as missing.
    assert found(whole.without(["000000010000000000000004", "00000001.history"])) == found(held)


def test_a_stray_promotion_takes_no_window_away() -> None:
    backups = [kept("a", 2 * MB, 2 * MB + 9), kept("b", 6 * MB, 6 * MB + 9)]
    held = inventory([Run(1, 0, 9), Run(2, 5, 6)], *backups)
    assert found(held) == [(1, 2 * MB + 9, 10 * MB, ("a", "b")), (2, 2 * MB + 9, 7 * MB, ("a",))]


def test_a_backup_whose_chain_is_not_whole_does_not_count() -> None:
    full, top = kept("a", MB, MB + 9), kept("c", 3 * MB, 3 * MB + 9, kind="incremental", parent="b")
    between = kept("b", 2 * MB, 2 * MB + 9, kind="incremental", parent="a")
    runs = [Run(1, 0, 8)]
    assert found(inventory(runs, full, between, top, histories={})) == [(1, MB + 9, 9 * MB, ("a", "b", "c"))]
    assert found(inventory(runs, full, top, histories={})) == [(1, MB + 9, 9 * MB, ("a",))]
    assert found(inventory(runs, between, top, histories={})) == []


def test_why_there_is_no_window() -> None:
    def why(held: Inventory) -> dict[int, str]:
        return windows.prevented(held, held.listing.backups)

    healthy = [Run(1, 0, 9)]
    backup, orphan = kept("a", MB, MB + 9), kept("b", MB, MB + 9, kind="incremental", parent="x")
    assert why(inventory(healthy, histories={})) == {1: "no_backup"}
    assert why(inventory(healthy, backup, histories={})) == {}
    assert why(inventory(healthy, orphan, histories={})) == {1: "incomplete_chain"}
    assert why(inventory([Run(1, 2, 9)], backup, histories={})) == {1: "missing_wal"}
    assert why(inventory([], backup, histories={})) == {1: "missing_wal"}
    late = kept("a", 6 * MB, 6 * MB + 9)
    assert why(inventory([Run(1, 0, 9), Run(2, 5, 9)], late)) == {2: "no_backup"}
    damaged = inventory(healthy, backup, kept("c", 6 * MB, 6 * MB + 9, timeline=2), histories={}, damaged={2: "x"})
    assert why(damaged) == {2: "damaged_history"}
    assert [window[0] for window in found(damaged)] == [1]


def test_a_timeline_is_known_by_anything_that_is_of_it() -> None:
    held = inventory([Run(1, 0, 9)], kept("a", 6 * MB, 6 * MB + 9, timeline=4), damaged={3: "x"})
    assert windows.timelines(held) == (1, 2, 3, 4)


def test_the_backup_for_a_target() -> None:
    backups = [kept("a", MB, MB + 9), kept("b", 3 * MB, 3 * MB + 9), kept("c", 6 * MB, 6 * MB + 9)]
    held = inventory([Run(1, 0, 9), Run(2, 5, 6)], *backups)

    def name(timeline: int, byte: int) -> str | None:
        base = windows.base(held, held.listing.backups, timeline, byte)
        return base and base.name

    assert name(1, MB + 8) is None
    assert name(1, MB + 9) == "a"
    assert name(1, 3 * MB + 8) == "a"  # within a running backup
    assert name(1, 3 * MB + 9) == "b"
    assert name(1, 10 * MB) == "c"
    assert name(1, 10 * MB + 1) is None
    assert name(2, 7 * MB) == "b"
    assert windows.base(replace(held, damaged={2: ""}), held.listing.backups, 2, 7 * MB) is None


def naive_reach(world: World, backup: Kept, timeline: int) -> int | None:
    """How far replay gets, found by trying: the content of each file decides, and nothing else."""
    start, stop = backup.manifest.start_lsn // QUARTER, backup.manifest.stop_lsn // QUARTER
    if any(world.owner(timeline, quarter) != backup.manifest.timeline for quarter in range(start, stop)):
        return None
    archived = {(number, world.content(on, number)) for on, number in world.archived()}
    number = start // 4
    while (number, world.content(timeline, number)) in archived:
        number += 1
    return number * SEGMENT if number * 4 >= stop else None


@given(worlds.acts(KINDS))
@examples(max_examples=1000)
@example([("backup", 0, 1), ("write", 9, 1), ("recover", 0, 6), ("recover", 1, 0), ("write", 30, 1)])
@example([("backup", 0, 1), ("write", 9, 1), ("stray", 0, 6), ("backup", 0, 0), ("write", 30, 1)])
def test_replay_gets_as_far_as_the_right_content_is_there(acts: list[worlds.Act]) -> None:
    world = World().live(acts)
    held = world.inventory()
    for backup in held.listing.backups:
        for timeline in windows.timelines(held):
            reach = windows.reachable(backup.manifest, timeline, held)
            assert reach.byte == naive_reach(world, backup, timeline)
            if reach.byte is None:
                continue
            needed = list(worlds.numbers(windows.needed(backup.manifest, timeline, reach.byte, held.histories)))
            assert set(needed) <= world.archived()
            first = backup.manifest.start_lsn // SEGMENT
            assert [number for _on, number in needed] == list(range(first, reach.byte // SEGMENT))
            assert all(world.content(on, number) == world.content(timeline, number) for on, number in needed)
            place = wal.place(reach.missing, SEGMENT)
            assert place
            assert (place.timeline, place.segment) not in world.archived()
            assert place.lsn == reach.byte


@given(worlds.acts(KINDS), st.data())
@examples(max_examples=500)
def test_a_byte_is_in_a_window_if_some_backup_reaches_it(acts: list[worlds.Act], data: st.DataObject) -> None:
    world = World().live(acts)
    held = world.inventory()
    all_of_them = windows.windows(held, held.listing.backups)
    without = windows.prevented(held, held.listing.backups)
    timelines = windows.timelines(held)
    assert {window.timeline for window in all_of_them} == set(timelines) - set(without)
    for timeline in timelines:
        byte = data.draw(st.integers(0, max(world.ends.values()) + 2)) * QUARTER
        reaches = [
            backup.name
            for backup in held.listing.backups
            for reach in [naive_reach(world, backup, timeline)]
            if reach is not None and backup.manifest.stop_lsn <= byte <= reach
        ]
        inside = [window for window in all_of_them if window.timeline == timeline]
        assert sum(window.since <= byte <= window.until for window in inside) == bool(reaches)
        base = windows.base(held, held.listing.backups, timeline, byte)
        assert (base and base.name) == (reaches[-1] if reaches else None)
