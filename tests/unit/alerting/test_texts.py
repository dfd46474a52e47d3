# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Messages as people read them, and as Alertmanager does."""

from __future__ import annotations

import json
import unicodedata
from datetime import datetime, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgops.alerting import alertmanager, texts

ALERT: dict[str, Any] = {
    "alert_id": "a1",
    "event": "firing",
    "rule_name": "connections",
    "severity": "critical",
    "metric": "active_connections",
    "operator": ">",
    "metric_value": "91.50000000000001",
    "threshold_value": "90",
    "cluster": "shop",
    "node": "db1/main",
    "labels": {"node": "db1/main", "database": "app"},
    "fired_at": "2026-11-30T03:10:05.123456+00:00",
    "ended_at": None,
    "reason": None,
    "flapping": False,
}
ENDED = {**ALERT, "event": "resolved", "ended_at": "2026-11-30T03:20:00+00:00"}
NOW = datetime(2026, 11, 30, 3, 30, tzinfo=timezone.utc)
LINES = 3
"""Of a message about one alert that fires: the alert, how to see more, and the number of the message."""
HOSTILE = "a<!channel>\x1b[31m\u202e@everyone\n<b>"


def document(*alerts: dict[str, Any], template: str | None = None, more: int = 0) -> dict[str, Any]:
    """A message about some alerts."""
    events: dict[str, int] = {}
    for alert in alerts:
        events[alert["event"]] = events.get(alert["event"], more) + 1
    return {
        "notification_id": "m1",
        "cluster": "shop",
        "template": template,
        "events": events,
        "alerts": list(alerts),
    }


def test_a_message_says_what_where_and_since_when() -> None:
    found = texts.text(document(ALERT), doubtful=False)
    assert found.title == "[FIRING 1] critical: connections on shop"
    assert found.body == (
        "FIRING: db1/main database=app: active_connections was 91.5 (alert above 90), "
        "since 2026-11-30 03:10:05 UTC.\n"
        "What was seen, and what happened before: pgops incident a1\nMessage m1"
    )
    assert found.severity == "critical"


def test_what_has_ended_is_told_with_its_end_and_why() -> None:
    ended = {**ENDED, "reason": "It is no longer there.", "flapping": True}
    found = texts.text(document(ended), doubtful=True)
    assert (found.title, found.severity) == ("[RESOLVED 1] critical: connections on shop", "resolved")
    assert "from 2026-11-30 03:10:05 UTC to 2026-11-30 03:20:00 UTC. It is no longer there. It flaps." in found.body
    assert texts.DOUBTFUL in found.body


def test_a_message_of_several_events_counts_each_and_is_as_urgent_as_what_fires() -> None:
    found = texts.text(document(ALERT, ENDED, {**ALERT, "event": "repeated"}), doubtful=False)
    assert found.title.startswith("[FIRING 1, RESOLVED 1, STILL FIRING 1] ")
    assert found.severity == "critical"


def test_a_template_has_places_for_values_and_labels() -> None:
    template = "{database} on {node}: {metric_value} > {threshold_value} {severity} {unknown} {0} {node.__class__} {"
    alert = {**ALERT, "labels": {**ALERT["labels"], "severity": "mine"}}
    assert texts.filled(template, alert) == "app on db1/main: 91.5 > 90 critical {unknown} {0} {node.__class__} {"


@pytest.mark.parametrize("value", [HOSTILE, "x" * 10_000])
def test_a_name_of_somebody_else_is_no_mention_no_tag_and_short(value: str) -> None:
    alert = {**ALERT, "labels": {"database": value}, "rule_name": value, "reason": value}
    found = texts.text(document(alert, template="{database}"), doubtful=False)
    assert not set(found.title + found.body) & set("<>@\x1b\u202e")
    assert len(found.title) < 300
    assert found.body.count("\n") == LINES - 1


def test_a_value_that_is_a_place_itself_is_not_filled_in() -> None:
    assert texts.filled("{database}", {**ALERT, "labels": {"database": "{node}"}}) == "{node}"


def test_what_has_no_room_is_counted() -> None:
    alerts = [{**ALERT, "labels": {"table": f"{number:0200}"}} for number in range(20)]
    found = texts.text(document(*alerts, more=480), doubtful=False)
    shown = found.body.count("FIRING:")
    assert 5 < shown < 20
    assert f"And {500 - shown} more" in found.body
    assert len(found.body) < texts.BODY + 1000


@given(st.text(max_size=300), st.text(max_size=300))
def test_whatever_labels_hold_a_message_is_lines_of_what_can_be_seen(name: str, value: str) -> None:
    found = texts.text(document({**ALERT, "labels": {name: value}}), doubtful=False)
    assert found.body.count("\n") == LINES - 1
    assert all(unicodedata.category(one) not in {"Cc", "Cf", "Cs"} for one in found.body.replace("\n", ""))


def test_nothing_measured_is_no_number() -> None:
    assert "was nothing (" in texts.summary({**ALERT, "metric_value": None})


# --- Alertmanager


def test_what_fires_lasts_until_it_is_told_again_and_what_has_ended_ended_then() -> None:
    (firing,) = alertmanager.posts([ALERT], NOW)
    assert (firing["startsAt"], firing["endsAt"]) == (ALERT["fired_at"], "2026-11-30T03:35:00+00:00")
    (ended,) = alertmanager.posts([ENDED], NOW)
    assert ended["endsAt"] == ENDED["ended_at"]
    assert ended["labels"] == firing["labels"]


def test_of_several_with_the_same_labels_the_last_is_told() -> None:
    (post,) = alertmanager.posts([ENDED, ALERT], NOW)
    assert post["endsAt"] > NOW.isoformat()


@given(st.dictionaries(st.text(max_size=20), st.text(max_size=20), max_size=5))
def test_labels_have_names_that_alertmanager_takes(labels: dict[str, str]) -> None:
    (post,) = alertmanager.posts([{**ALERT, "labels": labels}], NOW)
    for name, value in post["labels"].items():
        assert name.isascii()
        assert name.isidentifier()
        assert value
    assert post["labels"]["alertname"] == "connections"
    assert json.loads(json.dumps(post)) == post
