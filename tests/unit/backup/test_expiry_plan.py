# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What expires: by age, count and window; what stays whatever happens; and the WAL that goes along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest
import worlds
from hypothesis import example, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from keeping import MIDNIGHT, manifest
from worlds import SEGMENT, World

from pgops.backup import retention, surplus
from pgops.backup.expiry import ExpiryPlan, plan
from pgops.backup.retention import Retention
from pgops.errors import InvalidInput
from pgops.repository import chains, wal, windows
from pgops.repository.backups import Kept, Listing
from pgops.repository.inventory import Inventory
from pgops.repository.manifests import FULL
from pgops.repository.wal import Ancestor, Run

MB = 1 << 20
ONLY_AGE = Retention(30, 7, 0, 0)


def kept(name: str, at: int, day: float, parent: str = "", **other: Any) -> Kept:
    """A backup that began in a segment, ended in it, and was completed on a day."""
    pin, problems = other.pop("pin", None), other.pop("problems", ())
    usual: dict[str, Any] = {
        "id": name,
        "kind": "incremental" if parent else FULL,
        "parent": parent,
        "segment_bytes": MB,
        "start_lsn": at * MB + 40,
        "stop_lsn": at * MB + 300,
        "completed_at": MIDNIGHT + timedelta(days=day),
    }
    return Kept(name, manifest(**{**usual, **other}), pin, problems=problems)


def held(*backups: Kept, runs: Sequence[Run] = (Run(1, 0, 99),), **other: Any) -> Inventory:
    ordered = tuple(sorted(backups, key=lambda one: one.manifest.position))
    usual: dict[str, Any] = {"histories": {}, "listing": Listing(ordered), **other}
    return Inventory("7412345678901234567-17", MB, tuple(runs), **usual)


def on(day: float, inventory: Inventory, wanted: Retention = ONLY_AGE, **other: Any) -> ExpiryPlan:
    return plan(inventory, wanted, MIDNIGHT + timedelta(days=day), **other)


def removed(found: ExpiryPlan) -> list[str]:
    return [expired.kept.name for expired in found.removed]


def reasons(found: ExpiryPlan) -> dict[str, tuple[str, ...]]:
    return {one.kept.name: one.words for one in found.kept}


def deleted(found: ExpiryPlan) -> list[int]:
    """The numbers of the segments that are deleted of timeline 1."""
    places = [wal.place(name, MB) for name in found.wal]
    return [place.lsn // MB for place in places if place and place.timeline == 1]


# --- retention


@pytest.mark.parametrize(
    "given",
    [
        {"ful_days": 3},
        {"full_days": -1},
        {"full_days": "30"},
        {"full_days": True},
        {"full_days": float("nan")},
        {"full_days": float("inf")},
        {"minimum_full": 1.5},
        {"other_days": None},
    ],
)
def test_a_retention_that_cannot_be_meant_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="pgops_backup_retention"):
        retention.parse(given)


def test_retention() -> None:
    assert retention.parse({}) == Retention(30.0, 7.0, 2, 0.0)
    assert retention.parse({"full_days": 3, "minimum_full": 0}) == Retention(3, 7.0, 0, 0.0)
    assert retention.parse({"window_days": 36500}).window_days == 36500


@pytest.mark.parametrize("wanted", [Retention(), Retention(window_days=14), Retention(minimum_full=1)])
def test_what_was_found_damaged_stands_for_nothing(wanted: Retention) -> None:
    hurt = ("base/1 has another checksum",)
    good = kept("good", 1, 0)
    bad = [kept("bad", 20, 20, problems=hurt), kept("worse", 30, 30, problems=hurt)]
    found = on(31, held(good, *bad), wanted)
    assert removed(found) == []
    assert "last" in reasons(found)["good"]
    assert deleted(found) == [0]
    added = kept("added", 31, 30.5, "worse")
    assert removed(on(31, held(good, *bad, added), wanted)) == []
    lost = on(60, held(*bad), wanted)
    assert (removed(lost), lost.wal) == ([], ())
    assert "None of the backups can be restored" in lost.skipped


