# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Samples as lines of charts."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from pgops.reports import charts, history
from pgops.reports.charts import CHARTS, MOST_LINES

STEPS = 4
NEWEST = 1000


def point(metric: str, place: int, value: float, label: str = "", name: str = "", highest: float = 0.0) -> list[Any]:
    """A row of the query: one value, which is also the highest unless another is."""
    return [metric, label, name, place, value, highest or value, highest or value, NEWEST + place]


def drawn(*points: list[Any], thresholds: dict[str, Any] | None = None) -> dict[str, Any]:
    return history.drawn(points, thresholds or {}, STEPS)


def lines(chart: dict[str, Any]) -> dict[str, list[Any]]:
    return {one["name"]: one["values"] for one in chart["lines"]}


def test_what_was_not_measured_is_no_zero() -> None:
    found = drawn(point("transactions_committed", 1, 5.0), point("transactions_committed", 3, 0.0))
    assert set(found) == {"transactions"}
    assert lines(found["transactions"]) == {"committed": [None, 5, None, 0]}
    assert found["transactions"]["newest"] == NEWEST + 3


def test_a_chart_without_a_sample_is_absent() -> None:
    assert drawn() == {}
    assert drawn(point("unheard_of", 1, 1.0)) == {}


def test_a_chart_has_the_thresholds_of_its_metric() -> None:
    threshold = {"direction": "above", "warning": 80, "critical": 90}
    found = drawn(point("connections_used_percent", 0, 10.0), thresholds={"connections_used_percent": threshold})
    assert found["connections"]["thresholds"] == threshold
    assert drawn(point("wal_bytes", 0, 1.0))["wal"]["thresholds"] is None


def test_the_worst_of_a_step_is_not_averaged_away() -> None:
    found = drawn(
        point("longest_transaction_seconds", 0, 10.0, highest=600.0), point("wal_bytes", 0, 10.0, highest=600.0)
    )
    assert lines(found["longest"])["transaction"][0] == 600
    assert lines(found["wal"])["WAL"][0] == 10


def test_each_value_of_a_label_is_a_line_the_largest_first() -> None:
    found = drawn(
        point("database_size_mb", 0, 5.0, "database", "small"),
        point("database_size_mb", 0, 50.0, "database", "large"),
    )
    assert list(lines(found["sizes"])) == ["large", "small"]


def test_of_many_values_the_small_ones_are_together() -> None:
    many = [point("database_size_mb", 2, float(size), "database", f"db{size}") for size in range(1, 11)]
    found = lines(drawn(*many)["sizes"])
    assert list(found) == ["db10", "db9", "db8", "db7", "db6", history.OTHERS]
    assert len(found) == MOST_LINES
    assert found[history.OTHERS] == [None, None, 1 + 2 + 3 + 4 + 5, None]
    worst = [point("disk_used_percent", 2, float(used), "disk", f"d{used}") for used in range(1, 11)]
    assert lines(drawn(*worst)["disks"])[history.OTHERS][2] == 5


def test_samples_beside_the_window_are_left_out() -> None:
    assert lines(drawn(point("wal_bytes", STEPS, 1.0), point("wal_bytes", 0, 2.0))["wal"])["WAL"] == [
        2,
        None,
        None,
        None,
    ]


@given(st.floats(min_value=-1e15, max_value=1e15, allow_nan=False))
def test_values_keep_four_digits(value: float) -> None:
    (short, *_rest) = lines(drawn(point("wal_bytes", 0, value))["wal"])["WAL"]
    assert abs(short - value) <= abs(value) * 0.0005 + 1e-12
    assert len(repr(short)) <= len(repr(value)) + 2


def test_every_chart_has_a_key_of_its_own_and_every_line_a_name() -> None:
    keys = [chart.key for chart in CHARTS]
    assert len(set(keys)) == len(keys)
    for chart in CHARTS:
        names = [line.name for line in chart.lines]
        assert len(set(names)) == len(names) <= MOST_LINES
        assert len(chart.lines) == 1 or not any(line.by for line in chart.lines), "lines of two labels would mix"
    assert len(list(charts.lines())) >= len(CHARTS)
