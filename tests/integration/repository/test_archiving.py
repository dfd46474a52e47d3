# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""WAL arrives in the repository whole and once, whatever happens to the server, the archiver and the disk."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import binaries
import disks
import psycopg
import pytest
from archives import DEFAULTS, Host, digest
from deploying import AGENT, BUNDLE, agent_arguments, target
from servers import Server
from waiting import until

import playbooks
from pgops.agent import deploy as agent
from pgops.errors import Conflict, HostFailed, InvalidInput
from pgops.repository import deploy as archiving

MANY = int(os.environ.get("PGOPS_TEST_SEGMENTS", "120"))
"""How many segments the server is killed over; 10,000 before a release."""


@pytest.mark.every_major
@pytest.mark.parametrize("compression", ["none", "gzip"])
def test_wal_arrives_and_is_taken_back_out(make: Callable[..., Host], compression: str) -> None:
    host = make()
    predicted = host.apply(check=True, compression=compression)
    assert not host.repository.exists()
    done = host.apply(compression=compression)
    later = {"proven": None, "segment": None, "sessions_ended": predicted["sessions_ended"]}
    assert {**done, **later} == predicted
    assert (done["restarted"], done["proven"]) == (True, True)
    assert any(name.startswith(done["segment"]) for name in host.archived())
    again = host.apply(compression=compression)
    assert (again["changed"], again["proven"]) == (False, True)
    gone = host.apply(state="absent")
    assert gone["changed"]
    assert host.server.value("SHOW archive_mode") == "off"
    assert host.archived()


def test_nothing_is_restarted_unless_allowed(make: Callable[..., Host]) -> None:
    host = make()
    done = host.apply(restart="never")
    assert ([one["name"] for one in done["pending"]], done["proven"]) == (["archive_mode"], None)
    again = host.apply(restart="never")
    assert not again["changed"]
    assert host.apply()["proven"]


def test_archiving_of_others_is_left_alone(make: Callable[..., Host]) -> None:
    host = make(settings={"archive_mode": "on", "archive_command": "cp %p /elsewhere/%f"})
    said = host.refused(Conflict)
    assert "archive_command = cp %p /elsewhere/%f" in said
    assert "postgresql.conf, line" in said
    assert host.apply(replace=True)["proven"]
    host.apply(state="absent")
    assert host.server.value("SHOW archive_command") == "cp %p /elsewhere/%f"


def test_removal_keeps_wal_from_piling_up_until_the_restart(make: Callable[..., Host]) -> None:
    host = make()
    host.apply()
    command = host.server.value("SHOW archive_command")
    predicted = host.apply(check=True, restart="never", state="absent")
    gone = host.apply(restart="never", state="absent")
    assert gone == predicted
    ours = [f"remove setting {name}" for name in ("archive_mode", "archive_timeout", "restore_command")]
    assert (gone["changes"], gone["kept"]) == (ours, ["archive_command"])
    assert [one["name"] for one in gone["pending"]] == ["archive_mode"]
    (warning,) = gone["warnings"]
    assert "archive_command stays" in warning
    host.wait_for(host.switch())  # nothing is ever left in pg_wal for want of a command
    again = host.apply(restart="never", state="absent")
    assert (again["changed"], again["kept"], again["warnings"]) == (False, ["archive_command"], [warning])
    assert host.server.value("SHOW archive_command") == command
    assert host.apply(check=True, state="absent")["restarted"]
    host.server.stop()
    host.server.start()
    last = host.apply(restart="never", state="absent")
    assert (last["changes"], last["kept"]) == (["remove setting archive_command"], [])
    assert "archive" not in (host.server.data_dir / "postgresql.auto.conf").read_text()
    assert not Path(archiving.Layout("main", str(host.prefix)).before).exists()


def test_the_agent_stays_as_long_as_its_program_archives(root: Path, new_server: Callable[..., Server]) -> None:
    pytest.importorskip("ansible", reason="playbooks run on the controller only")
    host = Host(new_server(binaries.majors()[-1]).start(), root / "base", root / "prefix")
    place = {"socket_directory": str(host.server.socket_dir), "port": host.server.port, "prefix": str(host.prefix)}
    agent.converge(agent_arguments({**AGENT, **place, "python": sys.executable, "sources": BUNDLE}), False)
    host.apply()
    declared = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "pgops_become": False,
        "pgops_prefix": str(host.prefix),
        "pgops_discover": False,
        "pgops_login_user": host.server.superuser,
        "pgops_instances": [{"name": "main", **{key: place[key] for key in ("socket_directory", "port")}}],
    }
    inventory = root / "inventory.json"
    inventory.write_text(json.dumps({"all": {"hosts": {"db1": declared}}}))

    def remove(*options: str) -> playbooks.Run:
        run = playbooks.play(inventory, root, "pgops.fleet.remove", *options)
        assert run.code == 0, run.text
        return run

    predicted = remove("--check", "--diff")
    done = remove("--diff")
    assert done.changes == predicted.changes != {}
    assert "main: archive_command and the agent's directories stay" in done.text
    host.wait_for(host.switch())


