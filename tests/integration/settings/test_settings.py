# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings come into force together, or not at all, and go back to what they were."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import artifact
import pytest
from configured import DEFAULTS, Host
from deploying import AGENT, BUNDLE, agent_arguments
from servers import Server, free_port
from waiting import until

from pgops.agent import deploy as agent
from pgops.errors import Conflict, InvalidInput, PermissionMissing, PgOpsError, SettingsRefused, Unreachable
from pgops.instance.layout import Layout
from pgops.server.target import Target
from pgops.settings import controldata
from pgops.settings import deploy as settings

KILLED = """
import os, signal, sys
sys.path[:0] = [sys.argv[1]]
from pgops.server import service
from pgops.server.target import Target
from pgops.settings import deploy

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

def stop_and_die(found):
    process = service.discovery.postmaster(found.data_directory, found.owner)
    os.kill(process, signal.SIGINT)
    while service.discovery.postmaster(found.data_directory, found.owner) is not None:
        pass
    die()

if sys.argv[2] == "before the restart":
    service.restart = die
else:
    service.restart = stop_and_die
deploy.converge(Target(host=sys.argv[3], port=sys.argv[4], user="postgres"), {**eval(sys.argv[5])}, False)
"""


@pytest.mark.every_major
def test_what_is_predicted_happens_once_and_is_taken_back(host: Host) -> None:
    wanted = {"work_mem": "8MB", "archive_timeout": 600, "log_duration": True, "search_path": ["$user", "sho p"]}
    predicted = host.set(check=True, **wanted)
    assert host.automatic == []
    done = host.set(**wanted)
    assert done == predicted
    assert done["changed"]
    assert done["changes"][0] == "update setting work_mem"
    assert done["diff"][1] == {
        "before_header": "setting archive_timeout",
        "after_header": "setting archive_timeout",
        "before": "0\n",
        "after": "600\n",
    }
    subject = {"action": "update", "subject": "setting archive_timeout"}
    assert done["prediction"][1] == {**subject, "before": "0", "after": "600"}
    assert [host.show(name) for name in wanted] == ["8MB", "10min", "on", '"$user", "sho p"']
    again = host.set(work_mem="8192kB", archive_timeout="10min", log_duration="yes", search_path='"$user","sho p"')
    assert not again["changed"]
    assert host.kept == ["before.json"]
    gone = host.apply(state="absent")
    assert gone["changed"]
    assert host.automatic == []
    assert host.kept == []
    assert not host.apply(state="absent")["changed"]


@pytest.mark.every_major
def test_what_needs_a_restart_waits_for_it(host: Host) -> None:
    done = host.set(max_connections=60)
    (waiting,) = done["pending"]
    assert (waiting["name"], waiting["running"], waiting["configured"]) == ("max_connections", "50", "60")
    assert not done["restarted"]
    again = host.set(max_connections=60)
    assert (again["changed"], [one["name"] for one in again["pending"]]) == (False, ["max_connections"])
    with host.server.connect() as session:
        predicted = host.set(check=True, restart="if_required", max_connections=60)
        done = host.set(restart="if_required", max_connections=60)
        assert {**done, "sessions_ended": 0} == {**predicted, "sessions_ended": 0}
        assert (done["changes"], done["pending"]) == (["restart server"], [])
        assert done["sessions_ended"] >= 1
        assert session.pgconn.socket > 0
    assert host.show("max_connections") == "60"
    assert not host.set(restart="if_required", max_connections=60)["changed"]
    gone = host.apply(state="absent")
    assert [one["name"] for one in gone["pending"]] == ["max_connections"]
    # A line that was taken out, and waits, keeps nobody from setting more.
    done = host.set(restart="if_required", work_mem="8MB", max_connections=None)
    assert done["changes"] == ["update setting work_mem", "restart server"]
    assert host.show("max_connections") == "50"


def test_libraries_of_others_stay(host: Host) -> None:
    host.server.value("ALTER SYSTEM SET shared_preload_libraries = 'auto_explain'")
    done = host.set(restart="if_required", shared_preload_libraries=["pg_stat_statements"], work_mem="8MB")
    assert done["restarted"]
    assert host.show("shared_preload_libraries") == "auto_explain, pg_stat_statements"
    done = host.set(**{"pg_stat_statements.max": 2000, "auto_explain.log_min_duration": "1min"})
    assert [one["name"] for one in done["pending"]] == ["pg_stat_statements.max"]
    assert host.show("auto_explain.log_min_duration") == "1min"
    host.server.value(
        "ALTER SYSTEM SET shared_preload_libraries = 'auto_explain', 'pg_stat_statements', 'pg_prewarm'"
    )
    host.server.value("ALTER SYSTEM SET work_mem = '9MB'")
    gone = host.apply(state="absent", restart="if_required")
    assert gone["restarted"]
    assert host.show("shared_preload_libraries") == "auto_explain, pg_prewarm"
    assert host.show("work_mem") == "9MB"


