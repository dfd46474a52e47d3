# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Messages that do not arrive: what is measured of them, and who is told of that."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from deploying import SHIPPED, collect, configured, rule
from notified import Notified
from servers import Server

from pgops.alerting import job
from pgops.instance import endpoints
from pgops.server.session import connect

COLLECTOR = [one for one in SHIPPED if one.name == "notifications"]
METRICS = (
    "notifications_waiting",
    "notification_oldest_seconds",
    "notifications_dead",
    "notification_attempts_failed",
)
OURS = ("notifications_undelivered", "notifications_given_up")
QUICK = {"name": "notifications_undelivered", "lasts": "0"}
VALUES = """
SELECT DISTINCT ON (v.labels) v.labels ->> 'channel', v.sample
FROM pgops.samples_between(%s, now() - interval '1 hour', now() + interval '1 hour') AS v
ORDER BY v.labels, v.collected_at DESC
"""
MESSAGES = """
SELECT n.channel, n.rule_name, n.severity_level FROM pgops.notifications AS n
WHERE n.rule_name = ANY (%s) ORDER BY 1, 2, 3
"""
EVENTS = """
SELECT n.channel, n.rule_name, e.value #>> '{}'
FROM pgops.notifications AS n CROSS JOIN jsonb_each(n.alerts) AS e ORDER BY 1, 2, 3
"""


class Outbox:
    """An ops database with the shipped rules, and its agent."""

    def __init__(self, server: Server, notified: Notified, state: Path) -> None:
        self.server, self.notified, self.state = server, notified, state

    def measured(self) -> dict[str, dict[str, float]]:
        """Collect what there is of the outbox: by metric and channel, rounded to minutes where it is a time."""
        assert collect(self.server, self.state, found=COLLECTOR)["errors"] == []
        values = {name: dict(self.notified.rows(VALUES, [name])) for name in METRICS}
        return {
            name.removeprefix("notification_").removeprefix("notifications_"): {
                channel: value // 60 if name.endswith("seconds") else value for channel, value in found.items()
            }
            for name, found in values.items()
        }

    def older(self, minutes: int) -> None:
        """All that waits has waited for so long."""
        interval = f"interval '{minutes} minutes'"
        self.notified.session.execute(
            f"UPDATE pgops.notification SET queued_at = now() - {interval} WHERE status = 'waiting'".encode()
        )

    def told(self, *seconds: float) -> list[tuple[Any, ...]]:
        """Evaluate at some moments: the messages about messages."""
        for second in seconds:
            self.notified.at(second)
        return self.notified.rows(MESSAGES, list(OURS))


@pytest.fixture(name="outbox")
def _outbox(deployed: Server, tmp_path: Path) -> Iterator[Outbox]:
    rule(deployed)
    with deployed.connect("pgops") as session:
        yield Outbox(deployed, Notified(session, "now()"), tmp_path)


@pytest.mark.every_major
def test_what_waits_fails_and_is_given_up_is_measured_by_channel(outbox: Outbox) -> None:
    assert outbox.measured() == {name: {} for name in ("waiting", "oldest_seconds", "dead", "attempts_failed")}
    outbox.notified.rule()
    outbox.notified.channel(attempts=2)
    outbox.notified.channel("am", kind="alertmanager")
    outbox.notified.channel("off", is_enabled=False)
    idle = dict.fromkeys(("ops", "am"), 0)
    assert outbox.measured() == dict.fromkeys(("waiting", "oldest_seconds", "dead", "attempts_failed"), idle)
    outbox.notified.fire(0)
    outbox.older(20)
    outbox.notified.session.execute(b"UPDATE pgops.alert_notice SET seen_at = now() - interval '10 minutes'")
    found = outbox.measured()
    assert (found["waiting"], found["oldest_seconds"]) == ({"ops": 1, "am": 0}, {"ops": 20, "am": 10})
    for attempt in (1, 2):
        outbox.notified.note(outbox.notified.claim(), "failed", "refused")
        outbox.notified.hurry()
        found = outbox.measured()
        assert found["attempts_failed"] == {"ops": attempt, "am": 0}
    assert (found["waiting"]["ops"], found["oldest_seconds"]["ops"], found["dead"]["ops"]) == (0, 0, 1)


