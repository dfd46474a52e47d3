# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the watch sees of real servers that are down, hang, are full or refuse, told to real receivers."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import binaries
import psycopg
import pytest
from alertmanager_server import Alertmanager
from disks import fill, small
from receivers import Mail, Webhook
from servers import Server
from waiting import until
from watching import Watcher, frozen, placed

DOUBTFUL = "may have been sent before"


@pytest.fixture(name="webhook")
def _webhook() -> Iterator[Webhook]:
    webhook = Webhook().start()
    yield webhook
    webhook.stop()


@pytest.fixture(name="watched")
def _watched(major: int, new_server: Callable[..., Server]) -> Server:
    """A server with the agent's role and database, and nothing in it."""
    made = new_server(major, settings={"max_connections": "8", "superuser_reserved_connections": "2"}).start()
    made.value("CREATE ROLE pgops LOGIN")
    made.value("CREATE DATABASE pgops OWNER pgops")
    return made


@pytest.fixture(name="watcher")
def _watcher(watched: Server, tmp_path: Path, webhook: Webhook) -> Watcher:
    watcher = Watcher(watched, tmp_path / "prefix", own=placed(watched), answers=1.0)
    watcher.knows(ops={"hook": webhook.url("json", "hook")})
    return watcher


def titles(receiver: Webhook | Mail) -> list[str]:
    """What was received, without the bodies."""
    return [text.partition("\n")[0] for text in receiver.texts()]


def is_told_once(watcher: Watcher, webhook: Webhook, rule: str, mend: Callable[[], object]) -> None:
    """An alert fires in one run, is told, and not again; it ends once the fault is gone."""
    ran = watcher.look()
    assert (ran["firing"], ran["sent"], ran["errors"]) == ([rule], 1, [])
    assert titles(webhook) == [f"[FIRING 1] critical: {rule} on shop (db1/main)"]
    assert (watcher.look()["sent"], watcher.look()["sent"]) == (0, 0)
    mend()
    assert watcher.look()["firing"] == [rule]  # not yet for long enough
    ran = watcher.look()
    assert (ran["firing"], ran["sent"]) == ([], 1)
    assert titles(webhook)[1:] == [f"[RESOLVED 1] critical: {rule} on shop (db1/main)"]
    assert DOUBTFUL not in "".join(webhook.texts())
    assert (watcher.look()["sent"], watcher.status().count(rule)) == (0, 1)