def test_a_parameter_of_a_library_is_set_before_it_is_loaded(host: Host) -> None:
    wanted = {"shared_preload_libraries": "pg_stat_statements", "pg_stat_statements.max": 3000}
    assert host.set(restart="if_required", **wanted)["restarted"]
    assert host.show("pg_stat_statements.max") == "3000"
    assert not host.set(restart="if_required", **wanted)["changed"]


def test_a_value_that_means_the_same_elsewhere_satisfies(host: Host) -> None:
    host.server.configure({"work_mem": "16MB", "shared_preload_libraries": "auto_explain"})
    host.server.reload()
    assert not host.set(work_mem="16384kB")["changed"]
    host.set(shared_preload_libraries=["pg_prewarm"])
    assert host.automatic == ["shared_preload_libraries = 'auto_explain, pg_prewarm'"]
    assert host.apply(state="absent")["changed"]
    assert host.automatic == []


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"work_mem": "1kB"}, "between 64 and 2147483647 kB"),
        ({"work_mem": "8 gigs"}, "in B, kB, MB, GB, TB"),
        ({"wal_level": "high"}, "minimal, replica, logical"),
        ({"work_men": "8MB"}, "has no setting work_men"),
        ({"server_version": "9"}, "cannot be changed"),
        ({"data_directory": "/tmp"}, "cannot be changed"),
        ({"work_mem": ["8MB"]}, "is not a list"),
        ({"shared_preload_libraries": ["no_such_library"]}, "library no_such_library was not found"),
        ({"shared_preload_libraries": "a,,b"}, "separated by commas"),
        ({"archive_library": "no_such_archive"}, "library no_such_archive was not found"),
        ({"work_mem": "8MB", "autovacuum": "perhaps"}, "on or off"),
        ({"work_mem": 1, "WORK_MEM": 2}, "twice"),
    ],
)
def test_what_no_server_takes_is_refused_before_anything_is_written(
    server: Server, tmp_path: Path, values: dict[str, Any], said: str
) -> None:
    host = Host(server, tmp_path)
    assert said in str(host.refused(InvalidInput, **values))
    with pytest.raises(InvalidInput):
        host.set(check=True, **values)
    assert host.kept == []


def test_a_value_that_only_the_server_can_judge_leaves_nothing_behind(host: Host) -> None:
    error = host.refused(SettingsRefused, work_mem="8MB", log_timezone="Middle/Earth")
    assert "Middle/Earth" in str(error)
    assert host.show("work_mem") == "4MB"
    assert host.kept == []


def test_a_server_that_does_not_come_up_runs_again_as_before(host: Host) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        error = host.refused(SettingsRefused, restart="if_required", port=port, work_mem="8MB")
    assert "Address already in use" in str(error)
    error = host.refused(SettingsRefused, restart="if_required", shared_buffers="7TB")
    assert "memory" in str(error)
    assert (host.show("work_mem"), host.show("shared_buffers")) == ("4MB", "16MB")
    assert host.kept == []


def test_what_waits_and_cannot_be_is_not_tried(host: Host) -> None:
    host.server.value("ALTER SYSTEM SET shared_buffers = '7TB'")
    with pytest.raises(SettingsRefused, match="memory"):
        host.set(restart="if_required", shared_buffers="7TB")
    assert host.automatic == ["shared_buffers = '7TB'"]
    assert host.show("shared_buffers") == "16MB"


@pytest.mark.parametrize("moment", ["before the restart", "while the server is down"])
def test_a_killed_run_is_finished_or_undone_by_the_next(host: Host, moment: str) -> None:
    params = {**DEFAULTS, "prefix": str(host.prefix), "restart": "if_required", "settings": {"max_connections": 61}}
    arguments = [
        str(artifact.BUILD / "lib"),
        moment,
        str(host.server.socket_dir),
        str(host.server.port),
        repr(params),
    ]
    killed = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert "settings.journal.json" in host.kept
    if moment == "while the server is down":
        with pytest.raises(Unreachable):
            host.set(check=True)
    with pytest.raises(SettingsRefused):
        host.set(restart="if_required", shared_buffers="7TB")
    # Undone is what was never proven, too.
    assert (host.show("max_connections"), host.show("shared_buffers")) == ("50", "16MB")
    done = host.set(restart="if_required", max_connections=61)
    assert done["restarted"]
    assert host.show("max_connections") == "61"
    assert host.kept == ["before.json"]
    host.apply(state="absent", restart="if_required")
    assert (host.automatic, host.show("max_connections")) == ([], "50")