def test_age_counts_by_kind() -> None:
    full, other, newest = kept("f", 1, 0), kept("i", 2, 0.5, "f"), kept("n", 9, 20)
    assert removed(on(7.5, held(full, other))) == []
    found = on(20, held(full, other, newest))
    assert removed(found) == ["i"]
    assert [expired.reason for expired in found.removed] == [
        "It is older than 7 days, for which others than full ones are kept."
    ]
    assert removed(on(30, held(full, other, newest))) == ["i"]
    assert removed(on(30.01, held(full, other, newest))) == ["i", "f"]


def test_an_incremental_within_its_age_keeps_its_chain() -> None:
    backups = [kept("f", 1, 0), kept("i", 2, 28, "f"), kept("j", 3, 33, "i"), kept("n", 9, 39)]
    found = on(39.5, held(*backups))
    assert removed(found) == []
    assert reasons(found) == {"f": ("chain",), "i": ("chain",), "j": ("age",), "n": ("age", "last")}


def test_only_full_ones_satisfy_the_minimum_and_a_chain_counts_once() -> None:
    backups = [kept("f", 1, 0), kept("g", 2, 1), kept("i", 3, 2, "g"), kept("h", 4, 3), kept("j", 5, 4, "h")]
    found = on(400, held(*backups), Retention(30, 7, 2, 0))
    assert removed(found) == ["f", "i"]
    assert reasons(found) == {"g": ("minimum",), "h": ("chain", "minimum"), "j": ("last",)}


def test_fewer_than_the_minimum_is_no_error() -> None:
    found = on(400, held(kept("f", 5, 0)), Retention(30, 7, 3, 0))
    assert (removed(found), found.skipped) == ([], "")
    assert deleted(found) == [0, 1, 2, 3, 4]


def test_a_window_keeps_the_newest_full_one_from_before_its_start() -> None:
    backups = [kept("a", 1, 0), kept("b", 2, 10), kept("c", 3, 20), kept("d", 4, 30)]
    wanted = Retention(1, 1, 0, 15)
    found = on(31, held(*backups), wanted)
    assert removed(found) == ["a"]
    assert reasons(found)["b"] == ("window",)
    assert deleted(found) == [0, 1]
    assert removed(on(24.9, held(*backups[:3]), wanted)) == []
    assert removed(on(25, held(*backups[:3]), wanted)) == ["a"]  # b is as old as the window


def test_the_last_good_chain_stays() -> None:
    backups = [
        kept("f", 1, 0),
        kept("i", 2, 1, "f"),
        kept("j", 3, 2, "i"),
        kept("k", 3, 1, "f", stop_lsn=3 * MB + 99),
    ]
    found = on(4000, held(*backups))
    assert removed(found) == ["k"]
    assert reasons(found) == {"f": ("chain",), "i": ("chain",), "j": ("last",)}


def test_a_backup_without_its_wal_or_chain_satisfies_nothing() -> None:
    good, torn, orphan = kept("g", 1, 0), kept("t", 5, 1), kept("o", 7, 2, "x")
    inventory = held(good, torn, orphan, runs=[Run(1, 0, 4), Run(1, 6, 9)])
    found = on(400, inventory, Retention(30, 7, 1, 0))
    assert reasons(found) == {"g": ("last", "minimum"), "o": ("last",)}
    assert removed(found) == ["t"]
    assert deleted(found) == [0]


def test_nothing_expires_where_no_backup_is_good() -> None:
    found = on(400, held(kept("f", 5, 0), kept("g", 6, 1), runs=[Run(1, 0, 4)]))
    assert (removed(found), found.wal) == ([], ())
    assert "None of the backups can be restored" in found.skipped


def test_without_a_backup_no_wal_is_deleted() -> None:
    found = on(400, held())
    assert (found.wal, found.skipped) == ((), "There is no backup: all WAL is kept.")


def test_nothing_expires_after_a_failed_backup() -> None:
    backups = held(kept("f", 1, 0), kept("g", 2, 60))
    assert removed(on(60, backups)) == ["f"]
    found = on(60, backups, failed="It failed.")
    assert (removed(found), found.wal, found.skipped) == ([], (), "It failed.")
    assert reasons(found) == {"f": (), "g": ("age", "last")}
    assert found.before == found.after


