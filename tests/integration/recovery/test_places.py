# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""In place and back, tablespaces, layouts, chains, and what killed restores leave."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import disks
import pytest
from backing import STATE, Bank, own
from restoring import Restorer
from waiting import until

from pgops.errors import Conflict, HostFailed, PgOpsError
from pgops.host.identity import as_user
from pgops.recovery import copying, place, restore
from pgops.recovery.place import Place
from pgops.repository import backups
from pgops.server import discovery


def tree(path: Path) -> dict[str, bytes]:
    """All files below a directory, with their contents."""
    return {str(one.relative_to(path)): one.read_bytes() for one in path.rglob("*") if one.is_file()}


def test_in_place_and_on(bank: Bank, restorer: Restorer) -> None:
    bank.work()
    bank.backup()
    moment = bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    fetch = bank.server.value("SHOW restore_command")
    bank.server.stop()
    before = tree(bank.server.data_dir)
    found = restorer.restore(directory=bank.server.data_dir, in_place=True, time=moment.time.isoformat())
    assert found["warnings"] == []
    aside = Path(found["moved"][str(bank.server.data_dir)])
    assert tree(aside) == before
    assert "00000002.history" in bank.host.archived()
    bank.server.start()
    assert bank.server.value(STATE) == moment.state
    assert bank.server.value("SHOW archive_mode") == "on"
    assert bank.server.value("SHOW restore_command") == fetch
    assert bank.server.value("SHOW recovery_target_time") == ""
    # The new line can be restored as well, and the old one is named by its number.
    later = bank.work()
    bank.archive()
    again = restorer.restore(latest=True)
    assert restorer.state(again) == later.state
    assert again["timeline"] == 2


def test_in_place_that_fails_puts_the_old_data_back(bank: Bank, restorer: Restorer) -> None:
    last = bank.work()
    made = bank.backup()
    label = bank.directory(made) / "data" / "backup_label"
    label.write_text(label.read_text().replace("LABEL", "LABLE"))
    bank.server.stop()
    before = tree(bank.server.data_dir)
    with pytest.raises(HostFailed, match="phase verify"):
        restorer.restore(directory=bank.server.data_dir, in_place=True, immediate=True)
    assert tree(bank.server.data_dir) == before
    bank.server.start()
    assert bank.server.value(STATE) == last.state


def test_a_copy_leaves_its_original_alone(bank: Bank, restorer: Restorer) -> None:
    bank.server.value("ALTER SYSTEM SET primary_conninfo = 'host=nowhere'")
    bank.server.value("ALTER SYSTEM SET recovery_target_name = 'of long ago'")
    bank.server.configure({"recovery_target_xid": "7"})
    bank.work()
    bank.backup()
    bank.work()
    bank.archive()
    before = set(bank.host.archived())
    found = restorer.restore(latest=True)
    settings = ("archive_mode", "archive_library", "primary_conninfo", "listen_addresses", "restore_command")
    assert [restorer.value(found, f"SHOW {name}") for name in settings] == ["off", "", "", "", ""]
    data = Path(found["directory"])
    assert str(restorer.value(found, "SHOW unix_socket_directories")) == str(data)
    assert (data.stat().st_mode & 0o777, (data / "PG_VERSION").stat().st_mode & 0o777) == (0o700, 0o600)
    restorer.value(found, "INSERT INTO transfer VALUES (-1)")
    restorer.value(found, "SELECT pg_switch_wal()")
    bank.archive()
    assert not [name for name in set(bank.host.archived()) - before if not name.startswith("00000001")]
    assert not (data / copying.MARKER).exists()
    assert not (data / "pg_wal" / "pgops-ahead").exists()


