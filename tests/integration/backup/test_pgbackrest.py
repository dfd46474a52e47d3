# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The engine pgbackrest: backups in a stanza are taken, told, verified, expired and restored as all others are."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import binaries
import disks
import pytest
from backed import flip, own, put_back
from backing import SMALL_SEGMENTS
from deploying import deploy
from servers import Server
from stanzas import MAJOR, Kept, host, program
from waiting import until

import playbooks
from pgops.errors import Conflict, HostFailed, InvalidInput, PgOpsError, Unsupported
from pgops.host.identity import as_user
from pgops.instance.layout import Layout
from pgops.repository import backups, wal

Make = Callable[..., Kept]


@pytest.fixture(name="make_kept")
def _make_kept(root: Path, new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch) -> Iterator[Make]:
    if MAJOR not in binaries.majors():
        pytest.skip(f"pgBackRest is tried with PostgreSQL {MAJOR}")
    monkeypatch.setenv("PATH", f"{program().parent}{os.pathsep}{os.environ['PATH']}")

    made: list[Kept] = []

    def make(params: dict[str, Any] | None = None, **declared: Any) -> Kept:
        server = new_server(MAJOR, initdb=SMALL_SEGMENTS).start()
        made.append(Kept.opened(host(root, server, **(params or {})), **declared))
        return made[-1]

    yield make
    for kept in made:
        for data in kept.restorer.made:
            kept.restorer.end(data)


def test_a_backup_is_taken_told_verified_and_restored(make_kept: Make) -> None:
    kept = make_kept()
    kept.bank.work()
    taken = kept.take()
    assert (taken["kind"], taken["errors"], taken["warnings"]) == ("full", [], [])
    made = kept.kept(taken).manifest
    (told,) = kept.told()
    assert (made.layout, made.method, made.stored_bytes) == (
        "stanza",
        "pgbackrest",
        told["info"]["repository"]["delta"],
    )
    before = kept.bank.work()
    kept.bank.work()
    kept.archive()
    assert _verified(kept) == 1
    restored = kept.restorer.restore(lsn=before.lsn)
    assert kept.restorer.state(restored) == before.state


def _verified(kept: Kept) -> int:
    """The number of backups that are verified, where nothing is wrong with any, and with their WAL."""
    done = kept.verify()
    assert (done["damaged"], done["wal_damaged"], done["errors"], done["warnings"]) == ({}, {}, [], [])
    assert done["wal_verified"] > 0
    return int(done["verified"])


def test_incremental_backups_add_to_others_and_restore_with_tablespaces(make_kept: Make) -> None:
    kept = make_kept(incremental=True)
    space = kept.server.directory / "space"
    space.mkdir()
    own(space, kept.server)
    kept.server.psql(f"CREATE TABLESPACE here LOCATION '{space}'")
    kept.server.psql("CREATE TABLE far TABLESPACE here AS SELECT n FROM generate_series(1, 1000) AS n")
    kept.bank.work()
    full, more = kept.take(), kept.take("incremental")
    kept.server.psql("INSERT INTO far VALUES (0)")
    moment = kept.bank.work()
    last = kept.take("differential")
    assert [one["kind"] for one in (full, more, last)] == ["full", "incremental", "differential"]
    assert (more["parent"], last["parent"]) == (full["backup"], full["backup"])
    assert kept.take()["kind"] == "incremental"
    place = kept.host.base / "elsewhere"
    place.mkdir()
    own(place, kept.server)
    restored = kept.restorer.restore(immediate=True, tablespace_map={str(space): str(place / "space")})
    assert kept.restorer.state(restored) == moment.state
    assert kept.restorer.value(restored, "SELECT count(*) FROM far") == 1001
    assert list((place / "space").iterdir())
    assert kept.restorer.value(restored, "SHOW archive_mode") == "off"


def test_each_target_is_reached_or_refused_before_a_byte_is_written(make_kept: Make) -> None:
    kept = make_kept()
    kept.bank.work()
    kept.take()
    first = kept.bank.work()
    kept.bank.point("there")
    last = kept.bank.work()
    kept.archive()
    for asked, state in (
        ({"time": first.time.isoformat()}, first.state),
        ({"name": "there"}, first.state),
        ({"xid": last.xid}, last.state),
        ({"latest": True}, last.state),
    ):
        assert kept.restorer.state(kept.restorer.restore(**asked)) == state, asked
    directory = kept.restorer.directory()
    with pytest.raises(InvalidInput, match=r"cannot be reached"):
        kept.restorer.restore(directory=directory, time="2090-01-01 00:00:00Z")
    with pytest.raises(InvalidInput, match=r"before the end of the first backup"):
        kept.restorer.restore(directory=directory, time="2000-01-01 00:00:00Z")
    assert not directory.exists()


