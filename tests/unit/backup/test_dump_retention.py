# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which dumps expire: by age and number, and never the last good one."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from pgops.backup import databases, dump_options, dump_retention
from pgops.backup.databases import Database
from pgops.backup.dump_options import Dumps
from pgops.errors import InvalidInput
from pgops.repository.dumps import Dump, Dumped, Stored

MIDNIGHT = datetime(2026, 11, 1, tzinfo=timezone.utc)
MADE = Dump(
    id="",
    database="shop",
    oid=1,
    encoding="UTF8",
    owner="clerk",
    locale={},
    cluster="orders",
    node="db1/main",
    system_identifier="7412345678901234567",
    server_version="17.4",
    versions={},
    timeline=1,
    snapshot_lsn=0,
    started_at=MIDNIGHT,
    completed_at=MIDNIGHT,
    compression="none",
    stored_bytes=1,
    data_bytes=1,
    entries=1,
    checksum="",
)


def stored(day: float, *problems: str, at: int | None = None, pin: str | None = None) -> Stored:
    """A dump of a day, named so."""
    when = MIDNIGHT + timedelta(days=day)
    lsn = round(day * 1000) if at is None else at
    made = replace(MADE, id=f"{day:g}", snapshot_lsn=lsn, started_at=when, completed_at=when)
    return Stored(f"{day:g}", made, pin, problems=problems)


def held(*some: Stored, **other: Any) -> Dumped:
    return Dumped("shop", "/nowhere/shop", tuple(sorted(some, key=lambda one: one.dump.position)), **other)


def removed(found: Dumped, day: float, declared: Dumps, there: bool = True, **other: Any) -> list[str]:
    planned = dump_retention.plan(found, declared, MIDNIGHT + timedelta(days=day), there, **other)
    return [one.name for one in planned.removed]


def test_by_age_and_number() -> None:
    found = held(*(stored(day) for day in range(10)))
    assert removed(found, 10, Dumps(days=3, minimum=0)) == ["0", "1", "2", "3", "4", "5", "6"]
    assert removed(found, 10, Dumps(days=3, minimum=5)) == ["0", "1", "2", "3", "4"]
    assert removed(found, 100, Dumps(days=3, minimum=0)) == [str(day) for day in range(9)]
    assert removed(found, 100, Dumps(days=3, minimum=20)) == []
    assert removed(found, 100, Dumps(days=3, minimum=0), reading={"2"}) == ["0", "1", *map(str, range(3, 9))]


def test_of_a_database_that_is_gone_all_expire_by_age() -> None:
    found = held(*(stored(day) for day in range(4)))
    assert removed(found, 5, Dumps(days=3, minimum=2), there=False) == ["0", "1"]
    assert removed(found, 100, Dumps(days=3, minimum=2), there=False) == ["0", "1", "2", "3"]


def test_a_pinned_one_stays_whatever_becomes_of_its_database() -> None:
    found = held(
        stored(0), stored(1, pin="audit"), stored(2, "toc.dat is missing", pin="its pin cannot be read"), stored(3)
    )
    for there in (True, False):
        gone = removed(found, 100, Dumps(days=3, minimum=0), there=there)
        assert gone == ["0", *([] if there else ["3"])]
    kept = dump_retention.plan(found, Dumps(days=3, minimum=0), MIDNIGHT + timedelta(days=100), there=False).kept
    assert [(one.name, words) for one, words in kept] == [("1", ("pin",)), ("2", ("pin",))]


def test_what_is_damaged_counts_for_nothing_but_the_newest() -> None:
    found = held(stored(0), stored(1, "toc.dat is missing"), stored(2, "toc.dat is missing"))
    assert removed(found, 100, Dumps(days=3, minimum=1)) == ["1"]


def test_nothing_expires_after_a_failure_or_by_a_clock_that_was_set_back() -> None:
    found = held(*(stored(day) for day in range(4)), failed=True)
    assert removed(found, 100, Dumps(days=3, minimum=0)) == []
    assert removed(found, 100, Dumps(days=3, minimum=0), there=False) == ["0", "1", "2", "3"]
    assert removed(replace(found, failed=False), 2.5, Dumps(days=0, minimum=0)) == []