def test_nothing_expires_where_a_manifest_is_damaged() -> None:
    backups = held(kept("f", 1, 0), kept("g", 2, 60))
    broken = replace(backups, listing=replace(backups.listing, damaged={"x": "It is damaged.", "y": ""}))
    found = on(60, broken)
    assert (removed(found), found.wal) == ([], ())
    assert found.skipped == "Nobody knows what backup x (and 1 more) needs. It is damaged."


def test_nothing_expires_before_the_newest_backup_was_completed() -> None:
    backups = held(kept("f", 1, 0), kept("g", 2, 60), kept("h", 3, 50))
    found = on(59.9, backups)
    assert (removed(found), found.wal) == ([], ())
    assert "the clock is wrong" in found.skipped
    assert removed(on(60, backups)) == ["f"]


def test_a_backup_that_was_taken_with_a_clock_set_back_is_not_older_than_one_from_before_it() -> None:
    backups = held(kept("f", 1, 0), kept("g", 2, 60), kept("h", 3, -3000), kept("i", 4, 80))
    found = on(85, backups)
    assert removed(found) == ["f"]
    assert reasons(found)["h"] == ("age",)


def test_backups_of_a_dead_end_grow_old_whatever_goes_on_elsewhere() -> None:
    """A copy was promoted by mistake, and backed up once; the cluster goes on upon timeline 1."""
    runs = (Run(1, 0, 20), Run(2, 5, 9), Run(3, 13, 20))
    backups = [kept("a", 3, 0), kept("s", 6, 5, timeline=2), kept("b", 8, 90), kept("c", 12, 95)]
    found = on(100, held(*backups, runs=runs[:2], histories=BRANCHED), Retention(30, 7, 1, 0))
    assert reasons(found) == {"s": ("last", "minimum"), "b": ("age",), "c": ("age", "last", "minimum")}
    # Nor is it the last good chain because its timeline has the higher number.
    late = on(1000, held(*backups, runs=runs[:2], histories=BRANCHED), Retention(30, 7, 1, 0))
    assert reasons(late) == {"s": ("last", "minimum"), "c": ("last", "minimum")}
    third = {**BRANCHED, 3: (Ancestor(1, 13 * MB),)}
    found = on(100, held(*backups, runs=runs, histories=third), Retention(30, 7, 1, 20))
    assert reasons(found) == {
        "a": ("window",),
        "b": ("age", "window"),
        "c": ("age", "last", "minimum", "window"),
        "s": ("last", "minimum", "window"),
    }
    newest = kept("t", 14, 99, timeline=3)
    found = on(100, held(*backups, newest, runs=runs, histories=third), Retention(30, 7, 1, 0))
    assert removed(found) == ["a", "s"]


# --- pins, readers


def test_a_pin_keeps_the_chain_and_the_wal_of_its_own() -> None:
    backups = [kept("f", 3, 0), kept("i", 5, 1, "f", pin="why"), kept("j", 7, 2, "i"), kept("n", 9, 100)]
    found = on(100, held(*backups))
    assert removed(found) == ["j"]
    assert reasons(found) == {"f": ("chain",), "i": ("pin",), "n": ("age", "last")}
    assert deleted(found) == [0, 1, 2, 4, 6, 7, 8]
    assert found.floors == {1: 9 * MB}


def test_what_is_read_stays_with_all_wal_from_there_on() -> None:
    backups = [kept("f", 3, 0), kept("i", 5, 1, "f"), kept("j", 7, 2, "i"), kept("n", 9, 100)]
    found = on(100, held(*backups), reading={"i"})
    assert removed(found) == ["j"]
    assert deleted(found) == [0, 1, 2, 4]
    pinned = [replace(backups[0], pin="why"), *backups[1:]]
    assert deleted(on(100, held(*pinned))) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert deleted(on(100, held(*pinned), reading={"f"})) == [0, 1, 2]


# --- WAL


BRANCHED = {2: (Ancestor(1, 5 * MB + 77),)}
TWO = (Run(1, 0, 9), Run(2, 5, 20))


