# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was done to a server between two looks at it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pgops.alerting import observation
from pgops.alerting.observation import Observation, between

BEFORE = Observation(
    ("shop", "db1/main", "7"),
    "2026-11-30 10:00:40.5+00",
    "2026-11-01 00:00:00.1+00",
    "2026-11-29 00:00:00+00",
    "2026-11-01 00:00:00.2+00",
    standby=False,
    timeline=1,
    settings={"work_mem": ("4MB", "a"), "primary_conninfo": ("(hidden)", "b")},
)
LATER = replace(BEFORE, observed_at="2026-11-30 10:01:40.5+00")


def test_nothing_is_known_of_what_was_before_the_first_look_or_of_another_server() -> None:
    assert between(None, LATER) == []
    assert between(replace(BEFORE, whose=("shop", "db1/main", "8"), started_at="2020-01-01 00:00:00+00"), LATER) == []


def test_nothing_happens_in_a_quiet_minute() -> None:
    assert between(BEFORE, LATER) == []


def test_a_restart_with_other_settings_has_the_time_of_the_start() -> None:
    now = replace(LATER, started_at="2026-11-30 10:01:00+00", settings={"work_mem": ("", "c"), "new": ("1", "d")})
    restart, settings = between(BEFORE, now)
    assert (restart.kind, restart.at, restart.key) == ("restart", now.started_at, f"restart:{now.started_at}")
    assert restart.text == "The server was started; the last sign of it before was at 2026-11-30 10:00:40+00."
    assert (settings.kind, settings.at) == ("settings", now.started_at)
    assert settings.text == "new: (not there) -> 1; primary_conninfo: (hidden) -> (not there); work_mem: 4MB -> ''"


def test_a_crash_of_a_process_is_told_from_a_restart() -> None:
    (event,) = between(BEFORE, replace(LATER, processes_at="2026-11-30 10:01:10+00"))
    assert (event.kind, event.at, event.details["crash"]) == ("restart", "2026-11-30 10:01:10+00", True)
    assert between(BEFORE, replace(LATER, processes_at=None)) == []


@pytest.mark.parametrize(
    ("before", "now", "text"),
    [
        ((True, 1), (False, 2), "The server was promoted: it is the primary, on timeline 2 (before: 1)."),
        ((False, 1), (True, 2), "The server became a standby, on timeline 2 (before: 1)."),
        ((True, 1), (True, 2), "The server follows timeline 2 (before: 1)."),
        ((False, 1), (False, 3), "The server is on timeline 3 (before: 1)."),
        ((True, 2), (True, 1), ""),
    ],
)
def test_roles_and_timelines(before: tuple[bool, int], now: tuple[bool, int], text: str) -> None:
    found = between(
        replace(BEFORE, standby=before[0], timeline=before[1]), replace(LATER, standby=now[0], timeline=now[1])
    )
    assert [one.text for one in found] == ([text] if text else [])
    assert {one.kind for one in found} <= {"failover"}


def test_what_is_noticed_again_has_the_same_key() -> None:
    now = replace(LATER, loaded_at="2026-11-30 10:01:00+00", settings={"work_mem": ("64MB", "c")}, timeline=2)
    again = replace(now, observed_at="2026-11-30 10:02:40.5+00")
    assert [one.key for one in between(BEFORE, now)] == [one.key for one in between(BEFORE, again)]


def test_many_settings_are_bounded() -> None:
    many = {f"app.setting_{number:03}": ("x" * 200, str(number)) for number in range(200)}
    (event,) = between(BEFORE, replace(LATER, settings={**BEFORE.settings, **many}))
    assert len(event.text) <= observation.TEXT
    assert len(event.details["changes"]) == observation.MOST


def test_a_file_is_read_as_it_was_written() -> None:
    assert observation.parse(BEFORE.text()) == BEFORE
    for broken in ("", "{}", "[]", '{"format": 2}', BEFORE.text().replace('"settings"', '"others"')):
        assert observation.parse(broken) is None