def test_the_catalogue_tells_of_backups_windows_and_wal(make_kept: Make) -> None:
    kept = make_kept()
    taken = kept.take()
    segment = kept.archive()
    assert kept.catalogued()["errors"] == []
    query = "SELECT to_jsonb(h) FROM pgops.backup_history AS h"
    told = kept.server.value(query, "pgops")
    assert isinstance(told, dict)
    made = kept.kept(taken).manifest
    assert (told["backup_id"], told["status"], told["backup_method"]) == (taken["backup"], "completed", "pgbackrest")
    assert (told["backup_file_size"], told["checksum"]) == (made.stored_bytes, None)
    status = f"SELECT status FROM pgops.wal_archive_status WHERE wal_filename = '{segment}'"
    assert kept.server.value(status, "pgops") == "archived"
    assert kept.server.value("SELECT recoverable FROM pgops.recovery_status", "pgops") is True
    assert kept.server.value("SELECT count(*) FROM pgops.recovery_windows", "pgops") == 1
    before = kept.catalogued()
    assert (before["noted"], before["errors"]) == (0, [])
    kept.stored(f"{segment}-*").unlink()
    assert segment in " ".join(kept.catalogued()["errors"])


def test_retention_removes_backups_and_then_their_wal(make_kept: Make) -> None:
    kept = make_kept(incremental=True)
    kept.bank.work()
    old, older = kept.take("full"), kept.take("incremental")
    kept.bank.work()
    kept.archive()
    young = kept.take("full")
    kept.bank.work()
    last = kept.archive()
    retention = {"full_days": 1, "other_days": 1, "minimum_full": 1, "later": 2}
    foreseen = kept.expire(dry_run=True, **retention)
    assert len(kept.told()) == 3
    done = kept.expire(**retention)
    assert [one["backup"] for one in done["removed"]] == [older["backup"], old["backup"]]
    assert done["errors"] == []
    assert (foreseen["removed"], foreseen["wal_removed"]) == (done["removed"], done["wal_removed"])
    assert foreseen["window_after"] == done["window_after"]
    assert [one["annotation"]["pgops"].count(young["backup"]) > 0 for one in kept.told()] == [True]
    assert done["wal_removed"] > 0
    assert kept.expire(**retention)["wal_removed"] == 0
    first = kept.kept(young).manifest
    assert kept.stored(f"{last}-*")
    assert _verified(kept) == 1
    assert kept.catalogued()["errors"] == []
    assert kept.restorer.restore(latest=True)["backup"]["id"] == first.id


def test_a_pinned_backup_stays_with_its_wal(make_kept: Make) -> None:
    kept = make_kept()
    state = kept.bank.work().state
    pinned = kept.take()
    kept.bank.work()
    kept.archive()
    kept.take()
    kept.archive()
    as_user(kept.user, lambda: backups.pin(str(kept.place), pinned["name"], "audit"), 60.0)
    done = kept.expire(full_days=1, minimum_full=1, later=2)
    assert (done["removed"], done["errors"]) == ([], [])
    assert done["wal_removed"] > 0
    assert kept.verify()["verified"] == 2
    assert kept.catalogued()["errors"] == []
    restored = kept.restorer.restore(lsn=wal.lsn(kept.kept(pinned).manifest.stop_lsn), end="paused")
    assert restored["backup"]["id"] == pinned["backup"]
    assert kept.restorer.state(restored) == state


def test_damage_is_told_and_not_restored(make_kept: Make) -> None:
    kept = make_kept()
    kept.bank.work()
    taken = kept.take()
    first = wal.name(1, kept.kept(taken).manifest.start_lsn >> 20, 1 << 20)
    with put_back(kept.stored("1255")) as path:
        flip(path)
        (error,) = kept.verify()["errors"]
        assert "1 with a wrong checksum" in error
        with pytest.raises(HostFailed, match=r"can be restored: .*1 with a wrong checksum"):
            kept.restorer.restore(immediate=True)
    assert kept.verify()["errors"] == []
    with put_back(kept.stored(f"{first}-*")) as path:
        flip(path)
        assert first in kept.verify()["errors"][0]
        path.unlink()
        assert f"WAL segment {first} is missing" in kept.verify()["errors"][0]
    assert kept.verify()["errors"] == []


