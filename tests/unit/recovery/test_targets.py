# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Targets: exactly one, without ambiguity, and in PostgreSQL's words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.errors import InvalidInput
from pgops.recovery import targets
from pgops.recovery.targets import KINDS, SETTING, Target

GIVEN: dict[str, Any] = {
    "time": "2026-11-29 15:30:00+01:00",
    "lsn": "16/B374D848",
    "name": "before the drop",
    "xid": "12345",
    "immediate": True,
    "latest": True,
}
zones = st.integers(-15 * 60, 15 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
moments = st.datetimes(datetime(1971, 1, 3), datetime(2200, 1, 1), timezones=zones)  # noqa: DTZ001


@given(st.sets(st.sampled_from(KINDS)))
def test_exactly_one_target_is_taken(kinds: set[str]) -> None:
    arguments = {kind: GIVEN[kind] for kind in kinds}
    if len(kinds) == 1:
        assert {targets.parse(arguments).kind} == kinds
    else:
        with pytest.raises(InvalidInput, match="Exactly one"):
            targets.parse(arguments)


@pytest.mark.parametrize("kind", ["time", "lsn", "name", "xid"])
def test_an_empty_value_is_no_other_target(kind: str) -> None:
    with pytest.raises(InvalidInput):
        targets.parse({kind: ""})
    with pytest.raises(InvalidInput):
        targets.parse({kind: "", "latest": True})


@given(moments)
def test_a_time_means_the_same_moment_in_every_zone(when: datetime) -> None:
    minutes = round((when.utcoffset() or timedelta()).total_seconds()) // 60
    zone = f"{'-' if minutes < 0 else '+'}{abs(minutes) // 60:02}:{abs(minutes) % 60:02}"
    text = when.replace(tzinfo=None).isoformat(sep=" ") + zone
    found = targets.parse({"time": text})
    assert found.time == when
    # What PostgreSQL is told leads back to it.
    assert targets.moment(found.value) == when


@pytest.mark.parametrize(
    ("text", "utc"),
    [
        ("2026-11-29T15:30Z", "2026-11-29 15:30:00.000000+00"),
        ("2026-11-29 15:30:01 UTC", "2026-11-29 15:30:01.000000+00"),
        ("2026-11-29 15:30:01.5+0530", "2026-11-29 10:00:01.500000+00"),
        ("2026-11-29 23:30:00-08", "2026-11-30 07:30:00.000000+00"),
    ],
)
def test_usual_ways_to_write_a_time(text: str, utc: str) -> None:
    assert targets.parse({"time": text}).value == utc


@pytest.mark.parametrize("text", ["2026-11-29 15:30:00", "2026-11-29T15:30:00.123"])
def test_a_time_without_a_zone_is_refused_with_one_that_is_not(text: str) -> None:
    with pytest.raises(InvalidInput, match="no time zone") as caught:
        targets.parse({"time": text})
    assert targets.moment(caught.value.hint.split(", or")[0].removeprefix("Write it as ")).tzinfo


@pytest.mark.parametrize(
    "arguments",
    [
        {"time": "yesterday"},
        {"time": "2026-13-01 00:00:00Z"},
        {"time": "2026-11-29 15:30:00 Europe/Berlin"},
        {"time": "2026-11-29 15:30:00.1234567Z"},
        {"time": "2026-11-29 15:30:00+16:00"},
        {"lsn": "16B374D848"},
        {"lsn": "1/123456789"},
        {"xid": "2"},
        {"xid": "-7"},
        {"xid": str(1 << 64)},
        {"name": "n" * 64},
        {"latest": True, "timeline": "x"},
        {"latest": True, "timeline": "0"},
    ],
)
def test_what_cannot_be_read_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput) as caught:
        targets.parse(arguments)
    assert caught.value.hint


@given(st.sampled_from(KINDS), st.booleans(), st.integers(1, 1 << 31))
def test_postgresql_is_told_one_target_and_last(kind: str, inclusive: bool, timeline: int) -> None:
    target = targets.parse({kind: GIVEN[kind], "inclusive": inclusive})
    settings = target.settings(timeline)
    said = [name for name in SETTING.values() if settings[name]]
    assert said == ([SETTING[kind]] if kind in SETTING else [])
    kinds = [name for name in settings if name in SETTING.values()]
    assert sorted(kinds) == sorted(SETTING.values())
    assert said in ([], [kinds[-1]])
    assert set(settings) <= set(targets.STALE)
    assert settings["recovery_target_timeline"] == ("current" if kind == "immediate" else str(timeline))
    assert settings["recovery_target_action"] == ("promote" if kind == "latest" else "pause")


@given(st.integers(0, (1 << 64) - 1))
def test_an_lsn_is_written_as_it_is_read(byte: int) -> None:
    assert targets.position(Target("lsn", lsn=byte).value) == byte


def test_only_what_can_wait_ends_paused() -> None:
    for end in targets.ENDS:
        targets.check_end(Target("immediate"), end)
    targets.check_end(Target("latest"), "promote")
    for end in ("paused", "shutdown"):
        with pytest.raises(InvalidInput, match="always promoted"):
            targets.check_end(Target("latest"), end)
    with pytest.raises(InvalidInput):
        targets.check_end(Target("immediate"), "sleep")