def test_what_was_before_is_forgotten_with_its_server_only(host: Host) -> None:
    place = {"socket_directory": str(host.server.socket_dir), "port": host.server.port, "prefix": str(host.prefix)}
    given = {**AGENT, **place, "python": sys.executable, "sources": BUNDLE}
    agent.converge(agent_arguments(given), False)
    host.set(work_mem="8MB")
    host.server.stop()
    with pytest.raises(Conflict, match=r"before\.json records the original"):
        agent.converge(agent_arguments({**given, "state": "absent"}), False)
    (warning,) = agent.converge(agent_arguments({**given, "state": "absent"}), True)["warnings"]
    assert "A run refuses" in warning
    shutil.rmtree(host.server.data_dir)
    predicted = agent.converge(agent_arguments({**given, "state": "absent"}), True)
    gone = agent.converge(agent_arguments({**given, "state": "absent"}), False)
    assert gone == predicted
    assert "These original settings cannot be restored: work_mem" in gone["warnings"][0]
    assert not Path(Layout("main", str(host.prefix)).data).exists()


def test_the_command_line_has_the_last_word(major: int, new_server: Callable[..., Server], tmp_path: Path) -> None:
    server = new_server(major)
    server.arguments = ("-cwork_mem=5MB",)
    host = Host(server.start(), tmp_path)
    assert "command line" in str(host.refused(Conflict, work_mem="8MB"))
    assert not host.set(work_mem="5120kB")["changed"]


def test_what_our_sessions_have_of_their_own_is_set_as_declared(host: Host) -> None:
    declared = {
        "work_mem": "5MB",
        "enable_sort": False,
        "default_transaction_read_only": True,
        "synchronous_commit": "remote_write",
        "statement_timeout": "7min",
        "idle_in_transaction_session_timeout": "5min",
        "search_path": "elsewhere",
        "quote_all_identifiers": True,
        "default_tablespace": "pg_default",
    }
    assert host.set(check=True, **declared)["changes"] == host.set(**declared)["changes"]
    assert not host.set(**declared)["changed"]
    assert (host.show("work_mem"), host.show("default_transaction_read_only")) == ("5MB", "on")
    assert host.set(**dict.fromkeys(declared))["changed"]
    assert not host.set(**dict.fromkeys(declared))["changed"]


def test_a_broken_file_is_named_with_its_line(host: Host) -> None:
    with (host.server.data_dir / "postgresql.conf").open("a") as file:
        file.write("work_mem = 'unfinished\n")
    line = len((host.server.data_dir / "postgresql.conf").read_text().splitlines())
    assert f"postgresql.conf, line {line}" in str(host.refused(Conflict, maintenance_work_mem="70MB"))


@pytest.mark.every_major(since=17)
def test_alter_system_may_be_forbidden(major: int, new_server: Callable[..., Server], tmp_path: Path) -> None:
    host = Host(new_server(major, settings={"allow_alter_system": "off"}).start(), tmp_path)
    assert "allow_alter_system" in str(host.refused(Conflict, work_mem="8MB"))


def test_over_the_network_there_is_no_restart(host: Host) -> None:
    target = Target(host="127.0.0.1", port=str(host.server.port), user="postgres")
    params = {**DEFAULTS, "instance": None, "prefix": "/", "settings": {"work_mem": "8MB", "max_connections": 62}}
    done = settings.converge(target, params, False)
    assert [one["name"] for one in done["pending"]] == ["max_connections"]
    assert host.show("work_mem") == "8MB"
    with pytest.raises(PgOpsError, match="server cannot be restarted"):
        settings.converge(target, {**params, "restart": "if_required"}, False)
    assert host.show("max_connections") == "50"


def test_nobody_but_a_superuser(host: Host) -> None:
    host.server.value("CREATE ROLE clerk LOGIN")
    target = Target(host=str(host.server.socket_dir), port=str(host.server.port), user="clerk", password="x")
    with pytest.raises(PermissionMissing, match="clerk is not a superuser"):
        settings.converge(target, {**DEFAULTS, "prefix": "/", "settings": {"work_mem": "8MB"}}, False)