def test_the_floor_is_on_each_timeline_of_the_line() -> None:
    backups = [kept("f", 3, 0), kept("g", 8, 100, timeline=2), kept("h", 12, 101, timeline=2)]
    early = on(20, held(backups[0], runs=TWO, histories=BRANCHED))
    assert (early.floors, early.wal) == ({1: 3 * MB, 2: 5 * MB}, tuple(wal.name(1, n, MB) for n in range(3)))
    late = on(101, held(*backups, runs=TWO, histories=BRANCHED))
    assert late.floors == {2: 8 * MB}
    assert late.wal == (*(wal.name(1, n, MB) for n in range(10)), *(wal.name(2, n, MB) for n in range(5, 8)))


def test_partial_segments_and_backup_history_files_go_with_their_places() -> None:
    others = (
        "000000010000000000000002.00000028.backup",
        "000000010000000000000003.00000028.backup",
        "000000010000000000000002.partial",
        "00000001000000000000000A.partial",
    )
    found = on(20, held(kept("f", 3, 0), others=others))
    assert [name for name in found.wal if "." in name] == [others[0], others[2]]


def test_what_is_no_segment_stays_with_the_only_segment_of_a_pinned_backup() -> None:
    others = (
        "000000010000000000000003.00000028.backup",
        "000000010000000000000003.partial",
        "000000010000000000000004.00000028.backup",
        "000000020000000000000006.00000028.backup",
    )
    backups = [kept("f", 3, 0, pin="why"), kept("n", 9, 100, timeline=3)]
    histories = {**BRANCHED, 3: (Ancestor(1, 8 * MB),)}
    found = on(100, held(*backups, runs=[Run(3, 8, 20)], others=others, histories=histories))
    assert [name for name in found.wal if "." in name] == [*others[2:]]


def test_after_a_recovery_to_before_the_newest_backups_the_older_ones_count() -> None:
    """The two newest full ones are on timeline 1, after the moment from which timeline 2 goes on: neither leads
    there."""
    backups = [kept("a", 1, 0), kept("b", 2, 1), kept("c", 3, 2), kept("d", 7, 3), kept("e", 8, 4)]
    inventory = held(*backups, runs=TWO, histories=BRANCHED)
    found = on(400, inventory, Retention(30, 7, 2, 0))
    assert reasons(found) == {
        "b": ("minimum",),
        "c": ("last", "minimum"),
        "d": ("minimum",),
        "e": ("last", "minimum"),
    }
    # On timeline 1, b and c lead to timeline 2 only: what is between that and d is not needed.
    assert found.floors == {1: 7 * MB, 2: 5 * MB}
    assert deleted(found) == [0, 1, 5, 6]
    window = on(14, inventory, Retention(1, 1, 0, 12.5))
    assert reasons(window)["c"] == ("last", "window")
    assert reasons(window)["b"] == ("window",)


def test_a_timeline_of_unknown_origin_keeps_its_wal_as_long_as_older_ones_have_backups() -> None:
    runs = (Run(1, 0, 9), Run(5, 5, 20))
    backups = [kept("f", 3, 0), kept("g", 8, 20, timeline=5)]
    found = on(20, held(*backups, runs=runs))
    assert found.floors == {1: 3 * MB, 5: 0}
    assert found.notes[0].startswith("00000005.history is not there")
    late = on(100, held(*backups, runs=runs))
    assert late.floors == {5: 8 * MB}
    assert len(late.wal) == 13
    broken = on(20, held(*backups, runs=runs, damaged={5: "It cannot be read."}))
    assert (broken.floors, broken.notes) == ({1: 3 * MB, 5: 0}, ("It cannot be read.",))


def test_the_newest_timeline_is_kept_though_no_backup_leads_to_it() -> None:
    stray = {2: (Ancestor(1, 5 * MB + 77),)}
    found = on(20, held(kept("f", 8, 0), runs=TWO, histories=stray))
    assert found.floors == {1: 8 * MB, 2: 0}
    # Once there is a newer one, it was a dead end.
    newer = {**stray, 3: (Ancestor(1, 15 * MB + 5),)}
    found = on(20, held(kept("f", 8, 0), runs=(*TWO, Run(3, 15, 16)), histories=newer))
    assert found.floors == {1: 8 * MB, 3: 15 * MB}


# --- whatever happens


KINDS = ("write", "write", "backup", "backup", "backup", "promote", "recover", "stray", "lose")