@pytest.mark.every_major
def test_a_server_that_is_stopped(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    assert watcher.look()["firing"] == []
    watched.stop()
    is_told_once(watcher, webhook, "instance_down", watched.start)
    assert "it has no socket in" in webhook.texts()[0]


@pytest.mark.every_major
def test_a_server_whose_processes_are_all_stopped(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    with contextlib.ExitStack() as stack:
        stack.enter_context(frozen(watched))
        is_told_once(watcher, webhook, "instance_hung", stack.close)
    assert "no answer within 1 s" in webhook.texts()[0]


@pytest.mark.every_major
@pytest.mark.parametrize("reserved", [True, False], ids=["reserved are left", "none is left"])
def test_a_server_that_is_out_of_connections(
    watched: Server, watcher: Watcher, webhook: Webhook, reserved: bool
) -> None:
    assert watcher.look()["firing"] == []
    with contextlib.ExitStack() as sessions:
        for _number in range(6 if reserved else 8):
            sessions.enter_context(watched.connect())
        with pytest.raises(psycopg.OperationalError):
            watched.connect(user="pgops")
        is_told_once(watcher, webhook, "connections_exhausted", sessions.close)


def test_a_server_that_starts_or_stops_takes_no_sessions(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    with watched.connect():
        watched._process.terminate()  # type: ignore[union-attr] - a smart shutdown, which waits for the session
        until(lambda: watcher.look()["firing"], "told", ["instance_down"])
    assert "the database system is shutting down" in webhook.texts()[0]


@pytest.mark.every_major
def test_a_server_whose_disk_is_full(root: Path, watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    """It cannot write a file, and stops for it; what is told has both."""
    with small(root / "disk", "160m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        watched.stop()
        subprocess.run(["cp", "-a", str(watched.data_dir), str(root / "disk" / "data")], check=True)
        shutil.rmtree(watched.data_dir)
        watched.data_dir.symlink_to(root / "disk" / "data")
        watched.start()
        assert watcher.look()["firing"] == []
        fill(root / "disk")
        with pytest.raises(psycopg.Error), watched.connect() as session:
            session.execute("CREATE TABLE more AS SELECT generate_series(1, 1000000)")
        assert watcher.look()["firing"] == ["disk_full"]
        assert f"{root / 'disk'} (data, WAL) is full" in webhook.texts()[0]
        watched.kill()
        with contextlib.suppress(RuntimeError):
            watched.start()  # which has no space for its lock file
        assert "disk_full" in watcher.look()["firing"]
        watched.kill()


def test_a_disk_that_is_full_and_the_watchs_own(
    watched: Server, webhook: Webhook, small_disk: Path, tmp_path: Path
) -> None:
    """It is told all the same, and once."""
    paths = [small_disk, small_disk / "pg_wal"]
    paths[1].mkdir()
    own = {"real_paths": {str(path): str(path) for path in paths}}
    memory = tmp_path / "memory"
    memory.mkdir()
    full = Watcher(watched, small_disk / "prefix", own=own, memory=str(memory))
    full.knows(ops={"hook": webhook.url("json", "hook")})
    assert full.look()["firing"] == []
    fill(small_disk)
    is_told_once(full, webhook, "disk_full", (small_disk / "filler").unlink)
    assert f"{small_disk} (agent, data" in webhook.texts()[0]
    assert list(memory.iterdir()) == []  # its ledger is written in place


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


LAST = 2_144_484_900
SEGMENT = 32_768 * 32


def test_a_server_that_gives_out_no_transaction_ids(
    major: int, new_server: Callable[..., Server], tmp_path: Path, webhook: Webhook
) -> None:
    if major != binaries.majors()[-1]:
        pytest.skip("pg_resetwal is of the newest version")
    server = new_server(major, settings={"max_prepared_transactions": "1", "autovacuum_naptime": "1s"}).start()
    server.value("CREATE ROLE pgops LOGIN")
    server.value("CREATE DATABASE pgops OWNER pgops")
    with server.connect("pgops") as session:
        session.execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'old'")
    watcher = Watcher(server, tmp_path / "prefix")
    watcher.knows(ops={"hook": webhook.url("json", "hook")})
    assert watcher.look()["firing"] == []
    server.stop()
    server.run(server.client("pg_resetwal"), "-x", str(LAST), "-D", server.data_dir)
    server.write(server.data_dir / "pg_xact" / f"{LAST // SEGMENT:04X}", "\0" * (SEGMENT // 4))
    server.start()

    def mend() -> None:
        """Autovacuum, which is allowed into every database, does the rest."""
        server.value("ROLLBACK PREPARED 'old'", "pgops")
        until(given_out, "giving out transaction ids")

    def given_out() -> bool:
        with contextlib.suppress(psycopg.OperationalError):
            return bool(server.value("SELECT pg_current_xact_id()"))
        return False

    is_told_once(watcher, webhook, "writes_refused", mend)
    assert "not accepting commands that assign new transaction IDs" in webhook.texts()[0]


def test_who_listens_in_its_place_does_not_live_for_it(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    watched.stop()
    path = watched.socket_dir / f".s.PGSQL.{watched.port}"
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        assert watcher.look()["firing"] == ["instance_down"]
    path.unlink()
    assert "what listens on its socket is no PostgreSQL server" in webhook.texts()[0]


def test_a_remote_instance_is_reached_over_the_network(watched: Server, tmp_path: Path, webhook: Webhook) -> None:
    remote = Watcher(watched, tmp_path / "prefix", own={"host": "127.0.0.1"}, answers=1.0)
    remote.knows(ops={"hook": webhook.url("json", "hook")})
    assert (remote.look()["firing"], remote.look()["errors"]) == ([], [])
    with frozen(watched):
        assert remote.look()["firing"] == ["instance_hung"]
    watched.stop()
    assert "instance_down" in remote.look()["firing"]
    assert "connection refused" in webhook.texts()[-1]


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


def test_a_standby_refuses_no_writes(watched: Server, keep: Callable[[Server], Server], tmp_path: Path) -> None:
    standby = keep(watched.standby()).start()
    assert Watcher(standby, tmp_path / "prefix").look()["firing"] == []


def test_a_peer_that_is_gone(
    watched: Server, watcher: Watcher, webhook: Webhook, keep: Callable[[Server], Server], tmp_path: Path
) -> None:
    standby = keep(watched.standby()).start()
    peers = [{"host": "127.0.0.1", "port": watched.port}]
    other = Watcher(standby, tmp_path / "other", own={"peers": peers}, answers=1.0)
    other.knows(ops={"hook": webhook.url("json", "hook")})
    assert other.look()["firing"] == []
    watched.stop()
    assert other.look()["firing"] == []  # it lasts a minute
    assert other.look()["firing"] == ["peer_down"]
    assert f"127.0.0.1:{watched.port}: connection refused" in webhook.texts()[0]


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


def test_jobs_that_do_not_run_or_fail(watcher: Watcher, webhook: Webhook) -> None:
    for job, calendar in (("collect", "minutely"), ("queries", "*:0/5"), ("alerts", "*:*:40"), ("backup", "01:30")):
        watcher.scheduled(job, calendar)
        watcher.ran(job, 1_700_000_000)
    assert watcher.look()["firing"] == []
    fires: list[str] = []
    for run in range(1, 7):
        watcher.ran("collect", 1_700_000_000 + run)
        watcher.ran("queries", 1_700_000_000 + run, errors=1, sound=1_700_000_000)
        fires = watcher.look(180)["firing"]
    assert fires == ["job_failing", "job_stale"]
    told = "\n".join(webhook.texts())
    assert "The job alerts has not run for" in told
    assert "The job queries has not run without an error for" in told
    assert "collect" not in told
    assert "backup" not in told
    Path(watcher.layout.units, "pgops-main-alerts.timer").unlink()
    assert watcher.look()["firing"] == ["job_failing"]
    assert "It is not watched any more." in webhook.texts()[-1]


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


def test_it_needs_no_driver_and_no_session(
    watched: Server, watcher: Watcher, tmp_path: Path, webhook: Webhook
) -> None:
    (tmp_path / "psycopg.py").write_text("raise ImportError('not here')")
    watcher.libraries = (tmp_path,)
    end = 'sys.stderr.write(f"{sorted(set(sys.modules) & {"psycopg", "pgops.server.session"})} ")\n'
    watcher.main = watcher.main.replace("sys.stderr.write", f"{end}sys.stderr.write", 1)
    watched.stop()
    ran = watcher.look()
    assert (ran["sent"], "[] slept" in ran["printed"]) == (1, True)


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


def test_it_is_told_in_two_minutes_by_a_real_clock(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    """From the first look on, which is a minute after the fault at most."""
    watcher.main = "import sys; from pgops.cli import main; sys.exit(main(sys.argv[1:]))"
    watched.stop()
    ran = watcher.run()
    assert (ran["firing"], ran["sent"]) == (["instance_down"], 1)
    assert ran["duration_ms"] < 60_000
    assert webhook.texts()


def test_a_small_file_system_of_its_own_is_told_once(watched: Server, tmp_path: Path, webhook: Webhook) -> None:
    """The repository's, of which the server says nothing."""
    with small(tmp_path / "repository") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        watcher = Watcher(watched, tmp_path / "prefix", own={"repository": str(tmp_path / "repository")})
        watcher.knows(ops={"hook": webhook.url("json", "hook")})
        fill(tmp_path / "repository")
        assert watcher.look()["firing"] == ["disk_full"]
        assert "(repository) is full" in webhook.texts()[0]
