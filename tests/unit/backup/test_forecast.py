# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a backup will take."""

from __future__ import annotations

from datetime import timedelta

from keeping import MIDNIGHT, manifest

from pgops.backup.forecast import Forecast, Reserve, duration, forecast, wal_rate

BEFORE = manifest(
    compression="zstd", stored_bytes=250, data_bytes=1000, completed_at=MIDNIGHT + timedelta(seconds=100)
)


def test_the_first_is_as_large_as_the_data_or_half_of_that() -> None:
    assert forecast("full", "none", 1000, 0.0, []) == Forecast(1000, None)
    assert forecast("full", "gzip", 1000, 0.0, [BEFORE]) == Forecast(500, None)
    assert forecast("incremental", "none", 1000, 0.0, [BEFORE]) == Forecast(0, None)


def test_a_limited_rate_tells_how_long_the_first_takes() -> None:
    assert forecast("full", "none", 60_000_000, 2.0, []) == Forecast(60_000_000, 30.0)


def test_later_ones_are_like_those_before_and_grow_with_the_data() -> None:
    assert forecast("full", "zstd", 2000, 0.0, [BEFORE]) == Forecast(500, 200.0)


def test_a_clock_that_was_set_back_tells_no_duration() -> None:
    odd = manifest(stored_bytes=250, data_bytes=1000, completed_at=MIDNIGHT - timedelta(seconds=1))
    assert forecast("full", "none", 1000, 0.0, [odd]) == Forecast(250, None)


HOUR = timedelta(hours=1)
TAKEN = manifest(timeline=2, start_lsn=1000, stop_lsn=8200, started_at=MIDNIGHT, completed_at=MIDNIGHT + HOUR)


def test_wal_comes_as_fast_as_since_the_last_backup_or_while_it_was_taken() -> None:
    now = MIDNIGHT + 3 * HOUR
    assert wal_rate(2, 8200, now, [TAKEN]) == 2.0
    assert wal_rate(2, 8200 + 7200 * 5, now, [TAKEN]) == 5.0
    assert wal_rate(3, 8200 + 7200 * 5, now, [TAKEN]) == 0.0  # of another timeline
    assert wal_rate(2, 1 << 40, TAKEN.completed_at + timedelta(seconds=1), [TAKEN]) == 2.0
    assert wal_rate(2, 1 << 40, now, []) == 0.0


def test_a_clock_that_was_set_back_tells_no_rate() -> None:
    odd = manifest(timeline=2, start_lsn=0, stop_lsn=10, started_at=MIDNIGHT + HOUR, completed_at=MIDNIGHT)
    assert wal_rate(2, 1 << 40, MIDNIGHT - HOUR, [odd]) == 0.0


def test_the_room_for_wal_is_that_of_the_time_that_is_left_and_a_floor() -> None:
    reserve = Reserve(100, 2.0, 3000.0)
    assert [reserve.at(seconds) for seconds in (2000, 2500, 2990, 7000)] == [2000, 1000, 100, 100]
    assert Reserve(100).at(2000) == 100


def test_without_any_backup_the_time_is_that_of_an_ordinary_disk() -> None:
    assert duration(Forecast(0, None), 5_000_000_000) == 100.0
    assert duration(Forecast(0, 0.5), 5_000_000_000) == 0.5
