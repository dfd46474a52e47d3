# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Channels, addresses, silences and maintenance windows of an inventory, on real servers: what becomes of them, and
what stays of users."""

from __future__ import annotations

import argparse
import json
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promtool
import pytest
from deploying import SHIPPED, collect, configured, deploy, rule
from notified import Notified
from receivers import Webhook
from sending import Sender
from servers import Server

from pgops.alerting import job
from pgops.errors import Conflict, HostFailed, InvalidInput, PgOpsError
from pgops.metrics import collectors, exposition, latest

TOKEN = "xoxb5abcdefghijklmnop"
DESK = {"name": "desk", "group_interval": "0"}
PAGER = {"name": "pager", "severities": ["critical"], "labels": {"cluster": "shop"}, "fallback": "desk"}
SLACK = f"slack://T1JJ3T3L2/A1BRTD4JD/{TOKEN}"
NIGHT = {
    "name": "night",
    "labels": {"node": "db1/main"},
    "weekdays": ["sun"],
    "start_time": "22:00",
    "duration": "2h",
    "time_zone": "Europe/Berlin",
}
DISKS = {"name": "disks", "labels": {"rule_name": "disk_usage"}, "starts": "2026-07-01 18:00", "ends": "2026-07-02"}


def rows(server: Server, query: str) -> list[tuple[Any, ...]]:
    with server.connect("pgops") as session:
        return session.execute(query.encode()).fetchall()


def said(server: Server, statement: str) -> None:
    with server.connect("pgops") as session:
        session.execute(statement.encode())


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> dict[str, Any]:
    """The arguments of an agent below another prefix."""
    (tmp_path / "etc" / "pgops" / "main").mkdir(parents=True)
    return {"instance": "main", "prefix": str(tmp_path)}


def file_of(host: dict[str, Any]) -> Path:
    return Path(host["prefix"]) / "etc" / "pgops" / "main" / "channels.json"


@pytest.mark.every_major
def test_channels_are_declared_once_as_predicted_and_removed(deployed: Server) -> None:
    rule(deployed)
    predicted = rule(deployed, check=True, channels=[DESK, PAGER])
    made = rule(deployed, channels=[DESK, PAGER])
    assert made["prediction"] == predicted["prediction"]
    assert made["changes"] == ["create channel desk", "create channel pager"]
    columns = "channel, severities, labels, fallback_channel, group_interval::text, source"
    assert rows(deployed, f"SELECT {columns} FROM pgops.notification_channels ORDER BY 1") == [
        ("desk", ["info", "warning", "critical"], {}, None, "00:00:00", "inventory"),
        ("pager", ["critical"], {"cluster": "shop"}, "desk", "00:05:00", "inventory"),
    ]
    for check in (False, True):
        assert rule(deployed, check=check, channels=[DESK, PAGER])["changes"] == []
    slower = rule(deployed, channels=[{**DESK, "repeat_interval": "1d"}, PAGER])
    assert slower["prediction"] == [
        {
            "action": "update",
            "subject": "channel desk",
            "before": {"repeat_interval": 14_400},
            "after": {"repeat_interval": 86_400},
        }
    ]
    assert rule(deployed, channels=[DESK])["changes"] == ["update channel desk", "remove channel pager"]
    assert rule(deployed)["changes"] == ["remove channel desk"]
    assert deploy(deployed)["changes"] == []


def test_a_channel_that_a_user_made_stays(deployed: Server) -> None:
    rule(deployed)
    said(deployed, "INSERT INTO pgops.notification_channel (channel, kind) VALUES ('desk', 'apprise')")
    made = rule(deployed, channels=[{**DESK, "attempts": 3}, PAGER])
    assert made["changes"] == ["create channel pager"]
    assert "made in SQL stay as they are there: desk" in made["warnings"][0]
    assert rule(deployed, state="absent")["changes"][-1] != "remove channel desk"
    assert rows(deployed, "SELECT channel, attempts FROM pgops.notification_channel") == [("desk", 12)]


def test_names_that_stand_for_nothing_are_refused(deployed: Server) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"channels": [PAGER]}, "fallback of channel pager is declared nowhere: desk"),
        ({"rules": [{"name": "connections", "channels": ["dsk"]}], "channels": [DESK]}, "dsk .did you mean desk"),
        ({"silences": [{**DISKS, "labels": {"rule_name": "disk_use"}}]}, "did you mean disk_usage"),
        ({"maintenance": [{**NIGHT, "labels": {"metric": "disk_used"}}]}, "for no metric that there is"),
        ({"maintenance": [{**NIGHT, "time_zone": "Europe/Berln"}]}, "time zone Europe/Berln .did you mean"),
        ({"silences": [{**DISKS, "ends": "2026-07-01 17:59"}]}, "ends before it starts"),
        ({"channels": [DESK], "addresses": {"desk": {"mail": "mailto://a"}}}, "Set instance"),
    ]
    rule(deployed)
    for params, message in wrong:
        for check in (True, False):
            with pytest.raises(InvalidInput, match=message):
                rule(deployed, check=check, **params)
    assert rows(deployed, "SELECT 1 FROM pgops.notification_channel UNION ALL SELECT 1 FROM pgops.silence") == []


@pytest.mark.every_major
def test_silences_and_windows_are_declared_once_as_predicted_and_removed(deployed: Server) -> None:
    rule(deployed)
    given: dict[str, Any] = {"silences": [DISKS], "maintenance": [NIGHT]}
    predicted = rule(deployed, check=True, **given)
    made = rule(deployed, **given)
    assert made["prediction"] == predicted["prediction"]
    assert made["changes"] == ["create silence disks", "create maintenance window night"]
    columns = "name, kind, weekdays, start_time::text, duration::text, time_zone, (ends_at AT TIME ZONE 'UTC')::text"
    assert rows(deployed, f"SELECT {columns}, source, created_by FROM pgops.silences ORDER BY name") == [
        ("disks", "silence", None, None, None, None, "2026-07-02 00:00:00", "inventory", "inventory"),
        ("night", "maintenance", [7], "22:00:00", "02:00:00", "Europe/Berlin", "infinity", "inventory", "inventory"),
    ]
    for check in (False, True):
        assert rule(deployed, check=check, **given)["changes"] == []
    # The same moment said otherwise; and another one.
    same = {**DISKS, "starts": "2026-07-01 20:00:00 +02:00", "ends": "2026-07-02 02:00", "time_zone": "Europe/Berlin"}
    assert rule(deployed, silences=[same], maintenance=[NIGHT])["changes"] == []
    later = rule(deployed, silences=[{**DISKS, "time_zone": "Europe/Berlin"}], maintenance=[NIGHT])
    assert later["prediction"][0]["after"] == {"starts": "2026-07-01 16:00:00+00", "ends": "2026-07-01 22:00:00+00"}
    said(deployed, "SELECT pgops.silence_alerts('{\"node\": \"db1/main\"}', '1 hour', 'mine')")
    assert rule(deployed)["changes"] == ["remove silence disks", "remove maintenance window night"]
    assert rows(deployed, "SELECT comment FROM pgops.silences") == [("mine",)]


def test_what_the_inventory_silences_is_not_told_and_not_ended_in_sql(deployed: Server) -> None:
    with deployed.connect("pgops") as session:
        notified = Notified(session)
        notified.rule()
        # At all hours: whatever time it is.
        always = {"name": "always", "labels": {"rule_name": "high_load"}, "start_time": "00:00", "duration": "1d"}
        rule(deployed, channels=[DESK], maintenance=[always])
        session.execute(b"UPDATE pgops.notification_channel SET created_at = '-infinity'")
        assert notified.fire(0) == 0
        assert notified.rows("SELECT muted_by FROM pgops.alert_notice") == [("maintenance",)]
        with pytest.raises(Exception, match="belongs to the inventory"):
            session.execute(b"SELECT pgops.end_silence(silence_id) FROM pgops.silences")
        rule(deployed, channels=[DESK])
        assert notified.at(60) == 1


@pytest.mark.every_major
def test_addresses_are_written_for_the_agent_alone_and_never_shown(deployed: Server, host: dict[str, Any]) -> None:
    given: dict[str, Any] = {**host, "channels": [DESK, PAGER], "addresses": {"pager": {"slack": SLACK}}}
    predicted = rule(deployed, check=True, **given)
    assert not file_of(host).exists()
    made = rule(deployed, **given)
    assert made["prediction"] == predicted["prediction"]
    assert made["changes"][-1] == f"create file {file_of(host)}"
    assert stat.S_IMODE(file_of(host).stat().st_mode) == 0o600
    assert json.loads(file_of(host).read_text())["channels"] == {
        "pager": {"kind": "apprise", "source": "inventory", "targets": {"slack": SLACK}}
    }
    other = rule(deployed, **{**given, "addresses": {"pager": {"slack": SLACK + "/#db"}}})
    assert other["changes"] == [f"update file {file_of(host)}"]
    file_of(host).chmod(0o644)
    mended = rule(deployed, **{**given, "addresses": {"pager": {"slack": SLACK + "/#db"}}})
    assert mended["prediction"][0]["after"] == {"mode": "0600"}
    assert rule(deployed, **{**given, "addresses": {"pager": {"slack": SLACK + "/#db"}}})["changes"] == []
    gone = rule(deployed, **{**given, "addresses": {}})
    assert gone["changes"] == [f"remove file {file_of(host)}"]
    assert not file_of(host).exists()
    for one in (predicted, made, other, mended, gone):
        assert not any(secret in json.dumps(one) for secret in (TOKEN, "T1JJ3T3L2"))
    tables = ("notification_channel", "setting", "object_source")
    stored = [rows(deployed, f"SELECT t::text FROM pgops.{table} AS t") for table in tables]
    assert TOKEN not in str(stored)


def test_a_heartbeat_has_an_address_and_is_told_no_alerts(deployed: Server, host: dict[str, Any]) -> None:
    url = "https://hc-ping.com/0e2bfae4"
    given: dict[str, Any] = {**host, "channels": [{"name": "alive", "kind": "heartbeat"}]}
    given["addresses"] = {"alive": {"hc": url}}
    assert rule(deployed, **given)["changes"][-1] == f"create file {file_of(host)}"
    assert json.loads(file_of(host).read_text())["channels"] == {
        "alive": {"kind": "heartbeat", "source": "inventory", "targets": {"hc": url}}
    }
    assert rows(deployed, "SELECT channel FROM pgops.notification_channel") == []
    assert rule(deployed, **given)["changes"] == []
    with pytest.raises(InvalidInput, match="declared nowhere"):
        rule(deployed, **{**given, "channels": [*given["channels"], {"name": "desk", "fallback": "alive"}]})


def test_channels_that_somebody_wrote_into_the_file_stay(deployed: Server, host: dict[str, Any]) -> None:
    own = {"kind": "apprise", "targets": {"chat": SLACK}}
    file_of(host).write_text(json.dumps({"format": 1, "channels": {"desk": own}}))
    file_of(host).chmod(0o600)
    before = file_of(host).read_text()
    assert not [change for change in rule(deployed, **host)["changes"] if "file" in change]
    assert file_of(host).read_text() == before
    given: dict[str, Any] = {**host, "channels": [DESK, PAGER]}
    both = {"desk": {"mail": "mailto://dba:secret@example.com"}, "pager": {"slack": SLACK}}
    made = rule(deployed, **given, addresses=both)
    assert "stay as they are there: desk" in made["warnings"][-1]
    found = json.loads(file_of(host).read_text())["channels"]
    assert (found["desk"], set(found)) == (own, {"desk", "pager"})
    rule(deployed, **given)
    assert json.loads(file_of(host).read_text())["channels"] == {"desk": own}


def test_a_file_that_is_something_else_is_left_and_nothing_is_changed(deployed: Server, host: dict[str, Any]) -> None:
    given: dict[str, Any] = {**host, "channels": [DESK], "addresses": {"desk": {"mail": "mailto://a:b@example.com"}}}
    file_of(host).write_text(f"not JSON {TOKEN}")
    with pytest.raises(InvalidInput, match="is not JSON") as raised:
        rule(deployed, **given)
    assert TOKEN not in str(raised.value)
    file_of(host).unlink()
    file_of(host).symlink_to("/dev/null")
    with pytest.raises((PgOpsError, HostFailed)):
        rule(deployed, **given)
    assert rows(deployed, "SELECT 1 FROM pgops.notification_channel") == []


def test_an_address_without_a_service_is_refused_before_anything_is_changed(
    deployed: Server, host: dict[str, Any]
) -> None:
    given: dict[str, Any] = {**host, "channels": [DESK], "addresses": {"desk": {"chat": f"slak://{TOKEN}"}}}
    for check in (True, False):
        with pytest.raises(InvalidInput, match="no service for the address chat of channel desk") as raised:
            rule(deployed, check=check, **given)
        assert TOKEN not in str(raised.value)
    assert rows(deployed, "SELECT 1 FROM pgops.notification_channel") == []
    assert not file_of(host).exists()


def test_addresses_need_an_agent_that_sends(deployed: Server, tmp_path: Path) -> None:
    given: dict[str, Any] = {"instance": "main", "prefix": str(tmp_path), "channels": [DESK]}
    given["addresses"] = {"desk": {"mail": "mailto://a:b@example.com"}}
    assert rule(deployed, check=True, **given)["changed"]
    with pytest.raises(Conflict, match="no agent of instance main"):
        rule(deployed, **given)
    assert rows(deployed, "SELECT 1 FROM pgops.notification_channel") == []


@pytest.fixture(name="webhook")
def _webhook() -> Iterator[Webhook]:
    webhook = Webhook().start()
    yield webhook
    webhook.stop()


def test_what_is_declared_is_what_the_agent_sends_to(deployed: Server, tmp_path: Path, webhook: Webhook) -> None:
    sender = Sender(deployed, tmp_path / "prefix")
    given: dict[str, Any] = {"instance": "main", "prefix": str(tmp_path / "prefix"), "channels": [DESK]}
    rule(deployed, **given, addresses={"desk": {"hook": webhook.url("json", TOKEN)}})
    tried = sender.run("--test", "desk")
    assert (tried["exit"], tried["targets"], len(webhook.received)) == (0, {"hook": "sent"}, 1)
    with deployed.connect("pgops") as session:
        notified = Notified(session, "now()")
        notified.rule()
        notified.fire(0)
    ran = sender.run()
    assert (ran["exit"], ran["sent"], ran["errors"]) == (0, 1, [])
    assert "high_load" in webhook.texts()[-1]
    rule(deployed, **given)
    assert sender.run()["skipped"] == "this host has no addresses of channels"


def test_a_standby_gets_its_addresses_and_nothing_else(deployed: Server, host: dict[str, Any]) -> None:
    given: dict[str, Any] = {**host, "channels": [DESK], "addresses": {"desk": {"mail": "mailto://a:b@example.com"}}}
    with deployed.standby() as standby:
        found = rule(standby, **given)
    assert found["changes"] == [f"create file {file_of(host)}"]
    assert "standby" in found["skipped_reason"]


def test_the_rules_for_prometheus_are_those_of_the_database(
    deployed: Server, host: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    mine = {"name": "mine", "metric": "waiting_locks", "operator": ">", "threshold": 7.0}
    given: dict[str, Any] = {**host, "cluster": "shop", "rules": [mine], "expected_standbys": 1}
    predicted = rule(deployed, check=True, **given)["prometheus_rules"]
    assert predicted == rule(deployed, **given)["prometheus_rules"]
    assert '- alert: "mine"' in predicted
    said(deployed, "UPDATE pgops.alert_rules SET threshold_value = 60 WHERE rule_name = 'lock_queue'")
    text = rule(deployed, **given)["prometheus_rules"]
    assert "pgops_blocked_sessions" in text
    assert " > 60" in text.partition('- alert: "lock_queue"')[2]
    assert rule(deployed, **{**given, "cluster": ""})["prometheus_rules"] == ""
    options = argparse.Namespace(prometheus=True)
    assert job.alerts(*configured(deployed, Path(host["prefix"])), options) == {"printed": True, "errors": []}
    assert capsys.readouterr().out == text
    assert rule(deployed, **given, state="absent")["prometheus_rules"] == ""


def test_the_rules_for_prometheus_are_on_what_the_agent_exports(
    deployed: Server, host: dict[str, Any], tmp_path: Path
) -> None:
    """Values of a real server, as it exports them, let a rule fire in Prometheus."""
    state = Path(host["prefix"])
    assert collect(deployed, state)["errors"] == []
    layout = configured(deployed, state)[1]
    present = latest.present([layout.latest], time.time())
    exported = exposition.exposition(collectors.metrics(SHIPPED).values(), present, "shop", "db1/main")
    rules = [
        {"name": "all", "metric": metric, "operator": ">=", "threshold": 0.0, "lasts": "0"}
        for metric in ("connections_used_percent", "database_size_mb", "waiting_locks", "server_uptime_seconds")
    ]
    named = [{**one, "name": f"all_{one['metric']}"} for one in rules]
    text = rule(deployed, **host, cluster="shop", rules=named)["prometheus_rules"]
    lines = [line for line in exported.splitlines() if not line.startswith("#") and "NaN" not in line]
    series = [{"series": line.rpartition(" ")[0], "values": f"{line.rpartition(' ')[2]}x3"} for line in lines]
    expected = [
        {
            "expr": f'count(ALERTS{{alertname="{one["name"]}",alertstate="firing"}}) > bool 0',
            "eval_time": "1m",
            "exp_samples": [{"labels": "{}", "value": 1}],
        }
        for one in named
    ]
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": expected}]
    (tmp_path / "rules.yml").write_text(text)
    (tmp_path / "tests.yml").write_text(
        json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests})
    )
    command = [str(promtool.program()), "test", "rules", str(tmp_path / "tests.yml")]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert found.returncode == 0, (found.stdout + found.stderr)[:3000]