def test_a_standby_never_has_less_than_its_primary(
    host: Host, keep: Callable[[Server], Server], tmp_path: Path
) -> None:
    (tmp_path / "standby").mkdir()
    standby = Host(keep(host.server.standby()).start(), tmp_path / "standby")
    done = standby.set(restart="if_required", max_connections=40, work_mem="8MB")
    (waiting,) = done["deferred"]
    assert (waiting["name"], waiting["wanted"], waiting["running"]) == ("max_connections", "40", "50")
    assert done["changes"] == ["update setting work_mem"]
    raised: dict[str, Any] = {"settings": {"max_connections": 60}, "restart": "if_required"}
    done = standby.apply(**raised)
    assert done["restarted"]
    assert standby.show("max_connections") == "60"
    known = {"name": "db2/main", "host": "127.0.0.1", "port": standby.server.port, "limits": done["limits"]}
    assert host.apply(**raised, peers=[known])["restarted"]


def test_what_a_standby_cannot_be_leaves_it_a_standby(
    host: Host, keep: Callable[[Server], Server], tmp_path: Path
) -> None:
    (tmp_path / "standby").mkdir()
    standby = Host(keep(host.server.standby()).start(), tmp_path / "standby")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        standby.refused(SettingsRefused, restart="if_required", port=taken.getsockname()[1], work_mem="8MB")
    standby.refused(SettingsRefused, restart="if_required", shared_buffers="7TB")
    standby.refused(InvalidInput, restart="if_required", shared_preload_libraries=["nonesuch"])
    standby.refused(InvalidInput, restart="if_required", work_mem="1kB")
    assert (standby.show("work_mem"), standby.show("shared_buffers")) == ("4MB", "16MB")
    assert standby.server.value("SELECT pg_is_in_recovery()") is True
    streams = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"
    until(lambda: standby.server.value(streams), "streaming", 1)


@pytest.mark.every_major(since=18)  # of older ones no pg_controldata is here
def test_a_standby_lowers_what_its_primary_has_lowered(
    host: Host, keep: Callable[[Server], Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, tools = controldata.read, str(host.server.client_dir)
    monkeypatch.setattr(controldata, "read", lambda server: read(replace(server, bin_directory=tools)))
    (host.prefix / "standby").mkdir()
    standby = Host(keep(host.server.standby()).start(), host.prefix / "standby")
    wanted = {"settings": {"max_connections": 40}, "restart": "if_required", "after_primary": True}
    assert standby.apply(check=True, **wanted)["restarted"]
    assert host.set(restart="if_required", max_connections=40)["restarted"]
    done = standby.apply(**wanted)
    assert (done["restarted"], done["deferred"]) == (True, [])
    assert standby.show("max_connections") == "40"


@pytest.fixture(name="cluster")
def _cluster() -> Iterator[Target]:
    """One of Debian's clusters on a host that systemd does not run, where pg_ctlcluster restarts it."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_controldata"))
    if os.geteuid() or not programs or not shutil.which("pg_createcluster") or os.path.isdir("/run/systemd/system"):
        pytest.skip("needs root, Debian's packages of a server, and a host without systemd")
    major, port = programs[-1].parts[4], str(free_port())
    name = f"test{os.getpid()}"
    try:
        subprocess.run(["pg_createcluster", "-p", port, major, name, "--", "--locale", "C"], check=True)
        subprocess.run(["pg_ctlcluster", major, name, "start"], check=True)
        yield Target(host="/var/run/postgresql", port=port)
    finally:
        subprocess.run(["pg_dropcluster", "--stop", major, name], check=True)


def test_a_cluster_of_debians_is_restarted_by_its_own_command(cluster: Target, tmp_path: Path) -> None:
    def apply(**values: Any) -> dict[str, Any]:
        params = {**DEFAULTS, "prefix": str(tmp_path), "settings": values, "restart": "if_required"}
        return settings.converge(cluster, params, False)

    assert apply(max_connections=130)["restarted"]
    with pytest.raises(SettingsRefused, match="cannot be allocated"):
        apply(shared_buffers="7TB")
    (start,) = Path("/etc/postgresql").glob(f"*/test{os.getpid()}/start.conf")
    start.write_text("disabled\n")
    with pytest.raises(Conflict, match=r"start\.conf .* says disabled.*Nothing was changed"):
        apply(max_connections=140)
    assert apply(max_connections=130)["changed"] is False
    start.write_text("manual\n")
    assert apply(max_connections=140)["restarted"]