def test_a_damaged_segment_between_backups_is_told_and_not_recovered_through(make_kept: Make) -> None:
    kept = make_kept()
    kept.take()
    kept.bank.work()
    before = kept.archive()
    kept.bank.work()
    name = kept.archive()
    kept.bank.work()
    kept.archive()
    assert kept.catalogued()["errors"] == []
    recoverable = "SELECT recoverable FROM pgops.recovery_status"
    # The server is not needed for it.
    kept.server.stop()
    with put_back(kept.stored(f"{name}-*")) as path:
        flip(path)
        done = kept.verify()
        assert (done["verified"], list(done["wal_damaged"])) == (1, [name])
        assert f"WAL segment {name}" in done["errors"][0]
        assert any("cannot be asked" in warning for warning in done["warnings"])
        # Nothing is due: pgBackRest is not asked, and what it has found stays.
        assert kept.verify(due=True)["wal_damaged"] == done["wal_damaged"]
        with pytest.raises(InvalidInput, match=f"segment {name} is damaged"):
            kept.restorer.restore(latest=True)
        size = 1 << 20
        end = wal.place(before, size)
        assert end
        assert kept.restorer.restore(lsn=wal.lsn(end.lsn))["backup"]
        kept.server.start()
        kept.catalogued()
        status = f"SELECT status FROM pgops.wal_archive_status WHERE wal_filename = '{name}'"
        assert (kept.server.value(status, "pgops"), kept.server.value(recoverable, "pgops")) == ("failed", False)
    os.utime(kept.stored(f"{name}-*"), (1, 1))  # as a copy from elsewhere
    assert kept.verify(due=True)["wal_damaged"] == {}
    assert _verified(kept) == 1
    kept.catalogued()
    assert kept.server.value(recoverable, "pgops") is True
    assert kept.restorer.restore(latest=True)["backup"]


def test_wal_that_cannot_be_replayed_is_seen_in_the_plan(make_kept: Make) -> None:
    """That of the backup is looked at by the plan itself, and the last by the search for a commit."""
    kept = make_kept()
    taken = kept.take()
    kept.bank.work()
    first, last = wal.name(1, kept.kept(taken).manifest.start_lsn >> 20, 1 << 20), kept.archive()
    directory = kept.restorer.directory()
    for name, asked, told in (
        (first, {"immediate": True}, "cannot be replayed"),
        (last, {"latest": True}, "cannot be reached"),
    ):
        with put_back(kept.stored(f"{name}-*")) as path:
            flip(path)
            with pytest.raises(PgOpsError, match=f"{told}.*{name}"):
                kept.restorer.restore(directory=directory, **asked)
    assert not directory.exists()


def test_what_is_not_due_is_not_verified(make_kept: Make) -> None:
    kept = make_kept()
    kept.take()
    done = kept.verify(due=True)
    assert (done["verified"], done["wal_verified"], done["errors"]) == (0, 0, [])
    now = datetime.now(timezone.utc) - timedelta(days=30)
    (one,) = kept.listing.backups
    as_user(kept.user, lambda: backups.note_checked(str(kept.place), one.name, [], now))
    done = kept.verify(due=True)
    assert (done["verified"], done["errors"]) == (1, [])
    assert done["wal_verified"] > 0


def test_a_backup_has_what_a_restore_asks_of_its_host_and_tells_its_time(make_kept: Make) -> None:
    kept = make_kept(incremental=True)
    kept.take()
    kept.bank.work()
    last = kept.take("incremental")
    assert last["wal_reserve_bytes"] > 0
    assert kept.kept(last).manifest.environment["preloaded"] == []
    (noted,) = [one["annotation"]["pgops"] for one in kept.told() if last["backup"] in one["annotation"]["pgops"]]
    assert json.loads(noted)["environment"]["preloaded"] == []
    restored = kept.restorer.restore(immediate=True)
    # pgBackRest combines while it copies.
    assert "combine" not in {one["part"] for one in restored["predicted"]["parts"]}
    assert {"copy", "recover"} <= {one["phase"] for one in restored["phases"]}


