# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Thresholds that can be meant, and names that were nearly right."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops import spelling
from pgops.errors import InvalidInput
from pgops.metrics import collectors, thresholds

METRICS: dict[str, dict[str, Any]] = {
    "deadlocks": {"direction": None, "warning": None, "critical": None},
    "database_size_mb": {"direction": "above", "warning": 1000, "critical": 5000},
    "cache_hit_ratio": {"direction": "below", "warning": 95, "critical": 90},
}
finite = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    "value", [True, False, math.nan, math.inf, -math.inf, "nan", "-inf", "much", "", [], 10**400, "1e999"]
)
@pytest.mark.parametrize("level", thresholds.LEVELS)
def test_what_is_no_number_is_no_threshold(level: str, value: Any) -> None:
    with pytest.raises(InvalidInput, match=f"The thresholds of deadlocks: {level} must be a number, not"):
        thresholds.checked({"deadlocks": {level: value}})


@given(finite, st.booleans())
def test_a_number_is_one_however_it_is_written(number: float, quoted: bool) -> None:
    given_as = repr(number) if quoted else number
    assert thresholds.checked({"x": {"warning": given_as}}) == {"x": {"warning": number}}


def test_a_level_may_be_left_to_the_metric() -> None:
    assert thresholds.checked({"x": {"warning": None}, "y": {}}) == {"x": {"warning": None}, "y": {}}


@pytest.mark.parametrize("settings", [5, None, [1, 2], {"warn": 5}])
def test_other_words_are_refused(settings: Any) -> None:
    with pytest.raises(InvalidInput, match="thresholds of x must be a mapping with 'warning' and 'critical'"):
        thresholds.checked({"x": settings})


@pytest.mark.parametrize(
    ("metric", "levels", "words"),
    [
        ("database_size_mb", {"warning": 9, "critical": 8}, r"warning 9 is beyond critical 8\..*larger"),
        ("database_size_mb", {"warning": 6000}, r"beyond critical 5000 \(critical is the metric's own\)"),
        ("database_size_mb", {"critical": 999}, r"warning 1000 .*\(warning is the metric's own\)"),
        ("database_size_mb", {"warning": None, "critical": 999}, "warning is the metric's own"),
        ("cache_hit_ratio", {"warning": 80}, "warning 80 is beyond critical 90.*smaller"),
    ],
)
def test_a_warning_beyond_what_is_critical_is_refused(
    metric: str, levels: dict[str, float | None], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words) as caught:
        thresholds.check({metric: levels}, METRICS)
    assert metric in caught.value.message


@pytest.mark.parametrize(
    ("metric", "levels"),
    [
        ("database_size_mb", {"warning": 6000, "critical": 6000}),
        ("cache_hit_ratio", {"warning": 99}),
        ("cache_hit_ratio", {"warning": 80, "critical": 70}),
        ("deadlocks", {"warning": 5, "critical": 1}),
        ("deadlocks", {"warning": 0}),
        ("database_size_mb", {}),
    ],
)
def test_what_can_be_meant_is_taken(metric: str, levels: dict[str, float | None]) -> None:
    thresholds.check({metric: levels}, METRICS)


def test_metrics_that_are_not_there_are_named_with_those_that_are() -> None:
    wanted: dict[str, dict[str, float | None]] = {"database_size_gb": {}, "Deadlock": {}, "qqq": {}, "deadlocks": {}}
    with pytest.raises(InvalidInput) as caught:
        thresholds.check(wanted, METRICS)
    expected = "Deadlock (did you mean deadlocks?); database_size_gb (did you mean database_size_mb?); qqq."
    assert caught.value.message == f"pgops_thresholds: unknown metrics {expected}"


def test_several_names_that_may_be_meant_are_told() -> None:
    known = ["locks", "blocks", "clocks", "flocks", "deadlocks"]
    expected = "LOCKZ (did you mean locks or flocks or clocks?)"
    assert spelling.unknown(["LOCKZ", "locks"], known) == expected
    spelling.refuse_repeated("Job", ["a", "b"])
    with pytest.raises(InvalidInput, match=r"^Job a, c is declared more than once\."):
        spelling.refuse_repeated("Job", ["c", "a", "b", "a", "c", "c"])


def test_collectors_that_are_not_there_are_named_with_those_that_are() -> None:
    found = [collectors.Collector(name, "SELECT 1", ()) for name in ("table_size", "table_activity", "locks")]
    with pytest.raises(InvalidInput, match=r"unknown collectors tables_size \(did you mean table_size\?\)\.$"):
        collectors.adjusted(found, {"tables_size": {"enabled": False}})


words = st.lists(st.text("abc", min_size=1, max_size=3))


@given(words, words)
def test_only_names_that_are_not_known_are_told(some: list[str], known: list[str]) -> None:
    said = [part.partition(" ")[0] for part in spelling.unknown(some, known).split("; ") if part]
    assert said == sorted(set(some) - set(known))


@given(finite, finite)
def test_the_two_directions_mirror_each_other(one: float, other: float) -> None:
    assert thresholds.disordered("above", one, other) == thresholds.disordered("below", other, one)
    assert not (thresholds.disordered("above", one, other) and thresholds.disordered("above", other, one))
    assert not thresholds.disordered(None, one, other)


@pytest.mark.parametrize("interval", [True, False])
def test_true_is_no_interval(interval: bool) -> None:
    for key in ("interval", "timeout"):
        with pytest.raises(InvalidInput, match="settings of collector locks"):
            collectors.checked_settings({"locks": {key: interval}})
