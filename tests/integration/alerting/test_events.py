# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Events: what was done to a server is recorded as such, once, by what it shows and by what others have noted."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from archives import Host
from backed import Backed
from clusters import Node, primary, streaming
from configured import DEFAULTS
from deploying import configured, keep, target
from majors import make_server
from servers import Server
from waiting import until

from pgops import modules
from pgops.alerting import observation
from pgops.instance import deployments
from pgops.instance.configuration import Peer

EVENTS = (
    "SELECT kind, node, event_text, details FROM pgops.events WHERE kind = ANY (%s) ORDER BY occurred_at, event_key"
)
TIMES = "SELECT occurred_at = {} FROM pgops.events WHERE kind = '{}'"
Event = tuple[str, str, str, dict[str, Any]]


def kept(server: Server, state: Path, node: str = "db1/main", **settings: Any) -> int:
    """One run of what the job does after the rules; how many events are new."""
    done = keep(server, state, node, **settings)
    assert done["errors"] == []
    return int(done["events"])


def events(server: Server, *kinds: str) -> list[Event]:
    with server.connect("pgops") as session:
        found: list[Event] = session.execute(EVENTS.encode(), [list(kinds)]).fetchall()
    return found


@pytest.mark.every_major
def test_changed_settings_are_an_event(deployed: Server, tmp_path: Path) -> None:
    kept(deployed, tmp_path)
    assert events(deployed, "settings", "restart", "failover") == []
    deployed.psql("ALTER SYSTEM SET work_mem = '64MB'")
    deployed.psql("ALTER SYSTEM SET archive_command = 'curl -u me:hunter22 https://there/%f'")
    deployed.reload()
    try:
        assert kept(deployed, tmp_path) >= 1
        assert kept(deployed, tmp_path) == 0
        ((_kind, node, text, details),) = events(deployed, "settings")
        assert node == "db1/main"
        assert "work_mem: 4MB -> 64MB" in text
        assert details["changes"]["work_mem"] == ["4MB", "64MB"]
        assert "hunter22" not in text + json.dumps(details)
        assert deployed.value(TIMES.format("pg_conf_load_time()", "settings"), "pgops") is True
    finally:
        deployed.psql("ALTER SYSTEM RESET work_mem")
        deployed.psql("ALTER SYSTEM RESET archive_command")
        deployed.reload()


def test_a_reload_that_changes_nothing_is_none(deployed: Server, tmp_path: Path) -> None:
    kept(deployed, tmp_path)
    deployed.reload()
    kept(deployed, tmp_path)
    assert events(deployed, "settings") == []


@pytest.mark.every_major
def test_restarts_and_crashes_are_events(deployed: Server, tmp_path: Path) -> None:
    usual = deployed.value("SHOW max_locks_per_transaction")
    kept(deployed, tmp_path)
    deployed.psql("ALTER SYSTEM SET max_locks_per_transaction = 100")
    deployed.stop()
    deployed.start()
    kept(deployed, tmp_path)
    ((_kind, node, text, details),) = events(deployed, "restart")
    assert (node, text.startswith("The server was started; the last sign of it before was at 20")) == (
        "db1/main",
        True,
    )
    assert {*details} == {"started_at", "previous_start", "last_seen_at"}
    assert deployed.value(TIMES.format("pg_postmaster_start_time()", "restart"), "pgops") is True
    ((_kind, _node, text, _details),) = events(deployed, "settings")
    assert text == f"max_locks_per_transaction: {usual} -> 100"
    before = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'background writer'"
    pid = int(str(deployed.value(before)))
    os.kill(pid, signal.SIGKILL)
    until(lambda: answers(deployed, before, pid), "recovered", True)
    kept(deployed, tmp_path)
    assert [one[3].get("crash", False) for one in events(deployed, "restart")] == [False, True]
    assert kept(deployed, tmp_path) == 0
    deployed.psql("ALTER SYSTEM RESET max_locks_per_transaction")
    deployed.stop()
    deployed.start()


