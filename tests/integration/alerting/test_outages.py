# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is known and told of an hour in which the agent, its server, the primary or a channel was out, with real
collections and messages, on a host whose clock the test sets ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from ahead import SETTINGS, Ahead
from clusters import primary, streaming
from deploying import SHIPPED, configured, deploy, rule
from majors import make_server
from receivers import Webhook
from sending import Sender
from servers import Server
from waiting import until
from watching import titles

from pgops.alerting import job
from pgops.errors import PgOpsError
from pgops.instance import endpoints
from pgops.server.session import connect

LEFT = {
    "name": "left",
    "metric": "prepared_transactions",
    "operator": ">",
    "threshold": 0.0,
    "lasts": "0",
    "window": "20m",  # so that a look in a quarter of an hour is enough
}
CHANNEL = "INSERT INTO pgops.notification_channel (channel, kind, group_interval) VALUES ('ops', 'apprise', '0')"
HISTORY = """
SELECT a.alert_status, a.notification_sent, a.notification_channels_used
FROM pgops.alert_history AS a WHERE a.rule_name = 'left' ORDER BY a.started_at
"""
COURSE = """
SELECT t.to_status, t.changed_at FROM pgops.alert_transition AS t JOIN pgops.alert AS a USING (alert_id)
WHERE a.rule_name = 'left' ORDER BY t.changed_at
"""
ATTEMPTS = """
SELECT count(*) FILTER (WHERE t.outcome = 'failed'), count(*) FILTER (WHERE t.outcome = 'sent')
FROM pgops.notification_attempt AS t
"""
HURRY = "UPDATE pgops.notification SET next_attempt_at = now() WHERE status = 'waiting'"
"""The next attempt is made now."""
FIRING, RESOLVED = "[FIRING 1] warning: left on shop", "[RESOLVED 1] warning: left on shop"
LATE = "[FIRING 1, RESOLVED 1] warning: left on shop"
STALE = [f"[FIRED AND RESOLVED 1] {severity}: collector_stale on shop" for severity in ("critical", "warning")]


def rows(server: Server, query: str) -> list[tuple[Any, ...]]:
    """What a statement in the ops database gives."""
    with server.connect("pgops") as session:
        cursor = session.execute(query.encode())
        return cursor.fetchall() if cursor.description else []