def test_a_stray_promotion_does_not_hide_the_newest_moment(bank: Bank, restorer: Restorer) -> None:
    bank.work()
    bank.backup()
    moment = bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    promoted = restorer.restore(time=moment.time.isoformat())
    restorer.value(promoted, "SELECT pg_switch_wal()")
    stray = Path(promoted["directory"])
    # As if the copy had archived: its history and its WAL get into the repository.
    place = next(bank.host.repository.glob("*/wal"))
    target = place / "00000002.history"
    target.write_bytes((stray / "pg_wal" / "00000002.history").read_bytes())
    segments = sorted(path for path in (stray / "pg_wal").iterdir() if path.name.startswith("00000002" + "0" * 8))
    (place / segments[0].name[:16]).mkdir()
    (place / segments[0].name[:16] / segments[0].name).write_bytes(segments[0].read_bytes())
    own(place, bank.server)
    last = bank.work()
    bank.archive()
    found = restorer.restore(latest=True)
    assert restorer.state(found) == last.state
    assert "several ends" in found["warnings"][0]
    assert restorer.state(restorer.restore(latest=True, timeline=2)) == moment.state


def test_paused_is_read_only_until_it_is_promoted(bank: Bank, restorer: Restorer) -> None:
    bank.backup()
    moment = bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    found = restorer.restore(time=moment.time.isoformat(), end="paused")
    assert restorer.state(found) == moment.state
    assert restorer.value(found, "SELECT pg_is_in_recovery()")
    restorer.value(found, "SELECT pg_promote()")
    until(lambda: restorer.value(found, "SELECT pg_is_in_recovery()"), "promoted", wanted=False)
    assert restorer.state(found) == moment.state
    stopped = restorer.restore(time=moment.time.isoformat(), end="shutdown")
    assert stopped["port"] is None
    assert not (Path(stopped["directory"]) / "postmaster.pid").exists()


@pytest.mark.parametrize("layout", ["plain", "tar", "gzip", "zstd", "lz4"])
def test_tablespaces_go_where_they_are_told(bank: Bank, restorer: Restorer, root: Path, layout: str) -> None:
    original = root / "space"
    original.mkdir()
    own(original, bank.server)
    bank.server.value(f"CREATE TABLESPACE fast LOCATION '{original}'")
    bank.server.value("ALTER TABLE transfer SET TABLESPACE fast")
    bank.work()
    bank.backup("full", *([] if layout == "plain" else ["--format=tar"]), packed=layout)
    last = bank.work()
    bank.archive()
    before = tree(original)
    with pytest.raises(Conflict, match="is not empty"):
        restorer.restore(latest=True)
    with pytest.raises(Conflict, match="no tablespace in /elsewhere"):
        restorer.restore(latest=True, tablespace_map={"/elsewhere": "/tmp/there"})
    directory = restorer.directory()
    moved = directory.parent / "fast"
    found = restorer.restore(directory=directory, latest=True, tablespace_map={str(original): str(moved)})
    assert restorer.state(found) == last.state
    assert [one.name for one in moved.iterdir()] == [one.name for one in original.iterdir()]
    (link,) = (directory / "pg_tblspc").iterdir()
    assert link.readlink() == moved
    assert set(tree(original)) >= set(before)
    assert bank.server.value(STATE) == last.state


def test_tablespaces_in_place(bank: Bank, restorer: Restorer, root: Path) -> None:
    original = root / "spaces" / "space"
    original.mkdir(parents=True)
    own(original.parent, bank.server)
    bank.server.value(f"CREATE TABLESPACE fast LOCATION '{original}'")
    bank.server.value("ALTER TABLE transfer SET TABLESPACE fast")
    bank.backup()
    moment = bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    bank.server.stop()
    before = tree(original)
    found = restorer.restore(directory=bank.server.data_dir, in_place=True, xid=moment.xid)
    assert tree(Path(found["moved"][str(original)])) == before
    bank.server.start()
    assert bank.server.value(STATE) == moment.state


def _in_tablespace(bank: Bank, root: Path, *names: str) -> list[Path]:
    """Tablespaces with something in them."""
    paths = [root / "spaces" / name for name in names]
    for path in paths:
        path.mkdir(parents=True)
        own(path.parent, bank.server)
        bank.server.value(f"CREATE TABLESPACE {path.name} LOCATION '{path}'")
        bank.server.value(f"CREATE TABLE of_{path.name} TABLESPACE {path.name} AS SELECT 1 AS n")
    return paths


