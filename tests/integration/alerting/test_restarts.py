# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server that is restarted, or crashes, tells nothing again, whatever its alerts and messages are at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from deploying import configured, deploy
from notified import Notified
from psycopg.types.json import Jsonb
from receivers import Webhook
from sending import Sender
from servers import Server
from waiting import until

from pgops.alerting import job
from pgops.instance import endpoints
from pgops.server.session import connect

RULES: dict[str, dict[str, str]] = {
    "acknowledged": {},
    "ended": {},
    "firing": {},
    "missing": {"evaluation_window": "10 seconds"},
    "pending": {"minimum_duration": "1 day"},
    "recovering": {"keep_firing_for": "1 day"},
    "silenced": {},
}
"""Named by the state in which each is when its server is restarted."""
STATES = {
    **dict.fromkeys(("acknowledged", "firing", "silenced"), "firing"),
    **{name: name for name in ("missing", "pending", "recovering")},
    "ended": "resolved",
}
STATUS = "SELECT rule_name, alert_status FROM pgops.alert_history"
ACKNOWLEDGED = """
SELECT pgops.acknowledge_alert(a.alert_id, 'mine') FROM pgops.alert_history AS a WHERE a.rule_name = 'acknowledged'
"""


@pytest.fixture(name="server")
def _server(major: int, new_server: Callable[..., Server]) -> Server:
    server = new_server(major).start()
    deploy(server)
    return server


@pytest.fixture(name="sender")
def _sender(server: Server, tmp_path: Path, webhook: Webhook) -> Sender:
    sender = Sender(server, tmp_path / "prefix")
    sender.knows(ops={"hook": webhook.url("json", "hook")})
    return sender


def brought_about(notified: Notified) -> None:
    """An alert in each state."""
    notified.channel(group_interval="0")
    silence = "SELECT pgops.silence_alerts(%s, '1 day', 'we know', %s)"
    notified.value(silence, Jsonb({"rule_name": "silenced"}), notified.start)
    for name, columns in RULES.items():
        notified.load(0, 9, metric=name)
        notified.rule(name, metric_name=name, **columns)
    notified.at(0)
    notified.value(ACKNOWLEDGED)
    for name in ("ended", "recovering"):
        notified.load(30, 1, metric=name)
    notified.at(60)


def test_a_restart_in_any_state_sends_nothing_new(server: Server, sender: Sender, webhook: Webhook) -> None:
    with server.connect("pgops") as session:
        notified = Notified(session, "now() - interval '2 minutes'")
        brought_about(notified)
        assert dict(notified.rows(STATUS)) == STATES
    until(lambda: sender.run()["sent"], "told all", 0)
    assert len(webhook.received) == 6  # five that fire, and the end of one
    for restart in (server.stop, server.kill):
        restart()
        server.start()
        with connect(endpoints.agent(configured(server, sender.prefix)[0], "alerts")) as agent:
            assert job.evaluate(agent)["fired"] == 0
        assert (sender.run()["sent"], len(webhook.received)) == (0, 6)
        with server.connect("pgops") as session:
            assert dict(Notified(session, "now()").rows(STATUS)) == STATES


def test_a_message_that_waits_is_sent_once_after_a_crash(server: Server, sender: Sender, webhook: Webhook) -> None:
    webhook.mood = "refusing"
    with server.connect("pgops") as session:
        notified = Notified(session, "now() - interval '2 minutes'")
        notified.channel()
        notified.rule()
        notified.fire(0)
    assert sender.run()["sent"] == 0
    server.kill()
    server.start()
    webhook.mood = "well"
    with server.connect("pgops") as session:
        notified.session = session
        notified.hurry()
    assert (sender.run()["sent"], sender.run()["sent"], len(webhook.received)) == (1, 0, 1)
