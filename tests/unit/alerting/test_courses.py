# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of the watch's alerts, and what is told of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timezone

import artifact
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.alerting import choices, courses, looks, telling, watch
from pgops.alerting.choices import Channel, Choices, Silence
from pgops.alerting.couriers import SECONDS
from pgops.alerting.courses import FIRING, PENDING, RECOVERING, RESOLVED, RULES, Alert, Finding, advanced, rebooted

DOWN = Finding("instance_down", True, text="it has no socket")
UP = replace(DOWN, wrong=False)
UNKNOWN = replace(DOWN, wrong=None)
PAGE = artifact.ROOT / "docs" / "watch.md"


def after(*looked: tuple[float, Finding | None]) -> list[Alert]:
    """The alerts after looks at so many seconds."""
    found: list[Alert] = []
    for now, seen in looked:
        found = advanced(found, [seen] if seen else [], now, 1_000_000 + now)
    return found


def states(alerts: Iterable[Alert]) -> list[str]:
    return [one.state for one in alerts]


@pytest.mark.parametrize(
    ("looked", "found"),
    [
        ([(0, UP)], []),
        ([(0, DOWN)], [PENDING]),
        ([(0, DOWN), (19, DOWN)], [PENDING]),
        ([(0, DOWN), (20, DOWN)], [FIRING]),
        ([(0, DOWN), (10, UP), (20, DOWN)], [PENDING]),
        ([(0, DOWN), (10, UNKNOWN), (20, DOWN)], [FIRING]),
        ([(0, DOWN), (20, DOWN), (60, UP)], [RECOVERING]),
        ([(0, DOWN), (20, DOWN), (60, UP), (90, DOWN)], [FIRING]),
        ([(0, DOWN), (20, DOWN), (60, UP), (104, UP)], [RECOVERING]),
        ([(0, DOWN), (20, DOWN), (60, UP), (105, UP)], [RESOLVED]),
        ([(0, DOWN), (20, DOWN), (60, UNKNOWN), (999, UNKNOWN)], [FIRING]),
        ([(0, DOWN), (20, DOWN), (60, None)], [RESOLVED]),
        ([(0, DOWN), (10, None)], []),
        ([(0, DOWN), (20, DOWN), (60, UP), (120, UP), (180, DOWN), (200, DOWN)], [FIRING, RESOLVED]),
        ([(0, DOWN), (20, DOWN), (60, UP), (120, UP), (120 + 86_400, UP)], []),
    ],
)
def test_an_alert_goes_its_course(looked: list[tuple[float, Finding | None]], found: list[str]) -> None:
    assert states(after(*looked)) == found


def test_one_that_fires_again_and_again_is_damped() -> None:
    alerts: list[Alert] = []
    moment = 0.0
    for _time in range(4):
        for later, seen in ((60, DOWN), (60, DOWN), (60, UP), (60, UP)):
            moment += later
            alerts = advanced(alerts, [seen], moment, moment)
    assert states(alerts)[0] == RECOVERING
    assert alerts[0].flapping
    assert states(advanced(alerts, [UP], moment + 899 - 60, 0))[0] == RECOVERING
    assert states(advanced(alerts, [UP], moment + 900, 0)).count(RESOLVED) == 4


def test_after_a_boot_all_times_begin_anew() -> None:
    (fires,) = after((5000, DOWN), (5020, DOWN))
    (again,) = advanced(rebooted([replace(fires, told={"a/b": (FIRING, 5020.0)})], 3.0), [UP], 3.0, 0)
    assert (again.state, again.alert_id, again.fine, again.told) == (
        RECOVERING,
        fires.alert_id,
        3.0,
        {"a/b": (FIRING, 3.0)},
    )


@given(st.lists(st.tuples(st.floats(0, 5000), st.sampled_from([DOWN, UP, UNKNOWN])), max_size=30))
def test_whatever_happens_there_is_one_that_is_open_and_json_has_all(steps: list[tuple[float, Finding]]) -> None:
    alerts: list[Alert] = []
    now = 0.0
    for later, seen in steps:
        now += later
        before, alerts = alerts, advanced(alerts, [seen], now, now)
        assert sum(one.state in courses.OPEN for one in alerts) <= 1
        known = {one.alert_id for one in before} | {""}
        new = [one for one in alerts if one.alert_id not in known]
        assert len(new) <= int(seen.wrong is True)
        assert all(one.fires == bool(one.alert_id and one.state != RESOLVED) for one in alerts)
    assert [courses.loaded(json.loads(json.dumps(one.document()))) for one in alerts] == alerts


@pytest.mark.parametrize("wrong", [{}, {"rule": "nobody's"}, {"state": "lost"}, {"told": {"a": "b"}}])
def test_what_is_no_alert_is_refused(wrong: dict[str, object]) -> None:
    (alert,) = after((0, DOWN))
    document = {**alert.document(), **wrong} if wrong else {}
    with pytest.raises((KeyError, ValueError, TypeError)):
        courses.loaded(document)


