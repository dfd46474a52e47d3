# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The ops database and the watch: what one has told the other does not, and silences hold for both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from notified import Notified
from receivers import Webhook
from sending import Sender
from servers import Server
from watching import Watcher

from pgops.alerting import ledger
from pgops.alerting.courses import FIRING, RESOLVED, Alert

OURS = """
SELECT s.labels, s.is_active FROM pgops.silences AS s WHERE s.created_by = 'pgops watch'
ORDER BY s.is_active DESC, s.labels::text
"""
GONE = [{"host": "127.0.0.1", "port": 1}]


@pytest.fixture(name="notified")
def _notified(deployed: Server) -> Iterator[Notified]:
    with deployed.connect("pgops") as session:
        yield Notified(session, "now()")


@pytest.fixture(name="sender")
def _sender(deployed: Server, tmp_path: Path, webhook: Webhook) -> Sender:
    sender = Sender(deployed, tmp_path / "prefix")
    sender.knows(ops={"hook": webhook.url("json", "hook")})
    return sender


def by_label(labels: dict[str, str]) -> list[tuple[str, str]]:
    """For an order of labels, which jsonb has in another one."""
    return sorted(labels.items())


def watch_has_told(sender: Sender, *alerts: tuple[str, dict[str, str]], ago: float = 0.0) -> None:
    """What the watch remembers: these alerts fire, and somebody knows. It looked so many seconds ago."""
    book = ledger.opened(sender.layout)
    book.load()
    book.alerts = [
        Alert(rule, labels, "why", 1.0, FIRING, f"id of {rule}", told={"ops/hook": (FIRING, 1.0)})
        for rule, labels in alerts
    ]
    book.looked = time.time() - ago
    assert book.save()


@pytest.mark.every_major
def test_what_the_watch_has_told_is_not_told_again_until_it_ends(
    notified: Notified, sender: Sender, webhook: Webhook
) -> None:
    notified.rule("connections")
    notified.channel(group_interval="0")
    watch_has_told(sender, ("connections_exhausted", {}))
    assert sender.run()["errors"] == []
    assert notified.fire(60) == 0
    ours = {"cluster": "shop", "node": "db1/main", "rule_name": "connections"}
    assert notified.rows(OURS) == [(ours, True)]
    notified.session.execute("UPDATE pgops.silence SET ends_at = now() + interval '1 minute'")
    assert sender.run()["sent"] == 0
    assert notified.value("SELECT ends_at > now() + interval '2 minutes' FROM pgops.silence") is True
    watch_has_told(sender, ("connections_exhausted", {}), ago=301)  # and not since: it may be over
    notified.session.execute("UPDATE pgops.silence SET ends_at = now()")
    assert sender.run()["sent"] == 1
    assert notified.rows(OURS) == [(ours, False)]
    assert [text.partition(" ")[0] for text in webhook.texts()] == ["[FIRING"]


def test_what_is_evaluated_after_an_outage_is_not_told_if_the_watch_has(
    notified: Notified, sender: Sender, webhook: Webhook
) -> None:
    """Rules of minutes that were missed fire and end at once."""
    notified.rule("collector_stale")
    notified.channel(group_interval="0")
    now = time.time()
    book = ledger.opened(sender.layout)
    told = {"ops/hook": (RESOLVED, 1.0)}
    book.alerts = [
        Alert(
            "instance_down", {}, "", 1.0, RESOLVED, "x", fired_at=now - 3000, ended_at=now - 300, ended=5.0, told=told
        )
    ]
    assert book.save()
    notified.start = notified.value("SELECT now() - interval '50 minutes'")
    for second, value in ((600, 9), (1200, 1)):
        notified.load(second, value)
        notified.session.execute(
            b"SELECT pgops.evaluate_alerts_at(%s::timestamptz + make_interval(secs => %s))", [notified.start, second]
        )
    assert (sender.run()["sent"], sender.run()["sent"]) == (0, 0)
    found = sorted((labels for labels, active in notified.rows(OURS) if not active), key=by_label)
    assert found == [{"cluster": "shop", "node": "db1/main"}, {"cluster": "shop", "rule_name": "standby_missing"}]
    assert notified.history() == [("resolved", False, [])]