def test_that_a_channel_is_silent_the_others_are_told_and_not_itself(outbox: Outbox) -> None:
    outbox.notified.rule()
    outbox.notified.channel(group_interval="0")
    outbox.notified.channel("spare", is_default=False, group_interval="0")
    rule(outbox.server, rules=[QUICK])
    outbox.notified.fire(0)
    outbox.measured()
    assert outbox.told(30) == []
    outbox.older(20)
    outbox.measured()
    assert outbox.told(60) == [("spare", "notifications_undelivered", "warning")]
    # Once it can be told, the others are told that this has ended.
    outbox.notified.hurry()
    for channel in ("ops", "spare"):
        outbox.notified.note(outbox.notified.claim(channel))
    outbox.measured()
    outbox.told(90)
    said = outbox.notified.rows(EVENTS)
    assert said == [
        ("ops", "high_load", "firing"),
        ("spare", "notifications_undelivered", "firing"),
        ("spare", "notifications_undelivered", "resolved"),
    ]


def test_what_was_given_up_is_told(outbox: Outbox) -> None:
    outbox.notified.rule()
    outbox.notified.channel(attempts=1)
    outbox.notified.channel("spare", is_default=False)
    outbox.notified.fire(0)
    outbox.notified.note(outbox.notified.claim(), "failed", "refused")
    outbox.measured()
    assert outbox.told(30) == [("spare", "notifications_given_up", "warning")]


def test_channels_that_a_rule_names_are_told_but_for_the_one_that_it_is_about(outbox: Outbox) -> None:
    named = [{"name": "notifications_undelivered", "channels": ["ops", "third"]}]
    channels = [{"name": name, "group_interval": "0"} for name in ("ops", "spare", "third")]
    outbox.notified.rule(notification_channels='["ops"]')
    rule(outbox.server, rules=named, channels=channels)
    outbox.notified.session.execute(b"UPDATE pgops.notification_channel SET created_at = '-infinity'")
    outbox.notified.fire(0)
    outbox.older(20)
    outbox.measured()
    assert outbox.told(30, 90) == []  # not for a minute only
    assert outbox.told(211) == [("third", "notifications_undelivered", "warning")]


def test_with_all_channels_silent_there_is_no_storm(outbox: Outbox) -> None:
    """Messages about messages wait as well, and are not about themselves."""
    outbox.notified.rule()
    rule(outbox.server, rules=[{**QUICK, "window": "1h"}])
    for name in ("one", "two", "three"):
        outbox.notified.channel(name, group_interval="0", repeat_interval="1 minute")
    outbox.notified.fire(0)
    for step in range(1, 9):
        outbox.older(20 * step)
        outbox.measured()
        outbox.told(step * 400)
    # Each is told of the two others by one message of each severity, besides what fired at first.
    assert outbox.notified.value("SELECT count(*) FROM pgops.notification") <= 3 + 3 * 2
    open_alerts = "SELECT count(*) FROM pgops.alert_history WHERE ended_at IS NULL AND rule_name = ANY (%s)"
    assert outbox.notified.value(open_alerts, list(OURS)) == 6


def test_what_is_to_be_told_waits_also_where_nobody_sends(deployed: Server, tmp_path: Path) -> None:
    with deployed.connect("pgops") as session:
        notified = Notified(session, "now() - interval '1 minute'")
        notified.rule()
        notified.channel()
        notified.load(0, 9)
        with connect(endpoints.agent(configured(deployed, tmp_path)[0], "alerts")) as agent:
            found = job.evaluate(agent)
        assert (found["fired"], found["errors"]) == (1, [])
        assert notified.rows("SELECT channel, status FROM pgops.notifications") == [("ops", "waiting")]