@examples(max_examples=1000)
@given(
    st.lists(
        st.tuples(st.floats(0, 100), st.booleans(), st.integers(0, 5), st.sampled_from([None, "why"])), max_size=12
    ),
    st.lists(st.floats(0, 400), min_size=1, max_size=4),
    st.floats(0, 50),
    st.integers(0, 4),
)
def test_the_last_good_dump_never_expires(
    some: list[tuple[float, bool, int, str | None]], moments: list[float], days: float, minimum: int
) -> None:
    """Nor does a pinned one, whatever the order of clocks and WAL, the damage, and the number of expiries."""
    found = held(*(stored(day, *(["damaged"] if bad else []), at=at, pin=pin) for day, bad, at, pin in some))
    pinned = [one for one in found.dumps if one.pin]
    declared = Dumps(days=days, minimum=minimum)
    last = found.newest
    for moment in moments:
        gone = removed(found, moment, declared)
        found = replace(found, dumps=tuple(one for one in found.dumps if one.name not in gone))
        assert found.newest == last
        assert all(one in found.dumps for one in pinned)
        good = sum(not one.problems for one in found.dumps)
        assert good >= min(minimum, sum(not bad for _day, bad, _at, _pin in some)) or not some
        assert all(one.name not in gone for one in found.dumps)


# --- which are due


def database(name: str, **other: Any) -> Database:
    usual: dict[str, Any] = {"oid": 1, "encoding": "UTF8", "owner": "clerk", "locale": {}, "open": True}
    return Database(key=name, **{**usual, "template": False, "bytes": 1, **other})


def due(
    declared: Dumps, *asked: str, day: float = 0, there: tuple[Database, ...] = (), **dumped: Dumped
) -> list[str]:
    found = databases.choose(there, declared, asked, dumped, MIDNIGHT + timedelta(days=day))
    return [one.shown for one in found.due]


SOME = (database("shop"), database("other"), database("template1", template=True), database("shut", open=False))


def test_which_databases_are_meant() -> None:
    assert due(Dumps(databases="all"), there=SOME) == ["shop", "other"]
    assert due(Dumps(databases="all", exclude=("other",)), there=SOME) == ["shop"]
    assert due(Dumps(databases=("other", "template1")), there=SOME) == ["other", "template1"]
    assert due(Dumps(), "shop", there=SOME) == ["shop"]
    found = databases.choose(SOME, Dumps(databases=("shut", "gone")), (), {}, MIDNIGHT)
    assert (found.due, found.closed, found.missing) == ((), ("shut",), ("gone",))


@pytest.mark.parametrize(("days", "wanted"), [(0.8, []), (0.9, ["shop"]), (1.1, ["shop"]), (-1, ["shop"])], ids=str)
def test_when_one_is_due(days: float, wanted: list[str]) -> None:
    """A little early, since jobs do not begin at the same minute; a clock that was set back says nothing."""
    there = SOME[:1]
    assert due(Dumps(databases="all"), day=days, there=there, shop=held(stored(0))) == wanted
    assert due(Dumps(databases="all"), day=days, there=there, shop=held(stored(0, "damaged"))) == ["shop"]


@pytest.mark.parametrize(
    "given",
    [
        {"database": "all"},
        {"databases": "some"},
        {"databases": [""]},
        {"databases": [1]},
        {"exclude": "all"},
        {"jobs": 0},
        {"jobs": 1.5},
        {"jobs": True},
        {"days": -1},
        {"days": "7"},
        {"minimum": 1.5},
        {"lock_seconds": 0},
        {"compression": "bzip2"},
        {"hook_before": None},
        {"hook_after": ["/bin/true"]},
    ],
    ids=str,
)
def test_what_nobody_can_declare(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="pgops_backup_dumps"):
        dump_options.parse(given)


def test_what_is_declared() -> None:
    assert dump_options.parse({}) == Dumps()
    assert dump_options.parse({"databases": ["a"], "days": 0.5}) == Dumps(databases=("a",), days=0.5)
    assert dump_options.parse({"databases": "all"}).named == ()