def answers(server: Server, query: str, other_than: int) -> bool:
    """Whether a server that crashed lets clients in, with a new process."""
    try:
        return server.value(query) not in (None, other_than)
    except Exception:  # noqa: BLE001 - whatever it says meanwhile
        return False


@pytest.mark.every_major
def test_a_promotion_is_an_event_of_the_node(major: int, tmp_path: Path) -> None:
    with make_server(major) as server:
        first = primary(server, "db1/main", tmp_path / "one")
        second = first.standby("db2/main", tmp_path / "two")
        with second.server:
            streaming(server)
            kept(server, first.state)
            of_standby = {"node": "db2/main", "peers": (Peer("127.0.0.1", server.port),)}
            assert kept(second.server, second.state, **of_standby) == 0
            server.stop()
            second.server.promote()
            assert kept(second.server, second.state, **of_standby) == 1
            ((_kind, node, text, details),) = events(second.server, "failover")
            assert (node, details["timeline"], details["previous_timeline"]) == ("db2/main", 2, 1)
            assert text == "The server was promoted: it is the primary, on timeline 2 (before: 1)."


def test_what_a_standby_notices_is_recorded_on_the_primary(tmp_path: Path) -> None:
    with make_server(18) as server:
        first = primary(server, "db1/main", tmp_path / "one")
        second = first.standby("db2/main", tmp_path / "two")
        with second.server:
            streaming(server)
            peers = (Peer("127.0.0.1", server.port),)
            kept(second.server, second.state, "db2/main", peers=peers)
            deployments_of(second, "pg_ops_agent")
            second.server.psql("ALTER SYSTEM SET work_mem = '99MB'")
            second.server.reload()
            # Without a way to the primary it is an event of the next run that has one.
            lost = keep(second.server, second.state, "db2/main")
            assert len(lost["errors"]) == 2
            assert kept(second.server, second.state, "db2/main", peers=peers) == 2
            until(lambda: len(events(second.server, "settings")), "replayed", 1)
            assert kept(second.server, second.state, "db2/main", peers=peers) == 0
            assert [one[:2] for one in events(server, "settings", "deployment") if one[1]] == [
                ("deployment", "db2/main"),
                ("settings", "db2/main"),
            ]


def deployments_of(node: Node, module: str) -> None:
    """As if a module had changed something on a node."""
    params = {"instance": "main", "prefix": str(node.state)}
    deployments.note(module, params, ["update file /etc/pgops/main/agent.json"])


def test_deployments_by_the_modules_are_events(deployed: Server, tmp_path: Path) -> None:
    configured(deployed, tmp_path)
    kept(deployed, tmp_path)
    place = target(deployed)
    login = {
        "login_host": place.host,
        "login_port": int(place.port),
        "login_user": place.user,
        "login_db": "postgres",
    }
    unset = dict.fromkeys(("login_password", "ssl_mode", "ca_cert", "channel_binding"))
    params = {**DEFAULTS, **login, **unset, "connect_timeout": 10, "instance": "main", "prefix": str(tmp_path)}
    order = {"module": "pg_ops_settings", "params": {**params, "settings": {"work_mem": "32MB"}}, "paths": {}}
    checked = modules.run({**order, "_ansible_check_mode": True}, {})
    assert checked["changed"] is True
    assert kept(deployed, tmp_path) == 0
    done = modules.run({**order, "_ansible_check_mode": False}, {})
    assert done["changed"] is True, done
    again = modules.run({**order, "_ansible_check_mode": False}, {})
    assert again["changed"] is False
    assert kept(deployed, tmp_path) == 2
    assert kept(deployed, tmp_path) == 0
    ((_kind, _node, text, _details),) = events(deployed, "settings")
    assert text == "work_mem: 4MB -> 32MB"
    (found,) = [one for one in events(deployed, "deployment") if one[1]]
    assert found[2].startswith("pg_ops_settings of pgops.fleet ")
    assert "work_mem" in found[2]
    assert found[3]["changes"] == done["changes"]
    deployed.psql("ALTER SYSTEM RESET work_mem")
    deployed.reload()