def test_wal_that_is_encrypted_and_not_compressed_is_archived(make_kept: Make) -> None:
    """Its files are larger than segments."""
    secrets = {"repo1-cipher-pass": "correct horse battery"}
    cipher = {"repo1-cipher-type": "aes-256-cbc"}
    kept = make_kept({"pgbackrest": cipher, "pgbackrest_secrets": secrets, "compression": "none"})
    segment = kept.archive()
    assert kept.stored(f"{segment}-*").stat().st_size > 1 << 20
    assert kept.catalogued()["errors"] == []
    status = f"SELECT status FROM pgops.wal_archive_status WHERE wal_filename = '{segment}'"
    assert kept.server.value(status, "pgops") == "archived"


def test_a_killed_backup_leaves_nothing_that_counts(make_kept: Make) -> None:
    kept = make_kept()
    kept.server.psql(
        "CREATE TABLE big AS SELECT n, repeat(md5(n::text), 20) AS t FROM generate_series(1, 60000) AS n"
    )
    child = os.fork()
    if not child:
        try:
            os.setpgid(0, 0)
            kept.take()
        finally:
            os._exit(0)
    until(lambda: list(kept.host.repository.glob("pgbackrest/backup/shop/*/*")), "a backup began")
    # The agent, and the program that it has started.
    os.killpg(child, signal.SIGKILL)
    os.waitpid(child, 0)
    until(lambda: not kept.busy(), "the lock is free")
    done = kept.take("full")
    assert (done["errors"], kept.kept(done).manifest.kind) == ([], "full")
    known = {kept.kept({"backup": one}).manifest.id for one in kept.listing.by_id()}
    assert {json.loads(one["annotation"]["pgops"])["id"] for one in kept.told()} == known
    assert kept.verify()["errors"] == []


def test_what_others_take_and_remove_is_seen(make_kept: Make) -> None:
    kept = make_kept()
    kept.bank.work()
    kept.run("backup", "--type=full")
    first = kept.take("full")
    others = [one for one in kept.listing.backups if one.manifest.id != first["backup"]]
    assert [(one.manifest.kind, one.manifest.compression) for one in others] == [("full", "unknown")]
    assert _verified(kept) == 2
    (label,) = [one["label"] for one in kept.told() if "annotation" not in one]
    kept.run("expire", f"--set={label}")
    assert "no longer has it" in kept.verify()["errors"][0]
    kept.take("full")
    assert [one.name for one in kept.listing.backups if one.problems] == [others[0].name]


def test_a_repository_that_is_away_stops_all_and_loses_nothing(make_kept: Make) -> None:
    kept = make_kept()
    kept.bank.work()
    taken = kept.take()
    inside = kept.host.repository / "pgbackrest"
    away = inside.rename(kept.host.repository / "away")
    for work in (kept.take, kept.verify, kept.catalogued, lambda: kept.restorer.restore(latest=True)):
        assert "missing stanza path" in _error(work)
    assert not inside.exists()
    away.rename(inside)
    kept.archive()
    assert kept.verify()["verified"] == 1
    assert kept.restorer.restore(latest=True)["backup"]["id"] == taken["backup"]


def _error(work: Callable[[], dict[str, Any]]) -> str:
    """The error that something ends with, or tells."""
    try:
        return " ".join(work()["errors"])
    except HostFailed as error:
        return str(error)


def test_an_encrypted_repository_is_read_with_its_passphrase_only(make_kept: Make) -> None:
    secrets = {"repo1-cipher-pass": "correct horse battery"}
    kept = make_kept({"pgbackrest": {"repo1-cipher-type": "aes-256-cbc"}, "pgbackrest_secrets": secrets})
    state = kept.bank.work().state
    kept.take()
    kept.bank.work()
    kept.archive()
    content = kept.stored("1255").read_bytes()
    assert content[:8] == b"Salted__"
    assert kept.verify()["errors"] == []
    assert kept.catalogued()["errors"] == []
    immediate = kept.restorer.restore(immediate=True)
    assert kept.restorer.state(immediate) == state
    conf = Path(kept.layout.pgbackrest)
    assert conf.stat().st_mode & 0o777 == 0o640
    with put_back(conf):
        conf.write_text(conf.read_text().replace("correct horse", "wrong horse"))
        with pytest.raises(HostFailed, match=r"cannot be read") as caught:
            kept.take()
        assert "horse" not in str(caught.value)
    changed = kept.host.apply(check=True, pgbackrest_secrets={"repo1-cipher-pass": "another"})
    assert "another" not in json.dumps(changed).replace("another (hidden)", "")
    assert "horse" not in json.dumps(changed)


