# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Differences of pg_stat_statements: never negative, nothing lost, and honest about what is missing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.statements.readings import (
    ORDERS,
    SUMS,
    Entry,
    Key,
    Snapshot,
    Usage,
    difference,
    execution,
    joined,
    snapshot,
    top,
)

KEYS = st.tuples(st.integers(1, 2), st.integers(1, 2), st.integers(1, 6), st.booleans())
COUNTS = st.tuples(*[st.integers(0, 50)] * len(SUMS))
ENTRIES = st.dictionaries(KEYS, st.builds(Entry, COUNTS, st.floats(0, 9), st.sampled_from([None, "a", "b"])))
FIRST = Snapshot("2026-01-01T00:00:00+00:00", "x", "r", 0, {1: (1000.0, None), 2: (0.0, "s")})
SECOND = replace(FIRST, taken_at="2026-01-01T00:05:00+00:00", active={1: (3000.0, None), 2: (0.0, "s")})
BLOCKS = ("shared_blks_hit", "shared_blks_read", "shared_blks_written")
ONE: Key = (1, 1, 7, True)


def counted(calls: int, exec_ms: float = 0.0, since: str | None = None, max_ms: float | None = None) -> Entry:
    sums = {"calls": calls, "exec_ms": exec_ms}
    return Entry(tuple(sums.get(name, 0) for name in SUMS), max_ms, since)


def calls_of(before: Entry | None, after: Entry, **changed: object) -> tuple[object, float | None]:
    """The calls of one statement, and the coverage."""
    first = replace(FIRST, entries={ONE: before} if before else {})
    found = difference(first, replace(SECOND, entries={ONE: after}, **changed))
    assert found is not None
    return (found.usage[0].sums[0] if found.usage else 0), found.coverage


@given(ENTRIES, ENTRIES)
def test_nothing_is_ever_negative_or_more_than_was_counted(before: dict, after: dict) -> None:
    found = difference(replace(FIRST, entries=before), replace(SECOND, entries=after))
    assert found is not None
    for one in found.usage:
        assert all(0 <= value <= now for value, now in zip(one.sums, after[one.key].sums))
    assert found.coverage is None or 0 <= found.coverage <= 100


@given(ENTRIES, ENTRIES)
def test_what_was_counted_is_found_again(before: dict, done: dict) -> None:
    """Without evictions and resets, what is added is what the difference says."""
    after = dict(before)
    for key, more in done.items():
        then = before.get(key)
        sums = tuple(a + b for a, b in zip(then.sums, more.sums)) if then else more.sums
        after[key] = Entry(sums, more.max_ms, then.since if then else more.since)
    found = difference(replace(FIRST, entries=before), replace(SECOND, entries=after))
    assert found is not None
    assert {one.key: one.sums for one in found.usage} == {key: one.sums for key, one in done.items() if any(one.sums)}


@given(ENTRIES, st.integers(0, 4), st.integers(0, 2))
def test_the_remainder_keeps_the_sums(entries: dict, most: int, by_others: int) -> None:
    usage = [Usage(key, key[3], one.sums, one.max_ms) for key, one in entries.items()]
    kept = top(usage, most, by_others)
    for toplevel in (True, False):
        for place in range(len(SUMS)):
            sums = [sum(one.sums[place] for one in some if one.toplevel is toplevel) for some in (usage, kept)]
            assert sums[0] == sums[1]
    single = [one for one in kept if one.key]
    assert len(single) <= most + by_others * len(ORDERS)
    assert len(kept) - len(single) <= 2
    times = sorted((one.amount(("exec_ms",)) for one in usage), reverse=True)[:most]
    assert sorted((one.amount(("exec_ms",)) for one in single), reverse=True)[: len(times)] == times


@given(ENTRIES)
def test_a_snapshot_is_read_as_it_was_written(entries: dict) -> None:
    made = replace(FIRST, entries=entries)
    assert snapshot(json.loads(json.dumps(made.document()))) == made


def test_the_rest_keeps_the_longest_execution() -> None:
    usage = [
        Usage((1, 1, number, True), True, counted(1).sums, longest) for number, longest in enumerate([3.0, None, 7.0])
    ]
    (rest,) = top(usage, most=0, by_others=0)
    assert (rest.key, rest.sums[0], rest.max_ms) == (None, 3, 7.0)
    (rest,) = top(usage[1:2], most=0, by_others=0)
    assert rest.max_ms is None


