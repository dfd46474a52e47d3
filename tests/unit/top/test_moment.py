# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which moment people mean."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest

from pgops.errors import InvalidInput
from pgops.top import moment

NOW = datetime(2026, 11, 30, 3, 12, 30, tzinfo=timezone(timedelta(hours=-9, minutes=-30)))
"""Of a zone in which no machine of ours is."""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("2026-11-30 03:12", "2026-11-30T03:12:00-09:30"),
        ("2026-11-30T03:12:07", "2026-11-30T03:12:07-09:30"),
        ("2026-11-29 03:12+01:00", "2026-11-29T03:12:00+01:00"),
        ("2026-11-29 03:12 +0545", "2026-11-29T03:12:00+05:45"),
        ("2026-11-29 03:12 -03", "2026-11-29T03:12:00-03:00"),
        ("2026-11-29T03:12:00Z", "2026-11-29T03:12:00+00:00"),
        ("2026-11-29 03:12:00.25Z", "2026-11-29T03:12:00.250000+00:00"),
        ("2026-11-29 03:12 utc", "2026-11-29T03:12:00+00:00"),
        ("03:12", "2026-11-30T03:12:00-09:30"),
        ("3:13", "2026-11-29T03:13:00-09:30"),
        ("15m", "2026-11-30T02:57:30-09:30"),
        ("2h ago", "2026-11-30T01:12:30-09:30"),
        ("1 d", "2026-11-29T03:12:30-09:30"),
    ],
)
def test_a_moment(text: str, found: str) -> None:
    assert moment.parse(text, NOW).isoformat() == found


def test_a_time_without_a_day_at_its_very_moment_and_around_midnight() -> None:
    at = NOW.replace(second=0)
    assert moment.parse("03:12", at) == at
    assert moment.parse("00:00", at.replace(hour=0, minute=0)).isoformat() == "2026-11-30T00:00:00-09:30"
    assert moment.parse("23:59", NOW.replace(microsecond=5)).isoformat() == "2026-11-29T23:59:00-09:30"


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-13-01 00:00", "2026-11-30", "25:00", "2026-11-30 03:12+99:00", "٣m"]
)
def test_what_is_no_moment(text: str) -> None:
    with pytest.raises(InvalidInput, match="is not a time that can be read"):
        moment.parse(text, NOW)


def test_what_has_not_come_yet() -> None:
    with pytest.raises(InvalidInput, match="has not come yet"):
        moment.parse("2026-11-30 03:13", NOW)


def test_local_times_have_the_hosts_zone() -> None:
    here = datetime.now().astimezone()
    assert moment.parse("2020-07-01 12:00", here) == datetime(2020, 7, 1, 12).astimezone()
