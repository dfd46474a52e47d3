# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Messages that arrive: at a mail server, a web server and an Alertmanager, which also are down, slow, and refuse."""

from __future__ import annotations

import random
import re
import subprocess
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import packages
import pytest
from alertmanager_server import Alertmanager
from notified import Notified
from receivers import Mail, Webhook
from sending import Sender
from servers import Server
from waiting import until

TOKEN = "xoxb5abcdefghijklmnop"
DOUBTFUL = "may have been sent before"


@pytest.fixture(name="notified")
def _notified(deployed: Server) -> Iterator[Notified]:
    with deployed.connect("pgops") as session:
        yield Notified(session, "now()")  # what is sent is sent now


@pytest.fixture(name="sender")
def _sender(deployed: Server, tmp_path: Path) -> Sender:
    return Sender(deployed, tmp_path / "prefix")


@pytest.fixture(name="webhook")
def _webhook() -> Iterator[Webhook]:
    webhook = Webhook().start()
    yield webhook
    webhook.stop()


@pytest.fixture(name="mail")
def _mail() -> Iterator[Mail]:
    mail = Mail().start()
    yield mail
    mail.stop()


@pytest.fixture(name="alertmanager")
def _alertmanager(tmp_path: Path, webhook: Webhook) -> Iterator[Alertmanager]:
    place = tmp_path / "alertmanager"
    place.mkdir()
    alertmanager = Alertmanager(place, webhook.url("http", "from-alertmanager"))
    yield alertmanager
    alertmanager.stop()


@pytest.mark.parametrize("apprise", ["installed", "debian"])
@pytest.mark.every_major
def test_each_peer_is_told_what_fires_and_what_has_ended(
    notified: Notified, sender: Sender, webhook: Webhook, mail: Mail, apprise: str
) -> None:
    if apprise == "debian":
        sender.libraries = (packages.unpacked("apprise") / "usr" / "lib" / "python3" / "dist-packages",)
    notified.rule(notification_template="Look at {database} on {node}: {metric_value} is above {threshold_value}.")
    notified.channel(group_interval="0")
    sender.knows(ops={"mail": mail.url, "hook": webhook.url("json", "hook"), "chat": webhook.url("mmost", TOKEN)})
    notified.fire(0, "shop", "bank")
    first = sender.run()
    assert (first["exit"], first["queued"], first["sent"], first["errors"]) == (0, 0, 3, [])
    notified.end(1, "shop", "bank")
    assert sender.run()["sent"] == 3
    assert Counter(one.place for one in webhook.received) == {"/hook": 2, f"/hooks/{TOKEN}": 2}
    assert [one.place for one in mail.received] == ["dba@example.com"] * 2
    for receiver in (webhook, mail):
        firing = [text for text in receiver.texts() if "[FIRING 2] critical: high_load on shop" in text]
        ended = [text for text in receiver.texts() if "[RESOLVED 2] critical: high_load on shop" in text]
        assert len(firing) == len(ended) == len(receiver.received) / 2
        assert all("Look at shop on db1/main: 9 is above 5." in text for text in firing)
        assert DOUBTFUL not in "".join(receiver.texts())
    assert notified.history() == [("resolved", True, ["ops"])] * 2


@pytest.mark.parametrize("kind", [Webhook, Mail])
@pytest.mark.parametrize(
    ("mood", "outcome"),
    [("down", "failed"), ("refusing", "failed"), ("hanging", "ambiguous"), ("dropping", "ambiguous")],
)
def test_only_the_target_that_failed_is_told_again_once_it_recovers(
    notified: Notified, sender: Sender, webhook: Webhook, kind: type[Mail | Webhook], mood: str, outcome: str
) -> None:
    """The healthy one is told once and at once, though the other one hangs."""
    notified.rule()
    notified.channel()
    broken = kind(mood)
    url = broken.address(TOKEN)
    if mood != "down":
        broken.start()
    try:
        sender.knows(ops={"sound": webhook.url("json", "hook"), "broken": url})
        notified.fire(0)
        ran = sender.run()
        assert (ran["sent"], ran[outcome], ran["exit"]) == (1, 1, 0)
        assert [error.partition(":")[0] for error in ran["errors"]] == ["ops/broken"]
        assert TOKEN not in ran["printed"] + str(notified.rows("SELECT attempts FROM pgops.notifications"))
        assert notified.history() == [("firing", True, ["ops"])]
        assert sender.run()["sent"] == 0  # not yet
        broken.stop()
        broken.mood = "well"
        before = len(broken.received)
        broken.start()
        notified.hurry()
        assert (sender.run()["sent"], sender.run()["sent"]) == (1, 0)
        assert len(webhook.received) == 1
        (again,) = broken.texts()[before:]
        assert (DOUBTFUL in again) == (outcome == "ambiguous")
        assert notified.rows("SELECT status FROM pgops.notifications") == [("sent",)]
    finally:
        broken.stop()