class Host:
    """A host whose jobs run when the test says so. What may go wrong on it is a transaction that is left prepared."""

    def __init__(self, ahead: Ahead) -> None:
        self.ahead, self.server = ahead, ahead.server
        self.webhook = Webhook().start()
        deploy(self.server)
        rule(self.server, rules=[LEFT])
        self.rows(CHANNEL)
        self.sender = Sender(self.server, ahead.state)
        self.sender.knows(ops={"hook": self.webhook.url("json", "hook")})

    def rows(self, query: str) -> list[tuple[Any, ...]]:
        return rows(self.server, query)

    def prepare(self) -> None:
        self.rows("BEGIN; CREATE TABLE left_over (); PREPARE TRANSACTION 'left'")

    def finish(self) -> None:
        self.rows("ROLLBACK PREPARED 'left'")

    def minute(self, later: int = 1) -> int:
        """All jobs, so many minutes after the last time; how many messages were sent."""
        self.ahead.later(later)
        self.ahead.measure("prepared_transactions")
        with connect(endpoints.agent(configured(self.server, self.ahead.state)[0], "alerts")) as session:
            assert job.evaluate(session)["errors"] == []
        return int(self.sender.run()["sent"])

    def course(self) -> list[tuple[str, int]]:
        """What became of all alerts about what was left, each with the minutes since the first."""
        found: list[tuple[str, datetime]] = self.rows(COURSE)  # type: ignore[assignment]
        return [(status, int((at - found[0][1]).total_seconds() // 60)) for status, at in found]


@pytest.fixture(name="host")
def _host(ahead: Ahead) -> Iterator[Host]:
    host = Host(ahead)
    yield host
    host.webhook.stop()


CROWDED = {"name": "crowded", "metric": "connections_used_percent", "operator": ">", "threshold": 20.0, "lasts": "0"}
ON_STANDBY = """
SELECT a.node, a.alert_status, a.ended_at - a.fired_at < interval '5 minutes' FROM pgops.alert_history AS a
WHERE a.rule_name = 'crowded'
"""
CONNECTIONS = [one for one in SHIPPED if one.name == "activity"]


@pytest.fixture(name="ahead")
def _ahead(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ahead]:
    server = make_server(18, settings={**SETTINGS, "max_prepared_transactions": "1"})
    yield Ahead.of(server, tmp_path_factory.mktemp("agent"), monkeypatch)
    server.delete()


def told(host: Host) -> list[str]:
    """What has come, without what the rule for prepared transactions that is shipped says of the same."""
    return [title for title in titles(host.webhook) if "prepared_transaction" not in title]


def test_an_hour_without_the_agent(host: Host) -> None:
    host.prepare()
    host.minute()
    assert told(host) == [FIRING]
    host.finish()
    host.minute(61)
    # From the twentieth minute on nothing was known, and nobody could know that it had ended.
    assert host.course()[:2] == [("firing", 0), ("missing", 20)]
    assert (host.course()[2][0], host.course()[2][1] >= 61, host.course()[3:]) == ("inactive", True, [])
    assert host.rows(HISTORY) == [("resolved", True, ["ops"])]
    # That the agent was out is told as well, once it can be.
    assert sorted(told(host)[1:]) == sorted([RESOLVED, *STALE])
    assert (host.minute(), host.minute()) == (0, 0)


def test_an_hour_without_the_server(host: Host) -> None:
    host.prepare()
    host.minute()
    host.server.stop()
    for _attempt in range(2):
        host.ahead.later(30)
        with pytest.raises(PgOpsError):
            host.ahead.measure("prepared_transactions")
    host.server.start()
    host.minute()
    # It goes on, and nobody is told so again.
    assert host.course()[:2] == [("firing", 0), ("missing", 20)]
    assert (host.course()[2][0], host.course()[2][1] >= 61, host.course()[3:]) == ("firing", True, [])
    assert host.rows(HISTORY) == [("firing", True, ["ops"])]
    assert sorted(told(host)) == sorted([FIRING, *STALE])
    host.finish()
    host.minute()
    assert told(host)[3:] == [RESOLVED]


def test_an_hour_without_a_channel(host: Host) -> None:
    host.webhook.stop()
    host.prepare()
    assert host.minute() == 0
    host.finish()
    assert host.minute() == 0
    host.prepare()
    assert [host.minute(15) for _quarter in range(4)] == [0] * 4
    assert host.rows(HISTORY) == [("resolved", False, []), ("firing", False, [])]
    host.webhook.start()

    def later() -> list[tuple[Any, ...]]:
        host.rows(HURRY)
        host.minute()
        return host.rows(HISTORY)

    until(later, "told", [("resolved", True, ["ops"]), ("firing", True, ["ops"])])
    assert [status for status, _minutes in host.course()] == ["firing", "inactive", "firing"]
    failed, sent = host.rows(ATTEMPTS)[0]
    assert (failed >= 4, sent) == (True, len(host.webhook.received))
    host.finish()
    host.minute()
    assert told(host)[-1] == RESOLVED
    # Who was told late of the first was told of its end with the second.
    assert [title for title in told(host) if "left" in title] == [FIRING, LATE, RESOLVED]


def test_an_hour_without_the_primary_in_which_a_standby_was_in_trouble(ahead: Ahead, tmp_path: Path) -> None:
    """What it measured meanwhile comes once the primary is back, and is judged as if it had come in time."""
    first = primary(ahead.server, "db1/main", tmp_path / "one")
    second = first.standby("db2/main", tmp_path / "two", {"max_prepared_transactions": "1"})

    def evaluate() -> dict[str, Any]:
        with connect(endpoints.agent(configured(ahead.server, ahead.state)[0], "alerts")) as session:
            return job.evaluate(session)

    with second.server:
        streaming(ahead.server)
        rule(ahead.server, rules=[CROWDED])
        assert second.collect(CONNECTIONS)["errors"] == []
        assert evaluate()["minutes"] == 1
        ahead.server.stop()
        ahead.later(20)
        with contextlib.ExitStack() as crowd:
            for _number in range(15):
                crowd.enter_context(second.server.connect())
            assert second.collect(CONNECTIONS)["spooled"] > 0
        ahead.later(1)
        second.collect(CONNECTIONS)
        ahead.later(39)
        ahead.server.start()
        waits = evaluate()
        assert second.collect(CONNECTIONS)["errors"] == []
        ahead.later(3)
        second.collect(CONNECTIONS)
        ran = evaluate()
        assert rows(ahead.server, ON_STANDBY) == [("db2/main", "resolved", True)]
        assert ("skipped" in waits, ran["minutes"] >= 60, ran["errors"]) == (True, True, [])
