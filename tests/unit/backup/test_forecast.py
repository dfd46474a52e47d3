# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a backup will take."""

from __future__ import annotations

from datetime import timedelta

from keeping import MIDNIGHT, manifest

from pgops.backup.forecast import Forecast, forecast

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