def test_statements_that_are_first_in_any_order_are_kept() -> None:
    def used(number: int, **sums: int) -> Usage:
        return Usage((1, 1, number, True), True, tuple(sums.get(name, 0) for name in SUMS), None)

    usage = [
        used(1, exec_ms=9),
        used(2, calls=1),
        used(3, calls=2),
        used(4, shared_blks_read=1, local_blks_written=2),
        used(5, shared_blks_read=2),
        used(6, wal_bytes=1),
        used(7),
    ]
    kept = [one.key[2] for one in top(usage, most=1, by_others=1) if one.key]
    assert kept == [1, 3, 4, 6]
    # With room for more, what did nothing of a kind is still not among the first of it.
    assert [one.key[2] for one in top(usage, most=1, by_others=9) if one.key] == [1, 2, 3, 4, 5, 6]


def test_a_new_statements_longest_execution_is_known() -> None:
    found = difference(FIRST, replace(SECOND, entries={ONE: counted(2, 9.0, max_ms=6.0)}))
    assert found is not None
    assert found.usage[0].max_ms == 6.0


def test_a_snapshot_as_a_document_says_each_thing_once() -> None:
    document = replace(FIRST, entries={ONE: counted(1)}).document()
    assert set(document) == {
        *(
            "format",
            "counters",
            "taken_at",
            "origin",
            "reset_at",
            "evicted",
            "active",
            "entries",
        )
    }
    json.dumps(document)


def test_the_store_gets_the_counters_by_their_names() -> None:
    entry = counted(3, 12.5)
    named = {**dict.fromkeys(SUMS, 0), "calls": 3, "exec_ms": 12.5}
    assert Usage(ONE, True, entry.sums, 7.5).document(("shop", "web")) == {
        **named,
        "queryid": 7,
        "database_name": "shop",
        "user_name": "web",
        "toplevel": True,
        "max_exec_ms": 7.5,
    }
    rest = Usage(None, False, entry.sums, None).document(("", ""))
    assert (rest["queryid"], rest["toplevel"], rest["max_exec_ms"]) == (0, False, None)


@pytest.mark.parametrize("document", [None, [], {}, {"format": 1}, {**FIRST.document(), "counters": ["calls"]}])
def test_what_is_no_snapshot_is_none(document: object) -> None:
    assert snapshot(document) is None


def test_an_entry_counts_from_zero_where_it_was_made_anew() -> None:
    assert calls_of(counted(5), counted(8))[0] == 3
    assert calls_of(None, counted(8))[0] == 8
    assert calls_of(counted(9), counted(8))[0] == 8
    assert calls_of(counted(5, since="a"), counted(8, since="b"))[0] == 8
    assert calls_of(counted(5, exec_ms=9.0), counted(8, exec_ms=2.0))[0] == 8


def test_coverage_is_the_share_of_the_active_time() -> None:
    """Sessions were active for 2000 ms, 500 of them in statements that are known."""
    then, now = counted(5, 100.0), counted(8, 600.0)
    assert calls_of(then, now) == (3, 25)
    assert calls_of(then, now, evicted=1) == (3, 25)
    assert calls_of(then, now, reset_at="later") == (3, 25)
    assert calls_of(then, now, evicted=None) == (3, 25)
    assert calls_of(counted(9, 100.0), now) == (8, 30)
    gone = difference(replace(FIRST, entries={ONE: then}), SECOND)
    assert gone is not None
    assert gone.coverage == 0


def test_coverage_is_whole_only_where_nothing_can_be_missing() -> None:
    """A statement may end in one interval, and its session say so in the next."""
    then, now = counted(5, 100.0), counted(8, 2600.0)
    assert calls_of(then, now) == (3, 100)
    assert calls_of(then, now, evicted=1) == (3, 99.9)
    assert calls_of(counted(9, 100.0), now) == (8, 99.9)


def test_coverage_is_unknown_where_the_active_time_is() -> None:
    then, now = counted(5, 100.0), counted(8, 600.0)
    assert calls_of(then, now, active={}) == (3, None)
    assert calls_of(then, now, active={1: (3000.0, "later")}) == (3, None)
    assert calls_of(then, now, active={1: (1000.0, None)}) == (3, None)
    assert calls_of(then, now, active={1: (900.0, None)}) == (3, None)


def test_a_database_that_is_new_or_gone_spoils_nothing() -> None:
    """Of one that was reset or dropped neither its time nor its statements count, of a new one all."""
    entries = {ONE: counted(1, 1000.0), (2, 1, 8, True): counted(1, 400.0), (3, 1, 9, True): counted(1, 200.0)}
    gone = difference(FIRST, replace(SECOND, entries=entries, active={1: (3000.0, None), 3: (500.0, None)}))
    assert gone is not None
    assert (gone.coverage, gone.active_ms) == (100 * 1200 / 2500, 2500)
    reset = difference(FIRST, replace(SECOND, entries=entries, active={1: (3000.0, None), 2: (100.0, "t")}))
    assert reset is not None
    assert (reset.coverage, reset.active_ms) == (50, 2000)


