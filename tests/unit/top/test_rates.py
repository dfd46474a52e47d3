# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rates between two looks: right where the looks can be compared, and unknown everywhere else."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.top import rates

START = datetime(2026, 11, 30, 3, 12, tzinfo=timezone.utc)


def look(seconds: float = 0.0, **other: Any) -> dict[str, Any]:
    counters: dict[str, Any] = dict.fromkeys(rates.COUNTERS, 100.0)
    same = {"started_at": START, "counted_since": "1 never", "standby": False}
    return {"at": START + timedelta(seconds=seconds), **same, **counters, **other}


def test_the_first_look_has_no_rates() -> None:
    assert set(rates.between(None, look()).values()) == {None}


def test_rates_are_per_second_of_the_servers_clock() -> None:
    found = rates.between(look(), look(4, commits=180.0, rollbacks=104.0, blocks_hit=130.0, blocks_read=110.0))
    assert found["transactions_per_second"] == 21.0
    assert found["rollbacks_per_second"] == 1.0
    assert found["cache_hit_percent"] == 75.0
    assert found["wal_bytes_per_second"] == 0.0


def test_without_a_read_no_share_of_reads_is_known() -> None:
    assert rates.between(look(), look(1))["cache_hit_percent"] is None


@pytest.mark.parametrize(
    "changed",
    [
        {"started_at": START + timedelta(seconds=1)},
        {"counted_since": "1 later"},
        {"standby": True},
        {"commits": 99.0},
        {"at": START},
        {"at": START - timedelta(seconds=1)},
    ],
)
def test_looks_that_cannot_be_compared_have_none(changed: dict[str, Any]) -> None:
    assert set(rates.between(look(), {**look(2, rollbacks=200.0), **changed}).values()) == {None}


def test_a_counter_that_is_not_known_costs_its_own_rate_only() -> None:
    found = rates.between(look(wal_bytes=None), look(1, wal_bytes=7.0, commits=101.0))
    assert (found["wal_bytes_per_second"], found["transactions_per_second"]) == (None, 1.0)


@given(st.floats(0.1, 1e4), st.floats(0, 1e12))
def test_what_grew_is_the_rate_times_the_time(seconds: float, grown: float) -> None:
    now = look(seconds, wal_bytes=100.0 + grown)
    rate = rates.between(look(), now)["wal_bytes_per_second"]
    elapsed = (now["at"] - START).total_seconds()
    assert rate == pytest.approx((now["wal_bytes"] - 100.0) / elapsed)
