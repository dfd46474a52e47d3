# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the watch tells and remembers: channels that fail, full disks, clocks that are set, its own death."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest
import yaml
from alertmanager_server import Alertmanager
from disks import fill
from facts_contract import read as contract
from receivers import Mail, Webhook
from servers import Server
from waiting import until
from watching import DOUBTFUL, Seen, Watcher, frozen, is_told_once, many_tell, titles

from pgops.alerting.courses import RULES
from pgops.facts import agent

PAGE = Path(__file__).parents[3] / "docs" / "watch.md"


def test_a_disk_that_is_full_before_the_watch_has_its_file(
    watched: Server, webhook: Webhook, small_disk: Path, tmp_path: Path
) -> None:
    """It remembers in memory, and comes back to its file once there is space."""
    memory = tmp_path / "memory"
    memory.mkdir()
    watcher = Watcher(watched, small_disk / "prefix", memory=str(memory))
    watcher.knows(ops={"hook": webhook.url("json", "hook")})
    fill(small_disk)
    is_told_once(watcher, webhook, "disk_full", (small_disk / "filler").unlink)
    assert [path.name for path in memory.iterdir() if "ledger" in path.name] == []
    assert Path(watcher.layout.state, "watch.ledger").stat().st_mode & 0o777 == 0o600


def test_where_nothing_can_be_remembered_it_is_told_seldom_and_with_a_mark(
    watched: Server, webhook: Webhook, small_disk: Path
) -> None:
    watcher = Watcher(watched, small_disk / "prefix")
    watcher.knows(ops={"hook": webhook.url("json", "hook")})
    fill(small_disk)
    said = []
    for minute in (14, 15, 16):
        now = time.time() + watcher.ahead
        said.append(watcher.look((60 * minute + 5 - now) % 900))
    assert [one["sent"] for one in said] == [0, 1, 0]
    assert all(DOUBTFUL in text for text in webhook.texts())
    assert all("nothing can be remembered" in one["errors"][0] for one in said)


def test_an_alertmanager_is_told_each_minute_and_of_the_end(
    watched: Server, watcher: Watcher, webhook: Webhook, tmp_path: Path
) -> None:
    (tmp_path / "alertmanager").mkdir()
    alertmanager = Alertmanager(tmp_path / "alertmanager", webhook.url("http", "from-alertmanager"))
    alertmanager.start()

    def look(later: float = 0.0) -> dict[str, Any]:
        watcher.set_by = later - watcher.ahead - 60  # its own clock is that of the host
        return watcher.look()

    try:
        watcher.knows(kind="alertmanager", am={"one": alertmanager.url})
        watched.stop()
        assert look()["sent"] == 1
        first = alertmanager.alerts()
        assert set(first) == {("instance_down", "")}
        assert first["instance_down", ""]["labels"] == {
            "alertname": "instance_down",
            "severity": "critical",
            "cluster": "shop",
            "node": "db1/main",
        }
        assert look(60)["sent"] == 1
        assert alertmanager.alerts()["instance_down", ""]["endsAt"] > first["instance_down", ""]["endsAt"]
        watched.start()
        look()
        assert look()["sent"] == 1
        until(alertmanager.alerts, "ended there", {})
        assert look()["sent"] == 0
    finally:
        alertmanager.stop()


def test_hosts_that_fail_at_once_are_one_message_of_an_alertmanager(webhook: Webhook, tmp_path: Path) -> None:
    """As docs/watch.md has it be configured. It waits for all of them: here, until it is told of one that is late."""
    (tmp_path / "alertmanager").mkdir()
    (block,) = [
        one for one in re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL) if one.startswith("route:")
    ]
    route = yaml.safe_load(block)["route"]
    (own,) = route["routes"]
    assert all(re.fullmatch(own["matchers"][0].split('"')[1], name) for name in RULES)
    own |= {"group_wait": "1h", "group_interval": "1h"}
    alertmanager = Alertmanager(tmp_path / "alertmanager", webhook.url("http", "from-alertmanager"), route)
    hosts = {f"db{number}/main" for number in range(500)}
    peers = {"east1/main", "east2/main"}
    seen = [Seen(f"cluster of {node}", node, "instance_down") for node in hosts]
    seen += [Seen("east", node, "peer_down", {"peer": "east3:5432"}) for node in peers]
    try:
        alertmanager.start()
        many_tell(tmp_path / "first", alertmanager.url, seen)
        many_tell(tmp_path / "again", alertmanager.url, seen[:20])
        assert alertmanager.groups() == {"instance_down": hosts, "peer_down": peers}
        assert webhook.received == []
        late = [Seen("late", "late/main", rule, ago=7200) for rule in ("instance_down", "peer_down")]
        many_tell(tmp_path / "late", alertmanager.url, late)
        told = until(lambda: sorted(webhook.texts()), "told", lambda texts: len(texts) >= 2)
        assert [text.split().count("firing") for text in told] == [501, 3]
    finally:
        alertmanager.stop()