def test_evictions_are_those_between_the_readings() -> None:
    def evictions(**after: object) -> int | None:
        found = difference(replace(FIRST, evicted=3), replace(SECOND, evicted=5, **after))
        assert found is not None
        return found.evictions

    assert evictions() == 2
    assert difference(replace(FIRST, evicted=None), SECOND).evictions is None  # type: ignore[union-attr]
    assert evictions(reset_at="later") is None


def test_time_within_other_statements_is_not_counted_twice() -> None:
    entries = {ONE: counted(1, 500.0), (1, 1, 8, False): counted(1, 400.0)}
    found = difference(FIRST, replace(SECOND, entries=entries, evicted=1))
    assert found is not None
    assert found.coverage == 25


def test_the_longest_execution_is_known_only_where_it_is_new() -> None:
    def longest(before: float, after: float) -> float | None:
        entries = {ONE: counted(1, max_ms=before)}, {ONE: counted(2, max_ms=after)}
        found = difference(replace(FIRST, entries=entries[0]), replace(SECOND, entries=entries[1]))
        assert found is not None
        return found.usage[0].max_ms

    assert longest(5.0, 7.0) == 7.0
    assert longest(5.0, 5.0) is None


def test_snapshots_of_different_servers_or_out_of_order_have_no_difference() -> None:
    assert difference(FIRST, replace(SECOND, origin="y")) is None
    assert difference(SECOND, FIRST) is None
    assert difference(FIRST, FIRST) is None


def test_what_a_server_does_not_measure_stays_unknown() -> None:
    unknown = Entry((1, 1.0, None, *[0] * (len(SUMS) - 3)))
    found = difference(replace(FIRST, entries={ONE: unknown}), replace(SECOND, entries={ONE: counted(2, 2.0)}))
    assert found is not None
    assert found.usage[0].sums[:3] == (1, 1.0, None)
    assert top([Usage(ONE, True, unknown.sums, None)], most=0, by_others=0)[0].sums == unknown.sums


@pytest.mark.parametrize(
    ("calls", "total", "max_ms", "found"),
    [
        (1, 1500.0, 1500.0, {"calls": 1, "took_ms": 1500.0, "exact": True}),
        # The only one, and not the longest ever.
        (1, 1500.0, None, {"calls": 1, "took_ms": 1500.0, "exact": True}),
        (3, 1500.0, 1200.0, {"calls": 3, "took_ms": 1200.0, "exact": True}),
        (3, 3600.0, None, {"calls": 3, "took_ms": 1200.0, "exact": False}),
        (3, 2900.0, None, None),
        (3, 2900.0, 999.0, None),
        (1, 999.0, 999.0, None),
        (1, 1000.0, None, {"calls": 1, "took_ms": 1000.0, "exact": True}),
        (2, 2000.0, None, {"calls": 2, "took_ms": 1000.0, "exact": False}),
        (2, 2500.0, 1500.0, {"calls": 2, "took_ms": 1500.0, "exact": True}),
        (0, 0.0, None, None),
    ],
)
def test_an_execution_is_slow_where_it_is_known_to_be(calls: int, total: float, max_ms: float | None, found) -> None:
    sums = {"calls": calls, "exec_ms": total, "row_count": 7, "temp_blks_read": 8, "plan_ms": 0.0}
    counters = tuple(sums.get(name, 0) for name in SUMS)
    only = {"plan_ms": None, "row_count": 7, "temp_blks_read": 8, **dict.fromkeys(BLOCKS, 0), "temp_blks_written": 0}
    expected = {**found, **only} if found and calls == 1 else found
    assert execution(Usage(ONE, True, counters, max_ms), 1000.0) == expected
    assert execution(Usage(None, True, counters, max_ms), 1000.0) is None


def test_statements_of_the_same_names_are_one() -> None:
    """As where a database is called like the OID of one that was dropped."""
    documents = [
        Usage((oid, 1, 7, True), True, counted(calls, 2.5).sums, longest).document(("16384", "clerk"))
        for oid, calls, longest in ((16384, 2, 1.5), (16390, 3, None))
    ]
    other = Usage((1, 1, 7, True), True, counted(4).sums, None).document(("shop", "clerk"))
    place = ("queryid", "database_name", "user_name", "toplevel")
    one, left = joined([documents[0], other, documents[1]], place)
    assert (one["calls"], one["exec_ms"], one["max_exec_ms"]) == (5, 5.0, 1.5)
    assert left == other
