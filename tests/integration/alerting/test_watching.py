# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the watch sees of real servers that are down, hang, are full or refuse, told to a real receiver."""

from __future__ import annotations

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import binaries
import psycopg
import pytest
from backing import own
from deploying import SHIPPED, collect
from disks import fill, small
from receivers import Webhook
from servers import Server
from waiting import until
from watching import Watcher, frozen, is_told_once


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


def test_a_tablespace_that_was_made_after_the_deployment(
    root: Path, watched: Server, watcher: Watcher, webhook: Webhook
) -> None:
    with small(root / "disk", "20m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        own(root / "disk", watched)
        watched.value("GRANT pg_monitor TO pgops")
        watched.value(f"CREATE TABLESPACE roomy LOCATION '{root / 'disk'}'")
        collect(watched, watcher.prefix, found=[one for one in SHIPPED if one.name == "disks"])
        fill(root / "disk")
        is_told_once(watcher, webhook, "disk_full", (root / "disk" / "filler").unlink)
        assert f"{root / 'disk'} (tablespace) is full" in webhook.texts()[0]
        watched.value("DROP TABLESPACE roomy")


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


def test_it_is_told_within_one_run_by_a_real_clock(watched: Server, watcher: Watcher, webhook: Webhook) -> None:
    """From the first look on, which is a minute after the fault at most."""
    watcher.main = "import sys; from pgops.cli import main; sys.exit(main(sys.argv[1:]))"
    watched.stop()
    ran = watcher.run()
    assert (ran["firing"], ran["sent"]) == (["instance_down"], 1)
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
