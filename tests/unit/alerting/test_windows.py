# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Silences and maintenance windows that inventories declare."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import artifact
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from pgops.alerting import windows
from pgops.alerting.windows import Window
from pgops.errors import InvalidInput

ONCE = {"name": "disks", "labels": {"node": "db1"}, "starts": "2026-12-24 18:00", "ends": "2026-12-25"}
AGAIN = {"name": "night", "labels": {"node": "db1"}, "start_time": "22:00", "duration": "2h"}


def one(given: Mapping[str, Any], silence: bool = False) -> Window:
    (found,) = windows.declared([given] if silence else [], [] if silence else [given]).values()
    return found


def test_one_that_does_not_recur() -> None:
    found = one({**ONCE, "weekdays": None, "comment": None})
    assert (found.starts, found.ends, found.time_zone) == ("2026-12-24 18:00:00", "2026-12-25 00:00:00", "UTC")
    assert (found.weekdays, found.comment, found.kind) == (None, "disks", "maintenance")
    assert one({"name": "disks", "labels": {"node": 1}, "ends": ONCE["ends"]}, silence=True).starts == "-infinity"


def test_one_that_recurs() -> None:
    found = one(AGAIN)
    assert (found.weekdays, found.days_of_month, found.duration) == ((1, 2, 3, 4, 5, 6, 7), None, 7200)
    assert (found.starts, found.ends) == ("-infinity", "infinity")
    first_sunday = one({**AGAIN, "weekdays": ["Sun"], "days_of_month": [7, 6, 5, 4, 3, 2, 1]})
    assert first_sunday.row()["weekdays"] == "{7}"
    assert first_sunday.row()["days_of_month"] == "{1,2,3,4,5,6,7}"
    assert one({**AGAIN, "weekdays": ["wednesday", "1", 5, "th"]}).weekdays == (1, 3, 4, 5)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-12-24", "2026-12-24 00:00:00"),
        ("2026-12-24T18:00:01", "2026-12-24 18:00:01"),
        ("2026-12-24 18:00Z", "2026-12-24 18:00:00+00"),
        ("2026-12-24 18:00 +01:00", "2026-12-24 18:00:00+01:00"),
        (yaml.safe_load("2026-12-24 18:00:00"), "2026-12-24 18:00:00"),
        (yaml.safe_load("2026-12-24"), "2026-12-24 00:00:00"),
    ],
)
def test_times(text: Any, expected: str) -> None:
    assert one({**ONCE, "starts": text}).starts == expected


@given(st.integers(0, 23), st.integers(0, 59), st.none() | st.integers(0, 59))
def test_times_of_the_day_are_those_that_were_written_with_or_without_quotes(
    hours: int, minutes: int, seconds: int | None
) -> None:
    written = f"{hours:02}:{minutes:02}" + ("" if seconds is None else f":{seconds:02}")
    expected = f"{hours:02}:{minutes:02}:{seconds or 0:02}"
    assert windows.clock("It", written) == windows.clock("It", yaml.safe_load(written)) == expected


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({**ONCE, "name": ""}, "needs a name"),
        ({**ONCE, "name": "x" * 101}, "needs a name"),
        ({**ONCE, "label": {}}, "did you mean labels"),
        ({**ONCE, "labels": {}}, "it needs labels"),
        ({**ONCE, "labels": {"severity": "fatal"}}, "the label severity"),
        ({**ONCE, "ends": None}, "it ends never"),
        ({**ONCE, "starts": "tomorrow"}, "'tomorrow' is not a time"),
        ({**ONCE, "starts": "2026-02-30"}, "is not a time"),
        ({**ONCE, "starts": "2026-02-03 25:00"}, "is not a time"),
        ({**ONCE, "comment": "x" * 1001}, "1,000"),
        ({**ONCE, "weekdays": ["sun"]}, "lacks start_time or duration"),
        ({**AGAIN, "duration": None}, "lacks start_time or duration"),
        ({**AGAIN, "duration": "8d"}, "a minute to 7 days"),
        ({**AGAIN, "duration": "30s"}, "a minute to 7 days"),
        ({**AGAIN, "start_time": "24:00"}, "not a time of the day"),
        ({**AGAIN, "start_time": "12"}, "not a time of the day"),
        ({**AGAIN, "start_time": "99999"}, "not a time of the day"),
        ({**AGAIN, "weekdays": ["s"]}, "not a day of the week"),
        ({**AGAIN, "weekdays": ["8"]}, "not a day of the week"),
        ({**AGAIN, "days_of_month": ["32"]}, "not a day of the month"),
    ],
)
def test_what_none_can_be_is_refused(given: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        one(given)


def test_a_silence_does_not_recur() -> None:
    with pytest.raises(InvalidInput, match="Silence night has unknown keys: duration; start_time"):
        one(AGAIN, silence=True)


def test_names_are_unique_among_both() -> None:
    with pytest.raises(InvalidInput, match="declared more than once"):
        windows.declared([ONCE], [ONCE])
    with pytest.raises(InvalidInput, match="at most 500"):
        windows.declared([], [{**ONCE, "name": str(number)} for number in range(501)])


def test_the_module_takes_what_they_have() -> None:
    text = (artifact.ROOT / "plugins" / "modules" / "pg_ops_alerts.py").read_text()
    for place, kind in (("SILENCE", windows.SILENCE), ("MAINTENANCE", windows.MAINTENANCE)):
        part = text.partition(f"\n{place} = {{")[2].partition("\n}")[0]
        own = set(re.findall(r'^    "(\w+)": {"type"', part, re.MULTILINE))
        assert (own | windows.KEYS[windows.SILENCE] if "**SILENCE" in part else own) == windows.KEYS[kind]