@pytest.mark.every_major
def test_migrations_are_deployments(deployed: Server, tmp_path: Path) -> None:
    kept(deployed, tmp_path)
    ((_kind, node, text, details),) = events(deployed, "deployment")
    assert (node, details["module"]) == ("", "pg_ops_schema")
    assert text.startswith("pg_ops_schema: migrations 1 to ")


def test_a_backup_is_two_events(make: Callable[..., Host], tmp_path: Path) -> None:
    bank = Backed.of(make(settings={"wal_level": "replica"}))
    bank.take("full")
    kept(bank.server, tmp_path)
    assert kept(bank.server, tmp_path) == 0
    began, ended = events(bank.server, "backup")
    assert (began[1:3], ended[1:3]) == (("db1/main", "full backup began"), ("db1/main", "full backup completed"))
    assert ended[3]["bytes"] > 0
    assert began[3]["backup_id"] == ended[3]["backup_id"]


@pytest.mark.every_major
def test_maintenance_windows_and_silences_are_events(deployed: Server, tmp_path: Path) -> None:
    with deployed.connect("pgops") as session:
        (day, hour), *_more = session.execute(
            b"SELECT extract(ISODOW FROM now() AT TIME ZONE 'Asia/Tokyo')::int, "
            b"to_char(now() AT TIME ZONE 'Asia/Tokyo', 'HH24:MI:00')"
        ).fetchall()
        session.execute(
            b"SELECT pgops.maintenance('{\"node\": \"db1/main\"}', ARRAY[%s]::integer[], %s::time, '2 hours', "
            b"'Asia/Tokyo', 'patches')",
            [day, hour],
        )
        session.execute(b"SELECT pgops.silence_alerts('{\"cluster\": \"shop\"}', '1 hour', 'known')")
        session.execute(b"SELECT pgops.maintenance('{\"node\": \"x\"}', '{1}', '03:00', '1 hour', 'UTC', 'later')")
        session.execute(b"UPDATE pgops.silence SET starts_at = now() + interval '1 day' WHERE comment = 'later'")
    kept(deployed, tmp_path)
    assert kept(deployed, tmp_path) == 0
    found = {one[2].rpartition(": ")[2]: one for one in events(deployed, "maintenance")}
    assert {*found} == {"patches", "known"}
    assert found["patches"][1] == "db1/main"
    assert found["patches"][2].startswith("maintenance window begins, by postgres, for ")
    assert (found["known"][1], found["known"][2].startswith("silence begins, ")) == ("", True)
    deployed.value("SELECT pgops.end_silence(silence_id) FROM pgops.silence WHERE comment = 'known'", "pgops")
    assert kept(deployed, tmp_path) == 1
    assert [one[2] for one in events(deployed, "maintenance") if "known" in one[2] and "ends" in one[2]]


def test_old_events_are_forgotten(deployed: Server, tmp_path: Path) -> None:
    kept(deployed, tmp_path)
    with deployed.connect("pgops") as session:
        session.execute(
            b"INSERT INTO pgops.event (event_key, occurred_at, kind, cluster, node, event_text) "
            b"SELECT g::text, now() - make_interval(days => g), 'drill', 'shop', '', 'one' "
            b"FROM unnest(ARRAY[399, 401, 500]) AS g"
        )
        assert session.execute(b"SELECT pgops.forget_events()").fetchone() == (2,)
    assert len(events(deployed, "drill")) == 1


def test_a_file_of_the_agent_that_is_broken_is_the_first_one(deployed: Server, tmp_path: Path) -> None:
    kept(deployed, tmp_path)
    path = Path(configured(deployed, tmp_path)[1].observed)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text(path.read_text()[:-9])
    deployed.psql("ALTER SYSTEM SET work_mem = '65MB'")
    deployed.reload()
    assert kept(deployed, tmp_path) == 0
    assert observation.load(str(path)) is not None
    deployed.psql("ALTER SYSTEM RESET work_mem")
    deployed.reload()
