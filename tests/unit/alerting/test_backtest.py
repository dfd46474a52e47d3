# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What people are told of a backtest, and of alerts on the terminal."""

from __future__ import annotations

from typing import Any

import pytest

from pgops.alerting.backtest import Backtest
from pgops.alerting.shown import history, listing

ALERT: dict[str, Any] = {
    **dict.fromkeys(("ended_at", "reason", "acknowledged_by", "acknowledged_at", "acknowledgement")),
    "alert": "6c84fb90-12c4-11e1-840d-7b25c5ee775a",
    "severity": "critical",
    "rule": "connections",
    "status": "firing",
    "node": "db1/main",
    "labels": {},
    "metric": "connections_used_percent",
    "value": 95.5,
    "operator": ">",
    "threshold": 90.0,
    "started_at": "10:00",
    "fired_at": "10:02",
    "flapping": False,
}
BY = "acknowledged by ann"


@pytest.mark.parametrize(
    ("backtest", "line"),
    [
        (Backtest("a (warning)", 7), "alert rule a (warning): would not have fired in the last 7 days"),
        (
            Backtest("a (warning)", 7, 3, 840, ("db1, shop",)),
            "alert rule a (warning): would have fired 3 times in the last 7 days, 14 minutes in all: db1, shop",
        ),
        (
            Backtest("b (x)", 2, 1, 60, tuple("abcdef")),
            "alert rule b (x): would have fired once in the last 2 days, 1 minutes in all: a; b; c; d; e and 1 more",
        ),
        (Backtest("a (info)", 7, error="too slow"), "alert rule a (info): not tried: too slow"),
    ],
)
def test_a_backtest_is_told_in_a_line(backtest: Backtest, line: str) -> None:
    assert backtest.line == line


def test_a_list_has_a_line_for_each_alert() -> None:
    assert listing([]) == ["No alert fires."]
    marked = {**ALERT, "flapping": True, "acknowledged_by": "ann", "fired_at": None, "value": None}
    assert listing([ALERT, marked]) == [
        f"{ALERT['alert']}  critical  firing      10:02  connections on db1/main  95.5 > 90",
        f"{ALERT['alert']}  critical  firing      10:00  connections on db1/main  unknown > 90  [flapping, {BY}]",
    ]


def test_a_history_tells_all_that_is_known() -> None:
    told = {
        **ALERT,
        "labels": {"database": "shop"},
        "acknowledged_by": "ann",
        "acknowledgement": "mine",
        "reason": "Over.",
    }
    transition = {"changed_at": "10:02", "from_status": "pending", "to_status": "firing", "metric_value": None}
    assert history(told, [transition]) == [
        "critical connections on db1/main (database shop)",
        "connections_used_percent: 95.5 > 90  [acknowledged by ann]",
        "note of ann: mine",
        "10:02  pending -> firing",
        "Over.",
    ]