@dataclass(frozen=True)
class Case:
    world: World
    inventory: Inventory
    wanted: Retention
    reading: frozenset[str]

    def plan(self, inventory: Inventory | None = None, days: float = 0) -> ExpiryPlan:
        now = self.world.now + timedelta(days=days)
        return plan(inventory or self.inventory, self.wanted, now, self.reading)


@st.composite
def cases(draw: st.DrawFn, kinds: Sequence[str] = KINDS) -> Case:
    world = World().live(draw(worlds.acts(kinds, 40)))
    inventory = world.inventory()
    names = [one.name for one in inventory.listing.backups]
    some = st.sets(st.sampled_from(names), max_size=2) if names else st.just(set())
    pinned, reading = draw(some), draw(some)
    backups = tuple(replace(one, pin="why" if one.name in pinned else None) for one in inventory.listing.backups)
    wanted = Retention(
        draw(st.sampled_from([0, 10, 30, 60])),
        draw(st.sampled_from([0, 3, 7, 40])),
        draw(st.integers(0, 3)),
        draw(st.sampled_from([0, 0, 5, 20, 50])),
    )
    return Case(world, replace(inventory, listing=Listing(backups)), wanted, frozenset(reading))


def after(inventory: Inventory, found: ExpiryPlan) -> Inventory:
    """What is there once a plan was carried out."""
    gone = {expired.kept.name for expired in found.removed}
    backups = tuple(one for one in inventory.listing.backups if one.name not in gone)
    left = inventory.without(found.wal)
    others = tuple(name for name in inventory.others if name not in found.wal)
    return replace(left, listing=Listing(backups), others=others)


@given(cases())
@examples(max_examples=1000)
def test_nothing_that_is_kept_loses_its_chain_or_its_wal(case: Case) -> None:
    found = case.plan()
    left = after(case.inventory, found)
    assert [one.kept for one in found.kept] == list(left.listing.backups)
    assert found.after == windows.windows(left, left.listing.backups)
    names = {one.name for one in left.listing.backups}
    assert case.reading <= names
    assert {one.name for one in case.inventory.listing.backups if one.pin} <= names
    known, known_before = left.listing.by_id(), case.inventory.listing.by_id()
    for one in found.kept:
        backup = one.kept.manifest
        assert chains.lineage(one.kept, known) == chains.lineage(one.kept, known_before)
        for timeline in windows.timelines(case.inventory):
            reach = windows.reachable(backup, timeline, left).byte
            before = windows.reachable(backup, timeline, case.inventory).byte
            if timeline == backup.timeline:
                assert (reach is None) == (before is None)
            if not one.limited or timeline in one.lines(case.inventory):
                assert reach == before


@given(cases())
@examples(max_examples=200)
def test_what_is_needed_and_nothing_else_is_kept(case: Case) -> None:
    found = case.plan()
    if found.skipped:
        assert (found.removed, found.wal) == ((), ())
        return
    left = after(case.inventory, found)
    needed = {segment for one in found.kept for segment in worlds.numbers(windows.own(one.kept.manifest))}
    for one in found.kept:
        for timeline in one.lines(case.inventory):
            runs = windows.needed(one.kept.manifest, timeline, 500 * SEGMENT, case.inventory.histories)
            needed.update(worlds.numbers(runs))
    newest = max(windows.timelines(case.inventory))
    reached = {timeline for one in found.kept for timeline in one.lines(case.inventory)}
    there, before = set(worlds.numbers(left.runs)), set(worlds.numbers(case.inventory.runs))
    assert (
        there - {segment for segment in before if segment[0] == newest and newest not in reached} == before & needed
    )
    for timeline, byte in found.floors.items():
        assert not {segment for segment in before - there if segment[0] == timeline and segment[1] * SEGMENT >= byte}