# --- what is told


def test_who_is_told_what() -> None:
    (fires,) = after((0, DOWN), (20, DOWN))
    told = replace(fires, told={"a": (FIRING, 20.0)})
    ended = replace(told, state=RESOLVED)
    cases = [
        (fires, False, 30, "firing"),
        (fires, True, 30, ""),
        (told, False, 30, ""),
        (told, False, 20 + 4 * 3600, "repeated"),
        (ended, False, 30, "resolved"),
        (ended, True, 30, "resolved"),
        (replace(ended, told={}), False, 30, "passed"),
        (replace(ended, told={}), True, 30, ""),
        (replace(ended, told={"a": (RESOLVED, 30.0)}), False, 99, ""),
        (replace(fires, state=PENDING), False, 30, ""),
    ]
    assert [choices.event(one, "a", Channel(), now, muted) for one, muted, now, _word in cases] == [
        word for _one, _muted, _now, word in cases
    ]
    assert choices.event(ended, "a", Channel(send_resolved=False), 30, False) == ""


def test_channels_are_chosen_as_in_the_ops_database_and_somebody_always_is() -> None:
    found = {"rule_name": "instance_down", "severity": "critical", "node": "db1", "cluster": "shop"}
    chosen = Choices(
        {
            "pager": Channel(severities=["critical"]),
            "desk": Channel(severities=["warning"]),
            "spare": Channel(default=False),
            "off": Channel(enabled=False),
            "other": Channel(labels={"node": "db2"}),
        }
    )
    assert choices.meant(found, ["pager", "desk", "spare", "off", "other", "new"], chosen) == {"pager", "new"}
    assert choices.meant(found, ["desk", "spare"], chosen) == {"desk", "spare"}


def test_a_silence_has_all_its_labels_and_its_time() -> None:
    found = {"node": "db1", "rule_name": "instance_down"}
    chosen = Choices({}, [Silence({"node": "db1"}, 100, 200), Silence({"node": "db2"}, 0, 999)])
    assert [choices.silenced(found, chosen, day) for day in (99, 100, 199, 200)] == [False, True, True, False]


def test_a_message_names_what_is_most_urgent_and_is_bounded() -> None:
    (fires,) = after((0, DOWN), (20, DOWN))
    stale = replace(fires, rule="job_failing", labels={"job": "a"}, text="<a>\x1b[1m fails")
    many = [("firing", stale)] + [("firing", fires)] * 40 + [("resolved", replace(fires, ended_at=5.0))]
    text = choices.message(("sh<op", "db1/main"), choices.ordered(many), "an-id", True)
    assert text.title.startswith("[FIRING 41, RESOLVED 1] critical: instance_down on sh\u2039op (db1/main)")
    assert (text.severity, len(text.body) < 4500) == ("critical", True)
    assert re.search(r"And \d+ more: see pgops watch --status\.", text.body)
    assert "may have been sent before" in text.body
    alone = choices.message(("shop", "db1"), [("firing", stale)], "an-id", False).body
    assert "\u2039a\u203a\\x1b[1m fails" in alone


def test_an_alertmanager_is_never_told_of_an_end_before_the_beginning() -> None:
    (fires,) = after((0, DOWN), (20, DOWN))
    now = datetime(2026, 11, 30, tzinfo=timezone.utc)
    open_post = choices.post(fires, ("shop", "db1"), now)
    assert (open_post["labels"]["alertname"], open_post["endsAt"]) == ("instance_down", "2026-11-30T00:05:00+00:00")
    set_back = choices.post(replace(fires, fired_at=500.0, ended_at=100.0), ("shop", "db1"), now)
    assert set_back["startsAt"] < set_back["endsAt"]


def test_people_know_within_two_minutes() -> None:
    """A look each minute; then looks until the alert fires, one of which may hang; then a channel that hangs."""
    soon = [one for one in RULES.values() if one.name not in ("peer_down", "job_stale", "job_failing")]
    assert {one.lasts for one in soon} == {20}
    assert 60 + 20 + watch.PAUSE + looks.ALL + SECONDS <= 120


def test_retries_are_never_further_apart_than_five_minutes() -> None:
    assert (telling.BACKOFF, telling.LONGEST) == (30, 300)


def test_the_page_has_each_alert_with_its_severity_and_time() -> None:
    text = PAGE.read_text()
    for one in RULES.values():
        lasts = {20: "20 s", 60: "1 m", 0: ""}[int(one.lasts)]
        assert re.search(rf"^\| `{one.name}` \| {one.severity} \| .* \| {lasts}(?: )?\|$", text, re.MULTILINE), (
            one.name
        )
    assert re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE) == list(RULES)