def test_five_hundred_alerts_at_once_are_one_message(notified: Notified, sender: Sender, webhook: Webhook) -> None:
    notified.rule()
    notified.channel()
    sender.knows(ops={"hook": webhook.url("json", "hook")})
    notified.fire(0, *(f"db{number}" for number in range(500)))
    assert sender.run()["sent"] == 1
    (text,) = webhook.texts()
    assert "[FIRING 500]" in text
    assert "And 480 more" in text


def test_a_sender_that_is_killed_loses_nothing_and_doubles_only_what_it_marks(
    notified: Notified, sender: Sender, webhook: Webhook
) -> None:
    draw = random.Random(18)
    for number in range(16):
        notified.rule(f"rule{number:02}")
    notified.channel(attempts=100)
    sender.knows(ops={"one": webhook.url("json", "one"), "two": webhook.url("json", "two")})
    assert notified.fire(0) == 16
    # As if the lease of whoever was killed had passed.
    passed = b"UPDATE pgops.notification SET claimed_until = now() WHERE status = 'waiting'"
    killed = 0
    for _time in range(6):
        expected = len(webhook.received) + draw.randrange(0, 12)
        process = sender.start()
        until(partial(_came, process, webhook, expected), "as far as it may come")
        killed += process.poll() is None
        process.kill()
        process.communicate()
        notified.session.execute(passed)
    assert killed > 2
    # What the killed ones have begun may still arrive.
    until(lambda: sender.run()["sent"], "told all", 0)
    assert notified.rows("SELECT DISTINCT status FROM pgops.notifications") == [("sent",)]
    for path in ("/one", "/two"):
        unmarked: dict[str, int] = defaultdict(int)
        for one in webhook.received:
            if one.place == path:
                (key,) = re.findall(r"Message ([0-9a-f-]{36})", one.text)
                unmarked[key] += DOUBTFUL not in one.text
        assert len(unmarked) == 16
        assert max(unmarked.values()) <= 1


def _came(process: subprocess.Popen[str], webhook: Webhook, expected: int) -> bool:
    return process.poll() is not None or len(webhook.received) >= expected


def test_an_alertmanager_is_told_each_time_and_lets_go_what_has_ended(
    notified: Notified, sender: Sender, webhook: Webhook, alertmanager: Alertmanager
) -> None:
    alertmanager.start()
    notified.rule()
    notified.channel("am", "alertmanager")
    sender.knows(kind="alertmanager", am={"one": alertmanager.url, "down": "http://127.0.0.1:1"})
    notified.fire(0, "shop", "bank")
    assert sender.run()["ok"] is False  # one of the two is down
    first = alertmanager.alerts()
    assert set(first) == {("high_load", "shop"), ("high_load", "bank")}
    labels = first["high_load", "shop"]["labels"]
    rule = {"alertname": "high_load", "severity": "critical", "metric": "load"}
    assert labels == {**rule, "cluster": "shop", "node": "db1/main", "database": "shop"}
    assert notified.history() == [("firing", True, ["am"])] * 2
    sender.run()
    again = alertmanager.alerts()
    assert again["high_load", "shop"]["endsAt"] > first["high_load", "shop"]["endsAt"]
    assert again["high_load", "shop"]["fingerprint"] == first["high_load", "shop"]["fingerprint"]
    notified.end(1, "shop")
    sender.run()
    until(lambda: set(alertmanager.alerts()), "ended there", {("high_load", "bank")})
    told = until(lambda: sorted(webhook.texts()), "told by it", lambda seen: len(seen) >= 3)
    assert told == ["firing high_load", "firing high_load", "resolved high_load"]


