# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How often collectors run where, and in which order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.metrics.collectors import LONGEST_INTERVAL, SHARE, Collector, slowed
from pgops.metrics.history import Runs, key
from pgops.metrics.pace import paced

INSIDE = Collector("inside", "SELECT 1", (), scope="database", interval=60)
SLOW = Collector("slow", "SELECT 1", (), scope="database", interval=60)
WHOLE = Collector("whole", "SELECT 1", (), interval=60)
NAMES = "abcdefgh"


def ran(**seconds: float) -> Runs:
    """Runs of INSIDE that took so long, by the databases' names."""
    return Runs(seconds={key("inside", name): [took] for name, took in seconds.items()})


def test_a_slow_database_is_slowed_down_and_no_other() -> None:
    pace = paced([INSIDE], ran(shop=0.01, crm=0.02, slow=30.0))
    assert [pace.of(INSIDE, name).interval for name in ("shop", "crm", "new", "slow")] == [60, 60, 60, 1920]
    assert (pace.quickest(INSIDE).interval, pace.longest(INSIDE)) == (60, 1920)
    assert pace.intervals(INSIDE) == {60, 1920}


def test_an_instance_has_the_pace_of_its_collector() -> None:
    runs = Runs(seconds={"whole": [0.5, 0.3], "inside": [100.0]})
    pace = paced([WHOLE, INSIDE], runs)
    assert pace.of(WHOLE) == pace.quickest(WHOLE) == slowed(WHOLE, [0.5, 0.3])
    # Durations of all databases together, as an earlier version has them, are those of none.
    assert pace.of(INSIDE, "shop") == pace.quickest(INSIDE) == INSIDE


@given(st.lists(st.floats(0, 60), min_size=1, max_size=8))
def test_together_they_take_no_more_than_one_may(took: list[float]) -> None:
    pace = paced([INSIDE], ran(**dict(zip(NAMES, took))))
    by_name = {name: pace.of(INSIDE, name).interval for name in NAMES[: len(took)]}
    load = {name: seconds / by_name[name] for name, seconds in zip(NAMES, took)}
    if all(interval * 2 <= LONGEST_INTERVAL for interval in by_name.values()):
        assert sum(load.values()) <= SHARE * 1.0001
    for name, seconds in zip(NAMES, took):
        # Whoever takes no more than an equal share is left alone.
        if seconds / INSIDE.interval <= SHARE / len(took):
            assert by_name[name] == INSIDE.interval


def test_those_left_out_come_first_and_then_the_quick_ones() -> None:
    runs = ran(shop=0.5, crm=0.1, slow=9.0, late=20.0)
    runs.left_out = {"late"}
    order = [
        name for name, _some in paced([INSIDE], runs).places(["slow", "shop", "late", "new", "crm"], [INSIDE], 0.0)
    ]
    assert order == ["late", "new", "crm", "shop", "slow"]


def test_each_database_has_what_is_due_there_the_quick_first() -> None:
    runs = ran(shop=0.1)
    runs.seconds[key("slow", "shop")] = [0.05]
    runs.last = {key("inside", "crm"): 130.0, key("slow", "crm"): 100.0, key("inside", "old"): 130.0}
    runs.last[key("slow", "old")] = 130.0
    places = dict(paced([INSIDE, SLOW], runs).places(["shop", "crm", "old"], [INSIDE, SLOW], 140.0))
    names = {name: [one.name for one in some] for name, some in places.items()}
    assert names == {"shop": ["slow", "inside"], "crm": ["slow"]}


@pytest.mark.parametrize(("now", "places"), [(1990.0, ["a"]), (3900.0, ["a", "slow"])])
def test_a_database_that_is_slowed_down_is_due_less_often(now: float, places: list[str]) -> None:
    runs = ran(a=0.0, slow=30.0)
    runs.last = {key("inside", "a"): 1925.0, key("inside", "slow"): 1925.0}
    found = paced([INSIDE], runs).places(["slow", "a"], [INSIDE], now)
    assert sorted(name for name, _some in found) == places
