# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a restore will take."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from keeping import manifest

from pgops.recovery import forecast
from pgops.recovery.forecast import Done, Size

GB = 10**9
NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
TAKEN = manifest(data_bytes=10 * GB, started_at=NOON, completed_at=NOON + timedelta(seconds=200))
PHASES = {"plan": 2.0, "copy": 50.0, "verify": 20.0, "sync": 5.0, "configure": 1.0, "recover": 10.0, "promote": 2.0}
BEFORE = Done("here", 5 * GB, GB, False, PHASES)


def parts(size: Size, *before: Done) -> dict[str, tuple[float, str]]:
    found = forecast.forecast(size, TAKEN, before, "here")
    assert found["seconds"] == pytest.approx(sum(one["seconds"] for one in found["parts"]), abs=0.5)
    return {one["part"]: (one["seconds"], one["basis"]) for one in found["parts"]}


def test_a_first_restore_is_guessed_and_copied_as_fast_as_it_was_backed_up() -> None:
    assert parts(Size(10 * GB, 4 * GB)) == {
        "select": (5.0, "default"),
        "copy": (200.0, "backup"),
        "verify": (66.7, "default"),
        "replay": (100.0, "default"),
        "start": (10.0, "default"),
    }


def test_another_one_takes_as_long_for_its_size() -> None:
    assert parts(Size(10 * GB, 2 * GB), BEFORE) == {
        "select": (2.0, "restores"),
        "copy": (100.0, "restores"),
        "verify": (50.0, "restores"),
        "replay": (20.0, "restores"),
        "start": (3.0, "restores"),
    }


def test_what_was_done_on_the_same_host_counts_first() -> None:
    slow = Done("there", 5 * GB, GB, False, {**PHASES, "copy": 5000.0})
    assert parts(Size(5 * GB, GB), slow)["copy"] == (5000.0, "restores")
    assert parts(Size(5 * GB, GB), slow, BEFORE)["copy"] == (50.0, "restores")


def test_a_chain_is_combined_and_a_tiny_restore_tells_no_rate() -> None:
    assert parts(Size(6 * GB, GB, combined=True), BEFORE)["combine"] == (100.0, "default")
    assert "copy" not in parts(Size(6 * GB, GB, combined=True), BEFORE)
    tiny = Done("here", 1000, 1000, False, PHASES)
    assert parts(Size(10 * GB, GB), tiny)["copy"] == (200.0, "backup")


@given(st.integers(0, 10**15), st.integers(0, 10**15), st.booleans())
def test_more_takes_longer(data: int, wal: int, combined: bool) -> None:
    one = forecast.forecast(Size(data, wal, combined), TAKEN, [BEFORE], "here")["seconds"]
    assert forecast.forecast(Size(data * 2, wal * 2, combined), TAKEN, [BEFORE], "here")["seconds"] >= one > 0


def test_the_last_restores_are_remembered(tmp_path: Path) -> None:
    (tmp_path / "g").mkdir()
    assert forecast.read(str(tmp_path), "g") == ()
    for number in range(forecast.MOST + 3):
        forecast.note(str(tmp_path), "g", Done("here", number, 1, False, PHASES))
    found = forecast.read(str(tmp_path), "g")
    assert [one.data for one in found] == list(range(3, forecast.MOST + 3))
    assert found[0].phases == PHASES
    (tmp_path / "g" / forecast.RECORD).write_text("{")
    assert forecast.read(str(tmp_path), "g") == ()
    forecast.note(str(tmp_path / "nowhere"), "g", BEFORE)