@pytest.mark.parametrize("mood", ["down", "hanging"])
def test_an_alertmanager_that_recovers_is_told_all_of_it(
    notified: Notified, sender: Sender, webhook: Webhook, alertmanager: Alertmanager, mood: str
) -> None:
    notified.rule()
    notified.channel("am", "alertmanager", fallback_channel="desk", fallback_after=1)
    notified.channel("desk", is_default=False)
    if mood == "hanging":
        alertmanager.start().hang()
    sender.knows(kind="alertmanager", am={"one": alertmanager.url})
    notified.fire(0)
    ran = sender.run()
    assert (ran["exit"], len(ran["errors"])) == (1, 1)
    assert notified.history() == [("firing", False, [])]
    alertmanager.stop()
    alertmanager.start()
    assert sender.run()["ok"] is True
    assert set(alertmanager.alerts()) == {("high_load", "shop")}
    # And its fallback channel waits for a sender that knows it.
    assert notified.rows("SELECT channel, status FROM pgops.notifications") == [("desk", "waiting")]
    sender.knows(desk={"hook": webhook.url("json", "desk")})
    sender.run()
    assert "/desk" in {one.place for one in webhook.received}


def test_a_channel_is_tried_by_hand(sender: Sender, webhook: Webhook, mail: Mail) -> None:
    mail.mood = "refusing"
    sender.knows(ops={"hook": webhook.url("json", TOKEN), "mail": mail.url})
    ran = sender.run("--test", "ops")
    assert (ran["targets"], ran["exit"]) == ({"hook": "sent", "mail": "failed"}, 1)
    assert len(ran["errors"]) == 1
    assert ran["errors"][0].startswith("mail: ")
    assert TOKEN not in ran["printed"]
    assert webhook.texts() == ["[TEST] shop\npgops on db1/main can reach channel ops. Nothing is wrong."]
    unknown = sender.run("--test", "nobody")
    assert (unknown["exit"], unknown["code"]) == (1, "invalid_input")
    assert "It has ops." in unknown["error"]


def test_an_alertmanager_is_tried_by_hand(sender: Sender, alertmanager: Alertmanager) -> None:
    alertmanager.start()
    sender.knows(kind="alertmanager", am={"one": alertmanager.url})
    assert sender.run("--test", "am")["targets"] == {"one": "sent"}
    assert set(alertmanager.alerts()) == {("pgops_test", "")}


def test_what_this_host_cannot_do_is_said(notified: Notified, sender: Sender, tmp_path: Path) -> None:
    assert sender.run()["skipped"] == "this host has no addresses of channels"
    url = f"json://127.0.0.1:1/{TOKEN}"
    sender.knows(mode=0o640, ops={"hook": url})
    assert "Others may read" in sender.run()["error"]
    sender.knows(dba={"hook": url})
    notified.channel("ops", "alertmanager")
    assert sender.run()["errors"] == ["channel dba is not in the ops database"]
    sender.knows(ops={"hook": url})
    assert sender.run()["errors"] == ["channel ops is alertmanager in the ops database, and apprise here"]
    (tmp_path / "apprise.py").write_text("raise ImportError('not here')")
    sender.libraries = (tmp_path,)
    ran = sender.run()
    assert (ran["exit"], "Install the package apprise" in ran["errors"][0]) == (1, True)
    sender.knows(kind="alertmanager", ops={"one": "http://127.0.0.1:1"})
    assert sender.run()["ok"] is True  # which needs no Apprise, and is told nothing if nothing fires


def test_an_address_that_is_wrong_keeps_nobody_else_from_being_told(
    notified: Notified, sender: Sender, webhook: Webhook
) -> None:
    notified.rule()
    notified.channel()
    sender.knows(ops={"typo": f"nonsense://{TOKEN}", "hook": webhook.url("json", "hook")})
    notified.fire(0)
    ran = sender.run()
    assert (ran["sent"], ran["errors"]) == (1, ["ops/typo: Apprise knows no service for this address."])
    assert TOKEN not in ran["printed"]
    assert len(webhook.received) == 1