def test_a_version_that_pgbackrest_does_not_know_is_refused(
    make_kept: Make, root: Path, new_server: Callable[..., Server]
) -> None:
    make_kept()
    newest = binaries.majors()[-1]
    other = host(root, new_server(newest).start())
    other.base = root / "other"
    other.base.mkdir()
    assert f"does not support PostgreSQL {newest}" in other.refused(Unsupported)
    assert not other.repository.exists()


def test_the_stanza_of_another_server_is_refused(
    make_kept: Make, root: Path, new_server: Callable[..., Server]
) -> None:
    kept = make_kept()
    stanza = kept.host.repository / "pgbackrest"
    other = host(root, new_server(MAJOR).start(), pgbackrest={"repo1-path": str(stanza)})
    other.base, other.prefix = root / "other", root / "other-prefix"
    other.base.mkdir()
    Path(Kept(other).layout.keeping).mkdir(parents=True)
    own(other.base, other.server)
    own(other.prefix, other.server)
    assert "belongs to another server" in other.refused(Conflict)
    kept.archive()


def test_engines_follow_each_other_and_keep_what_the_other_has(make_kept: Make) -> None:
    kept = make_kept()
    kept.bank.work()
    first = kept.take()
    there = kept.bank.work()
    changed = kept.host.apply(engine="native")
    assert "from now on" in changed["warnings"][0]
    kept.declared["engine"] = "native"
    moment = kept.bank.work()
    kept.bank.work()
    kept.host.wait_for(kept.host.switch())
    assert kept.restorer.state(kept.restorer.restore(lsn=there.lsn)) == there.state
    # The WAL goes on in the other place.
    restored = kept.restorer.restore(lsn=moment.lsn)
    assert (kept.restorer.state(restored), restored["backup"]["id"]) == (moment.state, first["backup"])
    with pytest.raises(Conflict, match=r"not archived into"):
        kept.take(engine="pgbackrest")
    assert kept.host.apply()["warnings"][0].startswith("WAL goes into the stanza")
    assert kept.catalogued()["errors"] == []
    kept.declared["engine"] = "pgbackrest"
    assert kept.take()["kind"] == "full"
    assert _verified(kept) == 2


def test_a_second_run_changes_nothing_and_a_prediction_is_what_a_run_does(make_kept: Make, root: Path) -> None:
    kept = make_kept()
    again = kept.host.apply()
    assert (again["changed"], again["proven"]) == (False, True)
    elsewhere = root / "base" / "elsewhere"
    options = {"pgbackrest": {"repo1-path": str(elsewhere)}}
    before = Path(kept.layout.pgbackrest).read_bytes()
    with pytest.raises(HostFailed, match=r"unable to create path"):
        kept.host.apply(**options)
    # The server goes on to archive as before.
    assert Path(kept.layout.pgbackrest).read_bytes() == before
    kept.archive()
    elsewhere.mkdir()
    own(elsewhere, kept.server)
    foreseen = kept.host.apply(check=True, **options)
    done = kept.host.apply(**options)
    assert foreseen["changed"]
    assert foreseen["prediction"] == done["prediction"]
    kept.bank.work()
    assert kept.take()["kind"] == "full"
    assert (elsewhere / "backup" / "shop").is_dir()


def test_a_successor_upgrades_the_stanza_and_the_former_server_can_be_restored(
    make_kept: Make, new_server: Callable[..., Server]
) -> None:
    kept = make_kept()
    state = kept.bank.work().state
    former = kept.place.parent.name
    old = kept.take()
    kept.server.stop()
    server = new_server(MAJOR, initdb=SMALL_SEGMENTS).start()
    successor = Kept(replace(kept.host, server=server), {"engine": "pgbackrest"})
    assert "created anew" in successor.host.refused(Conflict)
    successor.host.apply(another_server=True)
    deploy(server, backup=True)
    taken = successor.take()
    assert (taken["errors"], len(successor.told())) == ([], 2)
    done = successor.expire(full_days=1, minimum_full=1, later=2)
    assert (done["errors"], done["removed"], done["wal_removed"]) == ([], [], 0)
    assert successor.catalogued()["errors"] == []
    restored = kept.restorer.restore(immediate=True, generation=former)
    assert (restored["backup"]["id"], kept.restorer.state(restored)) == (old["backup"], state)