def test_each_alert_of_the_watch_silences_what_is_the_same(notified: Notified, sender: Sender) -> None:
    notified.channel()
    node = {"cluster": "shop", "node": "db1/main"}
    told = [
        ("instance_down", {}),
        ("disk_full", {"mount": "/srv"}),
        ("writes_refused", {}),
        ("job_stale", {"job": "collect"}),
        ("job_failing", {"job": "backup"}),
    ]
    watch_has_told(sender, *told)
    sender.run()
    found = [labels for labels, _active in notified.rows(OURS)]
    assert sorted(found, key=by_label) == sorted(
        [
            node,
            {"cluster": "shop", "rule_name": "standby_missing"},
            {**node, "rule_name": "disk_usage", "mount": "/srv"},
            {**node, "rule_name": "disk_filling", "mount": "/srv"},
            {**node, "rule_name": "xid_wraparound"},
            {**node, "rule_name": "collector_stale"},
        ],
        key=by_label,
    )


def test_silences_and_channels_hold_for_the_watch_as_well(
    deployed: Server, notified: Notified, sender: Sender, webhook: Webhook
) -> None:
    notified.channel()
    notified.channel("quiet", severities=["warning"])
    silence = notified.value("""SELECT pgops.silence_alerts('{"node": "db1/main"}', '2 hours', 'new disks')""")
    watcher = Watcher(deployed, sender.prefix, own={"peers": GONE})
    watcher.knows(ops={"hook": webhook.url("json", "hook")}, quiet={"hook": webhook.url("json", "quiet")})
    assert sender.run()["errors"] == []
    watcher.look()
    ran = watcher.look()
    assert (ran["firing"], ran["sent"]) == (["peer_down"], 0)
    notified.value("SELECT pgops.end_silence(%s)", silence)
    assert sender.run()["errors"] == []
    assert watcher.look()["sent"] == 1
    assert [one.place for one in webhook.received] == ["/hook"]


def test_a_host_whose_server_is_down_reaches_the_ops_database_by_way_of_the_primary(
    deployed: Server, notified: Notified, webhook: Webhook, keep: Callable[[Server], Server], tmp_path: Path
) -> None:
    notified.rule()
    notified.channel()
    standby = keep(deployed.standby()).start()
    peers = [{"host": "127.0.0.1", "port": deployed.port}]
    own: dict[str, Any] = {"node": "db2/main", "peers": peers, "ssl_mode": "disable"}
    sender = Sender(standby, tmp_path / "other", own=own)
    sender.knows(ops={"hook": webhook.url("json", "hook")})
    assert sender.run()["errors"] == []
    standby.stop()
    assert Watcher(standby, tmp_path / "other", own=own).look()["sent"] == 1
    notified.fire(0)
    ran = sender.run()
    assert (ran["sent"], ran["errors"]) == (1, [])
    node = {"cluster": "shop", "node": "db2/main"}
    missing = {"cluster": "shop", "rule_name": "standby_missing"}
    assert sorted((labels for labels, _active in notified.rows(OURS)), key=by_label) == [node, missing]


WINDOWS = """
SELECT pgops.maintenance('{{"node": "n{number}"}}', '{days}', '{start}', '{lasts}', '{zone}', 'test', {dates})
"""
DIFFERING = """
SELECT count(*), count(*) FILTER (WHERE is_in IS DISTINCT FROM is_ahead), count(*) FILTER (WHERE is_in)
FROM (
    SELECT
        pgops.silence_active(s, m.moment) AS is_in,
        EXISTS (
            SELECT FROM ahead AS a WHERE a.labels = s.labels AND m.moment >= a.begins_at AND m.moment < a.ends_at
        ) AS is_ahead
    FROM pgops.silence AS s
    CROSS JOIN generate_series(now() + interval '1 s', now() + interval '47 h', '17 min') AS m (moment)
) AS f
"""


@pytest.mark.every_major
def test_the_times_of_windows_are_those_in_which_they_are_in_force(notified: Notified) -> None:
    zones = ("UTC", "Europe/Berlin", "Pacific/Kiritimati", "America/St_Johns")
    for number, zone in enumerate(zones):
        for place, (start, lasts) in enumerate((("00:00", "2 h"), ("23:30", "90 min"), ("12:00", "3 days"))):
            days = ("{1,2,3,4,5,6,7}", "{1,3,5}", "{7}")[(number + place) % 3]
            dates = "NULL" if place else "'{1,2,3,4,5,6,7,8,9,10,11,12,13,14,15}'"
            label = 10 * number + place
            notified.value(WINDOWS.format(number=label, days=days, start=start, lasts=lasts, zone=zone, dates=dates))
    notified.value("""SELECT pgops.silence_alerts('{"node": "once"}', '5 hours', 'x', now() + interval '3 hours')""")
    notified.session.execute("CREATE TEMPORARY TABLE ahead AS SELECT * FROM pgops.silences_ahead('2 days')")
    ((looked, differing, active),) = notified.rows(DIFFERING)
    assert (looked > 1000, differing, active > 50) == (True, 0, True)