def test_a_tablespace_of_a_running_server_is_not_taken(bank: Bank, restorer: Restorer, root: Path) -> None:
    """Although the directory that is named is empty: it may be a slip of the pen."""
    (path,) = _in_tablespace(bank, root, "fast")
    bank.backup()
    before = (path.stat().st_ino, tree(path))
    with pytest.raises(Conflict, match=rf"{path} is used by the server in {bank.server.data_dir}"):
        restorer.restore(in_place=True, immediate=True)
    assert (path.stat().st_ino, tree(path)) == before
    assert bank.server.value("SELECT n FROM of_fast") == 1


def test_a_repetition_with_other_tablespaces_removes_none(
    bank: Bank, restorer: Restorer, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fast, slow = _in_tablespace(bank, root, "fast", "slow")
    bank.backup()
    bank.server.stop()
    before = tree(fast)
    elsewhere = root / "spaces" / "elsewhere"
    asked: dict[str, Any] = {"directory": bank.server.data_dir, "in_place": True, "immediate": True}

    def killed(*_given: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(copying, "verify", killed)
    with pytest.raises(HostFailed):
        restorer.restore(**asked, tablespace_map={str(fast): str(elsewhere)})
    monkeypatch.undo()
    with pytest.raises(Conflict, match=f"{fast} is not empty, and was not a part"):
        restorer.restore(**asked)
    assert tree(fast) == before
    restorer.restore(**asked, tablespace_map={str(fast): str(elsewhere)})
    assert tree(fast) == before
    bank.server.start()
    assert bank.server.value("SELECT n FROM of_slow") == 1
    assert slow.exists()


def test_what_was_promoted_is_never_removed(bank: Bank, restorer: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever became of the restore."""
    bank.backup()
    bank.server.stop()
    asked: dict[str, Any] = {"directory": bank.server.data_dir, "in_place": True, "immediate": True}

    def killed(*_given: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(restore, "_restart", killed)
    with pytest.raises(HostFailed):
        restorer.restore(**asked)
    monkeypatch.undo()
    with pytest.raises(Conflict, match="A server runs in"):
        restorer.restore(**asked)
    bank.server.stop()
    found = restorer.restore(**asked)
    assert Path(found["moved"][str(bank.server.data_dir)], "PG_VERSION").exists()


@pytest.mark.parametrize("layout", ["plain", "tar"])
def test_a_chain_of_incremental_backups(bank: Bank, restorer: Restorer, root: Path, layout: str) -> None:
    original = root / "space"
    original.mkdir()
    own(original, bank.server)
    bank.server.value(f"CREATE TABLESPACE fast LOCATION '{original}'")
    bank.server.value(
        "CREATE TABLE wide TABLESPACE fast AS SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n"
    )
    options = ["--format=tar"] if layout == "tar" else []
    bank.work()
    made = bank.backup("full", *options)
    for _number in range(2):
        bank.work()
        bank.server.value("UPDATE wide SET n = n + 1 WHERE n % 100 = 0")
        made = bank.backup("incremental", *options, parent=made)
    last = bank.work()
    bank.archive()
    directory = restorer.directory()
    spaces = {str(original): str(directory.parent / "fast")}
    found = restorer.restore(directory=directory, latest=True, tablespace_map=spaces)
    assert len(found["backup"]["chain"]) == 3
    assert restorer.state(found) == last.state
    count = "SELECT sum(n) FROM wide"
    assert restorer.value(found, count) == bank.server.value(count)
    assert not (directory / copying.SCRATCH).exists()


def test_ten_restores_in_a_row_with_alternating_targets(bank: Bank, restorer: Restorer) -> None:
    bank.backup()
    bank.work(4)
    bank.archive()
    bank.backup()
    bank.work(4)
    bank.archive()
    bank.work(1)
    bank.archive()
    early, late = bank.moments[1], bank.moments[6]
    directory = bank.server.data_dir
    for number in range(10):
        moment = (early, late)[number % 2]
        asked: dict[str, Any] = {"time": moment.time.isoformat()} if number % 3 else {"lsn": moment.lsn}
        bank.server.stop()
        # Each goes back to what was archived before all of them.
        restorer.restore(directory=directory, in_place=True, timeline=1, inclusive=False, **asked)
        bank.server.start()
        assert bank.server.value(STATE) == moment.state, number
    last = bank.work(1)
    bank.archive()
    found = restorer.restore(latest=True)
    assert restorer.state(found) == last.state


@pytest.mark.parametrize("phase", ["copy", "recover"])
@pytest.mark.parametrize("in_place", [False, True], ids=["copy", "in place"])
def test_a_killed_restore_is_done_again(bank: Bank, restorer: Restorer, phase: str, in_place: bool) -> None:
    bank.work()
    bank.backup()
    last = bank.work()
    bank.archive()
    directory = bank.server.data_dir if in_place else restorer.directory()
    if in_place:
        bank.server.stop()
    seen = "base" if phase == "copy" else "postmaster.pid"
    # To some moment, at which the server waits; to the latest one, it might promote itself after the kill.
    asked = {"directory": directory, "in_place": in_place, "lsn": last.lsn}
    killed = multiprocessing.get_context("fork").Process(target=_restoring, args=(restorer, asked), daemon=False)
    killed.start()

    def begun() -> bool:
        return (directory / copying.MARKER).exists() and (directory / seen).exists()

    until(begun, "restoring", pause=0.002)
    _kill_all(killed.pid or 0)
    killed.join()
    assert (directory / copying.MARKER).exists()
    found = restorer.restore(**asked)
    assert any("did not end" in warning for warning in found["warnings"])
    if in_place:
        bank.server.start()
        assert bank.server.value(STATE) == last.state
        assert len(list(directory.parent.glob("data.before-restore-*"))) == 1
    else:
        assert restorer.state(found) == last.state


@pytest.mark.parametrize("late", [False, True], ids=["before", "while it is moved"])
def test_a_server_that_is_started_after_the_look_is_not_moved_aside(
    bank: Bank, restorer: Restorer, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    """As by who starts it again, or when that of a killed restore promotes itself. It names its control file by its
    whole path: it would write into the new files."""
    bank.server.stop()
    here = Place(str(bank.server.data_dir), in_place=True)
    looked, started = (restorer.directory().parent / name for name in ("looked", "started"))
    move = place._move_aside

    def wait() -> None:
        looked.touch()
        until(started.exists, "started", True)

    def moved(moved: Mapping[str, str]) -> None:
        if late:
            wait()
        move(moved)

    def work() -> str:
        here.check(discovery.system_identifier(here.data) or "")
        if not late:
            wait()
        try:
            with here.begun(lambda: None):
                return "begun"
        except Conflict as error:
            return str(error)

    monkeypatch.setattr(place, "_move_aside", moved)
    with ThreadPoolExecutor(1) as pool:
        said = pool.submit(as_user, restorer.owner, work, 600.0)
        until(looked.exists, "looked", True)
        bank.server.start()  # which ends with the thread that started it
        started.touch()
        assert "A server runs in" in said.result()
    assert {path.name for path in bank.server.data_dir.parent.glob("data*")} == {"data"}
    bank.work()
    bank.server.value("CHECKPOINT")
    bank.server.stop()
    bank.server.start()
    assert bank.server.value("SELECT pg_is_in_recovery()") is False


def _restoring(restorer: Restorer, asked: dict[str, Any]) -> None:
    os.setsid()
    try:
        restorer.restore(**asked)
    except PgOpsError:
        time.monotonic()


def _kill_all(process: int) -> None:
    """Kill a restore with the child that works as the server's user, and not the server."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for one in [*map(int, children), process]:
        os.kill(one, signal.SIGKILL)


def test_in_place_the_newest_moment_has_what_was_not_archived(bank: Bank, restorer: Restorer) -> None:
    bank.work()
    bank.backup()
    with bank.server.stopped("archiver"):
        bank.work()
        bank.server.value("SELECT pg_switch_wal()")
        last = bank.work()
        _kill_server(bank)
    found = restorer.restore(directory=bank.server.data_dir, in_place=True, latest=True)
    assert "was not archived was taken from" in found["warnings"][0]
    bank.server.start()
    assert bank.server.value(STATE) == last.state


def _kill_server(bank: Bank) -> None:
    """All its processes at once, as in a power cut: the archiver must not go on."""
    if bank.server.running:
        bank.server.kill()
        return
    process = int((bank.server.data_dir / "postmaster.pid").read_text().split()[0])
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    for one in [process, *map(int, children)]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(one, signal.SIGKILL)
    # Until somebody has asked how it ended, its number is taken, and a server that starts would see it as alive.
    until(lambda: any(Path(f"/proc/{one}").exists() for one in [process, *children]), "ended", wanted=False)


def test_a_backup_that_is_read_does_not_expire(bank: Bank, restorer: Restorer) -> None:
    made = bank.backup()
    bank.archive()
    request = restorer.request(immediate=True)
    place, name = bank.place, bank.directory(made).name

    def run() -> dict[str, bool]:
        seen: dict[str, bool] = {}
        restore.restore(request, lambda phase: seen.update({phase: backups.being_read(place, name)}))
        return seen

    seen = as_user(restorer.owner, run, 600.0)
    assert {phase for phase, read in seen.items() if not read} == {"plan"}
    assert not backups.being_read(place, name)


def test_collations_of_other_versions_are_told(bank: Bank, restorer: Restorer) -> None:
    bank.server.value("CREATE COLLATION german (provider = icu, locale = 'de')")
    bank.server.value("UPDATE pg_collation SET collversion = '1' WHERE collname = 'german'")
    bank.backup()
    found = restorer.restore(immediate=True)
    (warning,) = found["warnings"]
    assert "Database postgres" in warning
    assert "german" in warning


def test_in_place_of_a_disk_that_was_lost(bank: Bank, restorer: Restorer, root: Path) -> None:
    original = root / "spaces" / "space"
    original.mkdir(parents=True)
    own(original.parent, bank.server)
    bank.server.value(f"CREATE TABLESPACE fast LOCATION '{original}'")
    bank.server.value("ALTER TABLE transfer SET TABLESPACE fast")
    bank.backup()
    last = bank.work()
    bank.archive()
    bank.server.stop()
    before = tree(original)
    (bank.server.data_dir / "global" / "pg_control").write_bytes(b"lost")
    with pytest.raises(Conflict, match="move it away"):
        restorer.restore(directory=bank.server.data_dir, in_place=True, latest=True)
    bank.server.data_dir.rename(bank.server.directory / "lost")
    found = restorer.restore(directory=bank.server.data_dir, in_place=True, latest=True)
    assert list(found["moved"]) == [str(original)]
    assert tree(Path(found["moved"][str(original)])) == before
    bank.server.start()
    assert bank.server.value(STATE) == last.state
    assert bank.server.value("SHOW archive_mode") == "on"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount")
def test_in_place_of_a_mount_point(bank: Bank, restorer: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = bank.work()
    bank.backup()
    bank.work()
    bank.archive()
    bank.server.stop()
    data = bank.server.data_dir
    elsewhere = data.rename(data.with_name("elsewhere"))
    with disks.small(data, "400m") as mounted:
        if not mounted:
            pytest.skip("nothing can be mounted here")
        shutil.copytree(elsewhere, data, symlinks=True, dirs_exist_ok=True)
        data.chmod(0o700)
        own(data, bank.server)
        before = tree(data)
        asked: dict[str, Any] = {"directory": data, "in_place": True}
        monkeypatch.setattr(copying, "verify", _fails)
        with pytest.raises(HostFailed, match="on purpose"):
            restorer.restore(**asked, immediate=True)
        monkeypatch.undo()
        assert tree(data) == before
        (warning,) = restorer.plan_warnings(**asked, immediate=True)
        assert f"kept in {data}/before-restore-" in warning
        found = restorer.restore(**asked, immediate=True)
        aside = Path(found["moved"][str(data)])
        assert (aside.parent, tree(aside) == before) == (data, True)
        bank.server.start()
        assert bank.server.value(STATE) == moment.state
        bank.server.stop()
        # And once more, with what the first one has left.
        restorer.restore(**asked, immediate=True)
        assert tree(aside) == before
    data.rmdir()
    elsewhere.rename(data)


def _fails(*_given: object) -> None:
    raise HostFailed("It failed on purpose.")