def test_archiving_that_had_no_command_before_is_put_back_with_a_warning(make: Callable[..., Host]) -> None:
    host = make(settings={"archive_mode": "on"})
    assert host.apply()["proven"]
    gone = host.apply(state="absent")
    assert (host.server.value("SHOW archive_command"), gone["kept"]) == ("", [])
    assert "archive_mode is on without an archive_command" in gone["warnings"][0]


def test_repositories_of_others_are_left_alone(make: Callable[..., Host]) -> None:
    host = make()
    host.repository.mkdir()
    assert "belongs to user root" in host.refused(Conflict)
    shutil.chown(host.repository, host.server.os_user)
    (host.repository / "something").write_text("of somebody")
    assert "not empty" in host.refused(Conflict)
    shutil.rmtree(host.repository)
    assert "does not exist" in host.refused(Conflict, repository=str(host.base / "absent" / "shop"))
    assert "Nothing is mounted" in host.refused(Conflict, mount=str(host.base))
    assert "not below its mount" in host.refused(InvalidInput, mount="/proc")
    assert "inside the data directory" in host.refused(InvalidInput, repository=f"{host.server.data_dir}/shop")
    host.apply()
    assert "repository of cluster shop" in host.refused(Conflict, cluster="books")
    assert sorted(path.name for path in host.repository.iterdir() if path.is_dir()) == [
        path.parent.name for path in host.repository.glob("*/generation.json")
    ]


def test_another_server_does_not_slip_in(make: Callable[..., Host], new_server: Callable[..., Server]) -> None:
    host = make()
    host.apply()
    other = Host(new_server(host.server.major).start(), host.base, host.prefix, {"instance": "other"})
    assert "another server, or was created anew" in other.refused(Conflict)
    assert other.apply(another_server=True)["proven"]
    assert len(list(host.repository.glob("*/generation.json"))) == 2
    assert host.apply()["proven"]


def test_a_newer_version_opens_a_generation(root: Path, new_server: Callable[..., Server]) -> None:
    base = root / "base"
    for major in (15, 18):
        assert Host(new_server(major).start(), base, root / "prefix", {"instance": f"{major}-main"}).apply()["proven"]
    assert sorted(path.parent.name.rpartition("-")[2] for path in base.glob("shop/*/generation.json")) == ["15", "18"]


