# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The head of a moment in the past, and the scene nearest to it: what is not stored is not known, and never zero."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from pgops.top import past

AT = datetime(2026, 11, 30, 3, 12, tzinfo=timezone.utc)
EARLIER = AT - timedelta(minutes=1)


def value(metric: str, number: float, state: str | None = None, newest: datetime = AT) -> dict[str, Any]:
    """As of two databases that have the same."""
    return {
        "metric_name": metric,
        "state": state,
        "sum": 2 * number,
        "max": number,
        "oldest": EARLIER,
        "newest": newest,
    }


def rate(metric: str, number: float | None) -> dict[str, Any]:
    return {"metric_name": metric, "rate": number}


def test_without_samples_nothing_is_known() -> None:
    assert set(past.head([], []).values()) == {None}


def test_values_of_several_databases_are_one() -> None:
    found = past.head(
        [
            value("server_in_recovery", 0.0),
            value("connections", 2.0, "active", EARLIER),
            value("connections", 3.0, "idle in transaction"),
            value("blocked_sessions", 1.0),
            value("longest_lock_wait_seconds", 12.0),
        ],
        [rate("transactions_committed", 5.0), rate("transactions_rolled_back", 1.0), rate("temp_bytes", None)],
    )
    assert {name: one for name, one in found.items() if one is not None} == {
        "role": "primary",
        "connections": 10.0,
        "active": 4.0,
        "idle_in_transaction": 6.0,
        "waiting_for_locks": 2.0,
        "longest_lock_wait_seconds": 12.0,
        "transactions_per_second": 6.0,
        "rollbacks_per_second": 1.0,
        "samples_from": EARLIER,
        "samples_to": AT,
    }


@pytest.mark.parametrize(("hit", "read", "percent"), [(99.0, 1.0, 99.0), (0.0, 0.0, None), (1.0, None, None)])
def test_the_share_of_reads_that_hit_the_cache(hit: float, read: float | None, percent: float | None) -> None:
    assert past.head([], [rate("blocks_hit", hit), rate("blocks_read", read)])["cache_hit_percent"] == percent


def test_a_standby() -> None:
    assert past.head([value("server_in_recovery", 1.0)], [])["role"] == "standby"


def part(**other: Any) -> dict[str, Any]:
    return {"seen": [{"pid": 1}], "left_out": 2, "error": None, "taken_at": AT + timedelta(seconds=61), **other}


def test_a_part_of_a_scene_says_how_far_away_it_is() -> None:
    found = past.seen(part(), AT)
    assert (found.rows, found.left_out, found.missing) == ([{"pid": 1}], 2, "")
    assert found.note == "as seen 61 s after it, when an alert began to fire"
    assert past.seen(part(taken_at=EARLIER), AT).note.startswith("as seen 60 s before it")


def test_a_scene_that_there_is_not() -> None:
    assert past.seen(None, AT).missing == past.NO_SCENE
    assert past.seen(part(error="no time", seen=None, left_out=None), AT).missing == "could not be seen: no time"
    assert past.seen(part(seen=None, left_out=None), AT).rows == []