@pytest.mark.parametrize("mood", ["down", "refusing", "hanging", "dropping"])
def test_a_channel_that_is_down_is_told_once_it_is_back(
    watched: Server, watcher: Watcher, webhook: Webhook, mood: str
) -> None:
    broken = Mail(mood)
    if mood != "down":
        broken.start()
    try:
        watcher.knows(ops={"hook": webhook.url("json", "hook"), "mail": broken.url})
        watched.stop()
        ran = watcher.look()
        assert (ran["sent"], [error.partition(":")[0] for error in ran["errors"]]) == (1, ["ops/mail"])
        assert "ops/mail failed 1 times in a row" in watcher.status()
        broken.stop()
        before, broken.mood = len(broken.received), "well"
        broken.start()
        assert (watcher.look()["sent"], watcher.look()["sent"]) == (1, 0)
        assert len(webhook.received) == 1
        (again,) = broken.texts()[before:]
        assert (DOUBTFUL in again) == (mood in ("hanging", "dropping"))
    finally:
        broken.stop()


def test_what_has_ended_while_a_channel_was_down_is_told_as_well(
    watched: Server, watcher: Watcher, webhook: Webhook
) -> None:
    webhook.stop()
    watched.stop()
    assert watcher.look()["sent"] == 0
    watched.start()
    for _minute in range(3):
        watcher.look()
    webhook.start()
    until(lambda: watcher.look()["sent"], "told", 1)
    assert titles(webhook) == ["[FIRED AND RESOLVED 1] critical: instance_down on shop (db1/main)"]


def test_a_watch_that_is_killed_loses_nothing_and_doubles_only_what_it_marks(
    watched: Server, watcher: Watcher, webhook: Webhook
) -> None:
    """Killed while it sends: as soon as a message has come, or none yet."""
    watcher.knows(ops={name: webhook.url("json", name) for name in ("one", "two", "three")})
    watched.stop()
    killed = 0
    for expected in (0, 1, 2, 3, 4):
        watcher.ahead += 60
        process = watcher.start()
        until(
            lambda p=process, e=expected: p.poll() is not None or len(webhook.received) > e - 1,
            "as far as it may come",
        )
        killed += process.poll() is None
        process.kill()
        process.communicate()
    assert killed >= 2
    until(lambda: watcher.look()["sent"], "told all", 0)
    unmarked: dict[str, int] = defaultdict(int)
    for one in webhook.received:
        unmarked[one.place] += DOUBTFUL not in one.text
    assert set(unmarked) == {"/one", "/two", "/three"}
    assert max(unmarked.values()) <= 1
    assert len({key for text in webhook.texts() for key in re.findall(r"Message (\S+)", text)}) == len(
        webhook.received
    )