def test_a_promoted_standby_goes_on_in_the_same_repository(
    make: Callable[..., Host], keep: Callable[[Server], Server]
) -> None:
    host = make()
    host.apply()
    standby = keep(host.server.standby()).start()
    other = Host(standby, host.base, host.prefix, {"instance": "standby"})
    assert other.apply()["proven"] is None
    until(lambda: standby.value("SELECT status FROM pg_stat_wal_receiver"), "streaming", "streaming")
    host.switch()
    last = str(host.server.value("SELECT pg_current_wal_lsn()"))
    until(lambda: standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{last}'"), "replayed")
    host.server.stop()
    before = {name: digest(path) for name, path in host.archived().items()}
    standby.promote()
    assert other.apply()["proven"]
    after = {name: digest(path) for name, path in host.archived().items()}
    assert {name: after[name] for name in before} == before
    assert "00000002.history" in after
    name = other.switch()
    assert name.startswith("00000002")
    other.wait_for(name)


def test_a_standby_makes_no_repository_and_misses_its_primarys(
    make: Callable[..., Host], keep: Callable[[Server], Server]
) -> None:
    host = make()
    host.apply()
    (host.base / "elsewhere").mkdir()
    other = Host(keep(host.server.standby()).start(), host.base / "elsewhere", host.prefix, {"instance": "standby"})
    assert "warnings" not in other.apply()
    for check in (True, False):
        (warning,) = other.apply(check=check)["warnings"]
        assert "use different file systems" in warning
    assert not other.repository.exists()
    subprocess.run(["cp", "-a", host.repository, other.repository], check=True)
    assert "warnings" not in other.apply()


def test_an_unmounted_repository_is_not_written_to(make: Callable[..., Host]) -> None:
    host = make()
    host.apply()
    away = host.base / "away"
    host.repository.rename(away)
    host.repository.mkdir()
    host.repository.chmod(0o777)
    name = host.switch()
    failed = "SELECT failed_count > 0 FROM pg_stat_archiver"
    until(lambda: host.server.value(failed), "failed")
    assert list(host.repository.iterdir()) == []
    assert "is the repository mounted?" in host.server.logged()
    host.repository.rmdir()
    away.rename(host.repository)
    host.wait_for(name)


def test_a_full_repository_recovers_by_itself(root: Path, major: int, new_server: Callable[..., Server]) -> None:
    base = root / "base"
    with disks.small(base / "disk", "40m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        host = Host(new_server(major).start(), base / "disk", root / "prefix")
        host.apply(mount=str(base / "disk"))
        before = host.archived().keys()
        disks.fill(base / "disk")
        name = host.switch()
        until(lambda: host.server.value("SELECT failed_count > 0 FROM pg_stat_archiver"), "failed")
        # Nothing is dropped on either side to make room.
        assert name not in host.archived()
        assert before <= host.archived().keys()
        assert host.server.value(f"SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name = '{name}.ready'") == 1
        assert host.server.value(f"SELECT count(*) FROM pg_ls_waldir() WHERE name = '{name}'") == 1
        assert "No space left" in host.server.logged()
        (base / "disk" / "filler").unlink()
        host.wait_for(name)


def test_a_proof_that_fails_says_so(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    host = make()
    monkeypatch.setattr(archiving, "WAIT_FOR_SEGMENT", 3)
    host.apply(restart="never")
    program = Path(host.prefix) / "usr/local/lib/pgops/archiver"
    host.server.value("ALTER SYSTEM SET archive_mode = 'on'")
    host.server.stop()
    host.server.start()
    content = program.read_bytes()
    program.write_text("#!/bin/sh\nexit 7\n")
    with pytest.raises(HostFailed, match="did not arrive in the repository"):
        archiving._proof(target(host.server), _archive(host))
    program.write_bytes(content)
    assert host.apply()["proven"]


def _archive(host: Host) -> archiving.Archive:
    place = {"repository": str(host.repository), "prefix": str(host.prefix)}
    with archiving.connect(target(host.server)) as session:
        return archiving.read(session, {**DEFAULTS, **place}, archiving.Layout("main", str(host.prefix)))


def test_kills_at_random_moments_lose_tear_and_overwrite_nothing(make: Callable[..., Host]) -> None:
    host = make(initdb=("--wal-segsize=1",), settings={"wal_keep_size": "20GB", "max_wal_size": "1GB"})
    host.apply()
    # As a child of this test it is reaped when it is killed.
    host.server.stop()
    host.server.start()
    chance = random.Random(host.server.major)
    switched = []
    while len(switched) < MANY:
        with contextlib.suppress(psycopg.Error):
            switched.append(host.switch())
        if chance.random() < 0.1:
            _kill_something(host, chance)
    host.wait_for(host.switch_again())
    stored = host.archived()
    sent = {path.name: path for path in (host.server.data_dir / "pg_wal").iterdir() if path.name in stored}
    assert set(switched) <= set(stored)
    assert {name: digest(path) for name, path in sent.items()} == {name: digest(stored[name]) for name in sent}
    assert len(sent) >= MANY
    numbers = sorted(int(name[8:16], 16) * 4096 + int(name[16:], 16) for name in stored if len(name) == 24)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    until(lambda: not any(host.repository.glob("*/wal/**/.*")), "swept")


def _kill_something(host: Host, chance: random.Random) -> None:
    """SIGKILL for the program of archive_command, for the archiver, or for the whole server."""
    victim = chance.choice(("program", "archiver", "server"))
    if victim == "server":
        host.server.kill()
        host.server.start()
        return
    marks = {"program": f"archiver push {host.repository}", "archiver": "archiver"}
    deadline = time.monotonic() + 0.3
    while time.monotonic() < deadline:
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                ours = Path(os.readlink(entry / "cwd")) == host.server.data_dir
                if ours and marks[victim] in words and (victim == "program" or words.startswith("postgres:")):
                    os.kill(int(entry.name), signal.SIGKILL)
                    return
