# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who works on a repository: the server's user alone. What root could do is not needed, what another user made is not
taken, and what the server could not do is known before its settings change."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import artifact
import pytest
from archives import DEFAULTS, Host
from servers import Server
from waiting import until

from pgops.errors import Conflict, HostFailed

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can work as another user")

LESS = ("setpriv", "--bounding-set=-dac_override,-dac_read_search,-chown,-fowner")
"""Root as an NFS server with root_squash sees it: no more rights on others' files than anybody."""
RUN = """
import json, sys
sys.path[:0] = json.loads(sys.argv[1])
from pgops.repository import deploy
from pgops.server.target import Target
place, params = json.load(sys.stdin)
print(json.dumps(deploy.converge(Target(**place), params, False)))
"""


def squashed(host: Host) -> dict[str, object]:
    """What pg_ops_archiving returns where root has no rights on the files of others."""
    host.install_program()
    place = {"host": str(host.server.socket_dir), "port": str(host.server.port), "user": host.server.superuser}
    params = {**DEFAULTS, "repository": str(host.repository), "prefix": str(host.prefix), **host.params}
    asked = json.dumps([place, params])
    paths = json.dumps([str(artifact.LIBRARY.parent), *sys.path])
    command = [*LESS, sys.executable, "-c", RUN, paths]
    done = subprocess.run(command, input=asked, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def own(path: Path, server: Server, mode: int) -> None:
    shutil.chown(path, server.os_user)
    path.chmod(mode)


@pytest.mark.parametrize("layout", ["the parent is its own", "the repository was made for it"])
def test_where_root_has_no_rights_the_servers_user_does_it_all(make: Callable[..., Host], layout: str) -> None:
    host = make()
    if layout == "the parent is its own":
        own(host.base, host.server, 0o700)
    else:
        host.repository.mkdir()
        own(host.repository, host.server, 0o700)
    done = squashed(host)
    assert (done["restarted"], done["proven"]) == (True, True)
    assert squashed(host)["changed"] is False
    made = [host.repository, *host.repository.rglob("*")]
    assert {path.owner() for path in made} == {host.server.os_user}
    assert not [path for path in made if path.name.startswith(".")]


def test_where_nobody_may_make_the_repository_it_is_said_how(make: Callable[..., Host]) -> None:
    host = make()
    shutil.chown(host.base, "postgres")
    host.install_program()
    with pytest.raises(AssertionError, match="install -d -m 0750 -o nobody"):
        squashed(host)
    assert host.server.value("SHOW archive_mode") == "off"


@pytest.mark.parametrize("step", ["link", "replace", "rename"])
def test_a_repository_that_a_killed_run_has_left_half_made_is_completed(
    make: Callable[..., Host], step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make()
    with monkeypatch.context() as patched:
        patched.setattr(os, step, lambda *_names, **_places: os.kill(os.getpid(), signal.SIGKILL))
        with pytest.raises(HostFailed, match="did not end"):
            host.apply()
    assert not (host.repository / "repository.json").exists()
    assert host.repository.exists()
    host.apply(check=True)
    assert host.apply()["proven"]
    assert sorted(path.name for path in host.repository.iterdir() if path.is_file()) == ["repository.json"]


@pytest.mark.parametrize("owner", ["54321", "postgres"])
def test_what_belongs_to_another_user_is_a_conflict_and_stays_so(make: Callable[..., Host], owner: str) -> None:
    """As on a file system that nodes share whose servers run with another uid."""
    host = make()
    host.apply()
    uid = int(owner) if owner.isdigit() else shutil._get_uid(owner)  # type: ignore[attr-defined]
    places = [host.repository, host.repository / "repository.json", next(host.repository.glob("*/wal"))]
    places.append(max(path for path in places[-1].iterdir() if path.is_dir()))
    for place in places:
        os.chown(place, uid, -1)
        for check in (True, False):
            with pytest.raises(Conflict, match=f"{place} belongs to user {owner}") as caught:
                host.apply(check=check)
            assert "same uid on all nodes" in caught.value.hint
        assert place.stat().st_uid == uid
        shutil.chown(place, host.server.os_user)
    assert not host.apply()["changed"]


def test_a_standby_that_could_not_write_after_a_failover_is_refused(
    make: Callable[..., Host], keep: Callable[[Server], Server]
) -> None:
    host = make()
    host.apply()
    other = Host(keep(host.server.standby()).start(), host.base, host.prefix, {"instance": "standby"})
    shutil.chown(host.repository, "postgres")
    assert "belongs to user postgres" in other.refused(Conflict)
    shutil.chown(host.repository, host.server.os_user)
    # It is tried, and not concluded from who owns what.
    wal = next(host.repository.glob("*/wal"))
    wal.chmod(0o550)
    assert "Permission denied" in other.refused(HostFailed)
    wal.chmod(0o750)
    assert other.apply()["proven"] is None


def test_a_server_is_not_restarted_for_a_program_that_its_user_cannot_run(make: Callable[..., Host]) -> None:
    host = make()
    started = host.server.value("SELECT pg_postmaster_start_time()")
    inside = host.prefix / "home"
    inside.mkdir()
    shutil.copy("/usr/bin/python3", inside / "python3")
    inside.chmod(0o700)
    host.install_program()
    good = host.program.read_text()
    host.program.write_text(good.replace("#!/usr/bin/python3", f"#!{inside}/python3"))
    said = host.refused(HostFailed)
    assert "its settings were not changed" in said
    assert "pgops_python" in said
    assert not host.repository.exists()
    assert host.server.value("SELECT pg_postmaster_start_time()") == started
    host.program.write_text(good)
    assert host.apply()["proven"]


def test_a_server_is_not_restarted_for_a_repository_that_would_not_take_its_wal(make: Callable[..., Host]) -> None:
    host = make()
    started = host.server.value("SELECT pg_postmaster_start_time()")
    host.registered = host.base
    with pytest.raises(HostFailed, match="is not the data directory of a node"):
        host.apply()
    assert host.server.value("SHOW archive_mode") == "off"
    assert host.server.value("SELECT pg_postmaster_start_time()") == started


@pytest.mark.parametrize("changed", ["program", "settings"])
def test_what_changed_is_proven_anew(make: Callable[..., Host], changed: str) -> None:
    """Statistics of before show nothing about it."""
    host = make()
    first = host.apply()["segment"]
    if changed == "program":
        host.program.write_text(host.program.read_text() + "# another\n")
    else:
        host.params["compression"] = "gzip"
    second = host.apply()
    assert second["proven"]
    assert second["segment"] > first
    # What was archived since then shows it, as soon as the statistics do.
    last = "SELECT last_archived_wal FROM pg_stat_archiver"
    until(lambda: host.server.value(last), "counted", second["segment"])
    assert host.apply()["segment"] == second["segment"]


def test_a_program_that_no_longer_archives_is_not_taken_for_proven(
    make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    host = make()
    host.apply()
    monkeypatch.setattr("pgops.repository.deploy.WAIT_FOR_SEGMENT", 3)
    good = host.program.read_bytes()
    host.program.write_text('#!/bin/sh\n[ "$1" = check ]\n')
    with pytest.raises(HostFailed, match="did not arrive in the repository"):
        host.apply()
    host.program.write_bytes(good)
    assert host.apply()["proven"]


# --- copies


def copied(host: Host) -> Server:
    """A copy of a server, made by pg_basebackup and promoted, as for tests, with the settings of its original."""
    copy = host.server.standby().start()
    until(lambda: copy.value("SELECT status FROM pg_stat_wal_receiver"), "streaming", "streaming")
    copy.promote()
    return copy


def test_a_promoted_copy_does_not_block_the_failover(
    make: Callable[..., Host], keep: Callable[[Server], Server]
) -> None:
    host = make()
    host.apply()
    standby = keep(host.server.standby()).start()
    other = Host(standby, host.base, host.prefix, {"instance": "standby"})
    other.apply()
    stray = keep(copied(host))
    assert str(stray.value("SHOW archive_command")) == host.server.value("SHOW archive_command")
    stray.value("SELECT pg_create_restore_point('here')")
    stray.value("SELECT pg_switch_wal()")
    until(lambda: stray.value("SELECT failed_count > 0 FROM pg_stat_archiver"), "refused")
    assert "is not the data directory of a node" in stray.logged()
    assert "archive_mode = off" in stray.logged()
    assert not [name for name in host.archived() if name.startswith("00000002")]
    host.server.stop()
    standby.promote()
    assert other.apply()["proven"]
    assert "00000002.history" in host.archived()