def test_a_full_disk_is_refused_before_anything_is_copied(make_kept: Make, root: Path) -> None:
    kept = make_kept()
    with disks.small(root / "disk", "40m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        inside = kept.host.repository / "pgbackrest"
        shutil.copytree(inside, root / "disk" / "pgbackrest")
        own(root / "disk", kept.server)
        shutil.rmtree(inside)
        inside.symlink_to(root / "disk" / "pgbackrest")
        (root / "disk" / "ballast").write_bytes(bytes(24 << 20))
        with pytest.raises(HostFailed, match=r"MB free, and the backup needs"):
            kept.take()
        assert kept.told() == []
        kept.archive()


def test_playbooks_bring_it_take_a_backup_and_take_it_away_again(
    root: Path, new_server: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f"{program().parent}{os.pathsep}{os.environ['PATH']}")
    server = new_server(MAJOR, initdb=SMALL_SEGMENTS).start()
    own(root / "base", server)
    # Below a prefix all is who installs it's.
    keeping = Path(Layout("main", str(root / "prefix")).keeping)
    keeping.mkdir(parents=True)
    own(keeping, server)
    given = {
        "pgops_instances": [{"name": "main", "port": server.port, "socket_directory": str(server.socket_dir)}],
        "pgops_prefix": str(root / "prefix"),
        "pgops_schedule_backend": "none",
        "pgops_login_user": server.superuser,
        "pgops_user": server.os_user,
        "pgops_become": False,
        "pgops_restart": "if_required",
        "pgops_packages": [],
        "pgops_repository": str(root / "base"),
        "pgops_backup": True,
        "pgops_backup_engine": "pgbackrest",
        "pgops_pgbackrest": {"repo1-cipher-type": "aes-256-cbc"},
        "pgops_pgbackrest_secrets": {"repo1-cipher-pass": "sesame-open"},
    }
    hosts, variables = root / "hosts", root / "variables.json"
    hosts.write_text(f"here ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    variables.write_text(json.dumps(given))

    def play(playbook: str, *more: str) -> playbooks.Run:
        done = playbooks.play(hosts, root, f"pgops.fleet.{playbook}", "-e", f"@{variables}", *more)
        assert done.code == 0, done.text
        assert "sesame-open" not in done.text
        return done

    play("site", "-vvv", "--diff")
    assert not play("site", "--diff").changes
    play("backup")
    told = server.value("SELECT backup_method || ' ' || status FROM pgops.backup_history", "pgops")
    assert told == "pgbackrest completed"
    assert list(root.glob("base/*/pgbackrest/backup/*/*F/backup.manifest"))
    play("remove")
    assert server.value("SHOW archive_command") == "(disabled)"
    assert not (root / "prefix" / "etc" / "pgops" / "main").exists()


def _exit_code(words: str, directory: Path) -> int:
    """That of a shell's command, run in a directory."""
    return subprocess.run(["sh", "-c", words], cwd=directory, check=False).returncode


def test_a_promoted_standby_goes_on_in_the_stanza(
    make_kept: Make, root: Path, keep: Callable[[Server], Server]
) -> None:
    kept = make_kept()
    kept.bank.work()
    kept.take()
    standby = keep(kept.server.standby()).start()
    other = Kept(host(root, standby, instance="second"), {"engine": "pgbackrest"})
    Path(other.layout.keeping).mkdir(parents=True)
    own(Path(other.layout.keeping), standby)
    assert other.host.apply()["proven"] is None
    last = kept.archive()
    # It gets from the stanza what it cannot stream, and what is not there says so by 1.
    fetched = standby.data_dir / "fetched"
    command = str(standby.value("SHOW restore_command"))
    for name, code in ((last, 0), ("0000000100000000000000FE", 1)):
        words = command.replace("%f", name).replace("%p", str(fetched))
        done = as_user(kept.user, partial(_exit_code, words, standby.data_dir), 60.0)
        assert (done, fetched.exists()) == (code, code == 0)
        fetched.unlink(missing_ok=True)
    assert "standby" in other.take()["skipped"]
    kept.server.stop()
    standby.promote()
    other.host.apply()
    moment = other.bank.work()
    other.bank.work()
    other.archive()
    restored = other.restorer.restore(lsn=moment.lsn)
    assert (restored["timeline"], other.restorer.state(restored)) == (2, moment.state)
    done = other.take(incremental=True)
    assert done["kind"] == "full"
    assert "is on timeline 2" in done["why"]
    assert other.catalogued()["errors"] == []
    for data in other.restorer.made:
        other.restorer.end(data)