@given(cases())
@examples(max_examples=200)
def test_each_backup_stays_for_its_reasons_and_goes_without_one(case: Case) -> None:
    found = case.plan()
    if found.skipped:
        return
    wanted, now = case.wanted, case.world.now
    usable = [
        one
        for one in chains.complete(case.inventory.listing.backups)
        if windows.reachable(one.manifest, one.manifest.timeline, case.inventory).byte is not None
    ]
    fulls = [one for one in usable if one.manifest.kind == FULL]
    names = [one.kept.name for one in found.kept]
    for expired in found.removed:
        days = wanted.full_days if expired.kept.manifest.kind == FULL else wanted.other_days
        assert now - expired.kept.manifest.completed_at > timedelta(days=days)
        assert not set(names) & {one.name for one in chains.dependants(expired.kept, case.inventory.listing.backups)}
    for one in found.kept:
        days = wanted.full_days if one.kept.manifest.kind == FULL else wanted.other_days
        assert ("age" in one.words) == (now - one.kept.manifest.completed_at <= timedelta(days=days))
        assert ("pin" in one.words) == (one.kept.pin is not None)
        assert ("read" in one.words) == (one.kept.name in case.reading)
        if one.words == ("chain",):
            assert set(names) & {other.name for other in chains.dependants(one.kept, case.inventory.listing.backups)}
    assert usable[-1].name in names
    assert sum(one.name in names for one in fulls) >= min(wanted.minimum_full, len(fulls))
    if wanted.window_days:
        start = now - timedelta(days=wanted.window_days)
        older = [one for one in fulls if one.manifest.completed_at <= start]
        assert {one.name for one in fulls if one.manifest.completed_at > start} <= set(names)
        assert {one.name for one in older[-1:]} <= set(names)


@given(cases((*KINDS, "wake")))
@examples(max_examples=200)
@example(Case(World(), World().inventory(), ONLY_AGE, frozenset()))
def test_a_second_run_finds_nothing_to_do(case: Case) -> None:
    found = case.plan()
    again = case.plan(after(case.inventory, found))
    # Of two clocks one is wrong: with the older backup goes what was known of the younger's age.
    skewed = [one.manifest.completed_at for one in case.inventory.listing.backups]
    if skewed == sorted(skewed):
        assert (again.removed, again.wal) == ((), ())
        assert again.kept == found.kept
        assert again.floors == found.floors


@given(cases((*KINDS, "wake")), st.floats(0, 200), st.floats(0, 100))
@examples(max_examples=200)
def test_a_clock_that_is_slow_expires_no_more_than_a_right_one(case: Case, days: float, slow: float) -> None:
    right = {expired.kept.name for expired in case.plan(days=days).removed}
    wrong = {expired.kept.name for expired in case.plan(days=days - slow).removed}
    assert wrong <= right


@given(cases((*KINDS, "wake")), st.data())
@examples(max_examples=200)
def test_history_files_that_are_missing_or_damaged_cost_no_wal(case: Case, data: st.DataObject) -> None:
    histories = case.inventory.histories
    gone = data.draw(st.sets(st.sampled_from(sorted(histories)))) if histories else set()
    damaged = {timeline: "It is damaged." for timeline in gone if data.draw(st.booleans())}
    left_over = {timeline: named for timeline, named in histories.items() if timeline not in gone}
    blind = replace(case.inventory, histories=left_over, damaged=damaged)
    found = case.plan(blind)
    # With the files put back, all that could be restored from what was kept still can be.
    restored = after(case.inventory, found)
    for one in found.kept:
        for timeline in windows.timelines(case.inventory):
            if not one.limited:
                before = windows.reachable(one.kept.manifest, timeline, case.inventory)
                assert windows.reachable(one.kept.manifest, timeline, restored).byte == before.byte


@given(cases())
@examples(max_examples=200)
def test_the_order_of_removal_leaves_no_backup_without_what_it_stands_on(case: Case) -> None:
    found = case.plan(days=100)
    left = list(case.inventory.listing.backups)
    for expired in found.removed:
        assert not chains.dependants(expired.kept, left)
        left.remove(expired.kept)


def test_needs_of_many_segments_are_runs() -> None:
    inventory = held(kept("f", 3, 0), kept("g", 40, 1), runs=[Run(1, 0, 1 << 30)])
    found = surplus.needs(inventory, retention.retained(inventory, ONLY_AGE, MIDNIGHT + timedelta(days=2)))
    assert [run.first for run in found[1]] == [3]
    assert surplus.parted(inventory, found) == ((Run(1, 3, 1 << 30),), (Run(1, 0, 2),))
    # A run that begins with what is needed has nothing before that.
    exact = replace(inventory, runs=(Run(1, 3, 9), Run(2, 0, 4)))
    assert surplus.parted(exact, found) == ((Run(1, 3, 9),), (Run(2, 0, 4),))