def test_a_clock_that_is_set_changes_nothing(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    watcher.scheduled("maintain", "hourly")
    watcher.ran("maintain", 1_700_000_000)
    watcher.look()
    for set_by in (86_400.0, -86_400.0, 0.0):
        watcher.set_by = set_by
        assert watcher.look()["firing"] == []
    watched.stop()
    watcher.set_by = -3600.0
    assert watcher.look()["firing"] == ["instance_down"]
    for set_by in (3600.0, 10 * 86_400.0, -86_400.0):
        watcher.set_by = set_by
        assert watcher.look()["sent"] == 0
    watched.start()
    watcher.look()
    assert (watcher.look()["firing"], len(webhook.received)) == ([], 2)


def test_a_host_that_was_booted_tells_nothing_again(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    watcher.scheduled("collect", "minutely")
    watcher.ran("collect", 1_700_000_000)
    watched.stop()
    assert watcher.look()["sent"] == 1
    watcher.boot, watcher.ahead = "second", watcher.ahead - 5000
    assert (watcher.look()["sent"], watcher.look()["firing"]) == (0, ["instance_down"])
    watched.start()
    watcher.look()
    assert (watcher.look()["sent"], titles(webhook)[1][:12]) == (1, "[RESOLVED 1]")


def test_what_goes_on_is_told_again_after_four_hours(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    watched.stop()
    watcher.look()
    assert watcher.look(3.9 * 3600)["sent"] == 0
    assert watcher.look(600)["sent"] == 1
    assert titles(webhook)[1] == "[STILL FIRING 1] critical: instance_down on shop (db1/main)"


def fact(watcher: Watcher) -> dict[str, Any]:
    """What the facts say of it."""
    found = agent.jobs(watcher.layout)["watch"]
    assert set(found) == set(contract()["instances[].jobs.watch"])
    return {name: value is not None if name.endswith("_at") else value for name, value in found.items()}


def test_the_facts_know_what_the_watch_does(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    assert agent.jobs(watcher.layout)["watch"] is None
    watcher.scheduled("watch", "minutely")
    never = {"looked_at": False, "looked_age_s": None, "beat_at": False, "firing": []}
    assert fact(watcher) == {**never, "tells": True, "unwatched": True}
    watcher.knows(kind="heartbeat", alive={"hc": webhook.url("json", "beat")})
    watcher.look()
    looked = {"looked_at": True, "looked_age_s": 0, "beat_at": True}
    assert fact(watcher) == {**looked, "firing": [], "tells": False, "unwatched": False}
    watched.stop()
    watcher.look()
    assert fact(watcher)["firing"] == ["instance_down"]


def test_a_heartbeat_is_sent_where_all_is_told(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    assert (watcher.look()["heartbeat"], "unwatched" in watcher.status()) == ("unwatched", True)
    beats = Webhook().start()
    try:
        watcher.knows(ops={"hook": webhook.url("json", "hook")})
        text = Path(watcher.layout.channels).read_text()
        own = f'"alive": {{"kind": "heartbeat", "targets": {{"hc": "{beats.url("json", "beat")}"}}}}'
        Path(watcher.layout.channels).write_text(text.replace('"channels": {', f'"channels": {{{own}, '))
        assert "has never been sent" in watcher.status()
        assert (watcher.look()["heartbeat"], len(beats.received)) == ("sent", 1)
        assert "was last sent at" in watcher.status()
        watched.stop()
        assert (watcher.look()["heartbeat"], len(beats.received)) == ("sent", 2)  # told: all is well with the watch
        webhook.stop()
        watched.start()
        watcher.look()
        watcher.look()
        watched.stop()
        assert (watcher.look()["heartbeat"], len(beats.received)) == ("withheld", 4)
        assert "[ALIVE] shop (db1/main)" in beats.texts()[0]
    finally:
        beats.stop()


@pytest.mark.parametrize("damage", [b"", b"nonsense", b"\0" * 1_048_576], ids=["empty", "nonsense", "zeros"])
def test_a_ledger_that_is_damaged_is_begun_anew(
    watched: Server, watcher: Watcher, webhook: Webhook, damage: bytes
) -> None:
    watched.stop()
    watcher.look()
    Path(watcher.layout.state, "watch.ledger").write_bytes(damage)
    assert "what the watch remembered cannot be read" in watcher.look()["errors"][0]
    assert len(webhook.received) == 2
    ran = watcher.look()
    assert (ran["sent"], ran["errors"]) == (0, [])


def test_two_at_once_are_one(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    with frozen(watched):
        watcher.answers = 5.0
        first = watcher.start()
        until(lambda: Path(watcher.layout.state, "watch.lock").exists(), "at work")
        ran = until(watcher.look, "kept out", lambda seen: seen["exit"] == 75)
        assert ran["code"] == "busy"
        first.kill()
        first.communicate()
