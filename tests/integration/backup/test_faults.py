# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups that are killed, or run out of room or of WAL, leave nothing that counts as one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import disks
import pytest
from archives import Host
from backed import Backed, own
from servers import Server
from waiting import until

from pgops.backup import source, take
from pgops.errors import Busy, Conflict, HostFailed
from pgops.host import files
from pgops.instance import endpoints
from pgops.repository import backups
from pgops.server.session import connect

KILLS = int(os.environ.get("PGOPS_TEST_KILLS", "4"))
"""How often a backup is killed."""


def forked(backed: Backed, **declared: object) -> int:
    """A process that takes a backup as the server's user; its number."""
    child = os.fork()
    if child:
        return child
    try:
        os.setgid(65534) if os.geteuid() == 0 else None
        os.setuid(backed.user)
        take.take(backed.configuration(**declared), backed.layout, "full")
    finally:
        os._exit(0)


def unlocked(backed: Backed) -> bool:
    try:
        with files.exclusive(str(backed.place / "lock"), 0):
            return True
    except Busy:
        return False


def written(backed: Backed) -> bool:
    """Whether a backup is being written."""
    return any(backed.place.glob("*/data/*/*"))


def copying(backed: Backed) -> int:
    """The process of pg_basebackup."""
    place = str(backed.place).encode()
    (found,) = [
        int(path.parent.name)
        for path in Path("/proc").glob("[0-9]*/cmdline")
        if b"pg_basebackup" in (words := _words(path)) and place in words
    ]
    return found


def _words(path: Path) -> bytes:
    with contextlib.suppress(OSError):
        return path.read_bytes()
    return b""


def kill_somewhere(backed: Backed, chance: random.Random) -> None:
    """Begin a backup, and kill what takes it: sooner or later, or once something is written."""
    child = forked(backed, max_rate_mb=chance.choice([0.0, 20.0]))
    until(lambda: not unlocked(backed), "begun")
    often, copying = chance.random(), chance.choice([True, False])
    until(lambda: (copying and written(backed)) or chance.random() < often, "somewhere in it", pause=0.1)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_killed_run_is_swept_by_the_next_one(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    backed = Backed.of(make())
    backed.server.psql("CREATE TABLE item AS SELECT n, md5(n::text) FROM generate_series(1, 100000) AS n")
    backed.take()
    chance = random.Random(16)
    monkeypatch.setattr("pgops.backup.take.PATIENCE", 60)
    for _number in range(KILLS):
        kill_somewhere(backed, chance)
        until(lambda: unlocked(backed), "over: pg_basebackup ends by itself")
        done = backed.take()
        assert backed.listing.unfinished == ()
        assert backed.listing.damaged == {}
        assert backed.kept(done)
    assert backed.verify()["errors"] == []


def test_what_a_killed_run_has_started_keeps_others_away(
    make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    backed = Backed.of(make())
    backed.take()
    monkeypatch.setattr("pgops.backup.take.PATIENCE", 0)
    with backed.server.stopped("archiver"):
        child = forked(backed)
        phase = "SELECT phase FROM pg_stat_progress_basebackup"
        until(lambda: backed.server.value(phase), "waiting for WAL", source.WAITING_FOR_WAL)
        program = copying(backed)
        os.kill(program, signal.SIGSTOP)  # or it ends where it says that it waits: nobody reads that any more
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        with pytest.raises(Busy):
            backed.take()
        os.kill(program, signal.SIGCONT)
    until(lambda: unlocked(backed), "over")
    assert len(backed.take()["swept"]) == 1


def test_a_server_that_is_killed_fails_the_backup(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    backed.server.stop()  # since archiving has restarted it, it is no child of this process
    backed.server.start()
    backed.take()
    child = forked(backed, max_rate_mb=2.0)
    until(lambda: written(backed) and backed.server.value("SELECT phase FROM pg_stat_progress_basebackup"), "copying")
    backed.server.kill()
    os.waitpid(child, 0)
    backed.server.start()
    assert (len(backed.listing.backups), backed.listing.unfinished) == (1, ())
    assert backed.take()["kind"] == "full"


def small_repository(root: Path, make: Callable[..., Host]) -> Backed:
    """A server whose repository is on the small disk at root/disk."""
    host = make()
    host.base = root / "disk"
    own(host.base, host.server)
    return Backed.of(host)


def test_too_little_room_is_told_before_anything_is_copied(root: Path, make: Callable[..., Host]) -> None:
    with disks.small(root / "disk", "100m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        backed = small_repository(root, make)
        with pytest.raises(HostFailed, match=r"MB free, and the backup needs some \d+ MB"):
            backed.take()
        assert not backed.directories()


def test_a_full_disk_fails_the_backup_and_leaves_room_again(
    root: Path, make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    with disks.small(root / "disk", "150m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        backed = small_repository(root, make)
        backed.server.psql("CREATE TABLE item AS SELECT n, repeat('x', 1000) FROM generate_series(1, 60000) AS n")
        monkeypatch.setattr("pgops.backup.source.check_room", lambda *_room: None)
        monkeypatch.setattr("pgops.backup.source.RESERVE", 0)
        segment = backed.host.switch()
        backed.host.wait_for(segment)
        before = source.room(str(backed.host.base))
        with pytest.raises(HostFailed, match="No space left on device"):
            backed.take()
        assert (backed.listing.backups, backed.listing.unfinished) == ((), ())
        assert source.room(str(backed.host.base)) > before - 4 * (1 << 24)
        assert backed.server.value("SELECT 1") == 1


def test_a_backup_is_given_up_before_archiving_has_no_room(
    root: Path, make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    with disks.small(root / "disk", "200m") as mounted:
        if not mounted:
            pytest.skip("a small file system cannot be mounted here")
        backed = small_repository(root, make)
        monkeypatch.setattr("pgops.backup.source.check_room", lambda *_room: None)
        monkeypatch.setattr("pgops.backup.source.RESERVE", 11)
        with pytest.raises(HostFailed, match="so that archiving can go on"):
            backed.take(max_rate_mb=2.0)
        assert (backed.listing.backups, backed.listing.unfinished) == ((), ())


def test_archiving_that_breaks_meanwhile_fails_the_backup(
    make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch
) -> None:
    backed = Backed.of(make())
    monkeypatch.setattr("pgops.backup.take.WAL_PATIENCE", 2)
    with backed.server.stopped("archiver"), pytest.raises(HostFailed, match="Archiving fails"):
        backed.take()
    assert (backed.listing.backups, backed.listing.unfinished) == ((), ())


def test_wal_that_waits_is_told_before_copying(make: Callable[..., Host], monkeypatch: pytest.MonkeyPatch) -> None:
    backed = Backed.of(make())
    monkeypatch.setattr("pgops.backup.take.WAL_PATIENCE", 2)
    with backed.server.stopped("archiver"):
        for _number in range(3):
            backed.host.switch()
        monkeypatch.setattr("pgops.backup.source.MEASURING", 0.2)
        with backed.server.connect() as connection:
            waiting = connection.execute(source.ARCHIVER.encode()).fetchone()
        assert waiting
        assert waiting[4] >= 3
        with pytest.raises(HostFailed, match=r"Archiving fails.* segments wait"):
            backed.take()
    until(
        lambda: backed.server.value("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ 'ready$'"), "none", 0
    )
    assert backed.take()["wal_waiting"] == 0


def test_a_repository_that_is_not_mounted_is_not_filled(make: Callable[..., Host]) -> None:
    backed = Backed.of(make())
    away = backed.host.base / "away"
    backed.host.repository.rename(away)
    backed.host.repository.mkdir()
    own(backed.host.repository, backed.server)
    with pytest.raises(HostFailed, match="is the repository mounted"):
        backed.take()
    assert list(backed.host.repository.iterdir()) == []


def test_a_limited_rate_is_kept(make: Callable[..., Host]) -> None:
    backed = Backed.of(make(settings={"checkpoint_timeout": "30s", "checkpoint_completion_target": "0.1"}))
    size = int(str(backed.server.value("SELECT sum(pg_database_size(oid)) FROM pg_database")))
    taken = backed.take(max_rate_mb=4.0)
    assert taken["seconds"] * 4_000_000 * 1.1 > size
    assert taken["expected_seconds"] == pytest.approx(size / 4_000_000, rel=0.1)


def test_hooks_surround_a_backup(make: Callable[..., Host], root: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can make a program of root's")
    backed = Backed.of(make())
    said = root / "prefix" / "said"
    backed.server.write(said, "")
    # In a directory that is root's all the way up.
    hook = Path("/usr/local/lib/pgops-test-hook")
    hook.write_text(f"#!/bin/sh\necho $* >> {said}\n[ $1 = before ] || exit 4\n")
    hook.chmod(0o755)
    try:
        taken = backed.take(hook_before=str(hook), hook_after=str(hook))
    finally:
        hook.unlink()
    (error,) = taken["errors"]
    assert "The hook" in error
    assert backups.failed(str(backed.place))  # so that nothing expires
    assert said.read_text().splitlines() == ["before shop full", f"after shop full completed {backed.path(taken)}"]
    assert backed.kept(taken)


def test_what_keeps_a_backup_from_being_taken_keeps_all_others(make: Callable[..., Host]) -> None:
    """Nothing expires while archiving fails."""
    backed = Backed.of(make())
    backed.take()
    assert not backups.failed(str(backed.place))
    backed.server.value("ALTER SYSTEM SET archive_command = '/bin/false'")
    backed.server.reload()
    with pytest.raises(Conflict, match="is not archived into"):
        backed.take()
    assert backups.failed(str(backed.place))
    backed.host.apply(replace=True)
    backed.take()
    assert not backups.failed(str(backed.place))


def test_what_cannot_be_looked_at_is_not_called_damaged(make: Callable[..., Host], root: Path) -> None:
    """The program that verifies is killed."""
    backed = Backed.of(make())
    taken = backed.take()
    tools = root / "prefix" / "tools"
    tools.mkdir()
    for program in backed.server.client_dir.iterdir():
        (tools / program.name).symlink_to(program)
    (tools / "pg_verifybackup").unlink()
    (tools / "pg_verifybackup").write_text('#!/bin/sh\n[ "$1" = --version ] || kill -9 $$\n')
    (tools / "pg_verifybackup").chmod(0o755)
    backed.declared["bin_directory"] = str(tools)
    (error,) = backed.verify()["errors"]
    assert "cannot be verified" in error
    assert backed.kept(taken).problems == ()


def test_a_standby_is_backed_up(make: Callable[..., Host], keep: Callable[[Server], Server]) -> None:
    host = make(settings={"full_page_writes": "on", "archive_timeout": "1s"})
    host.params = {"timeout": 1}
    primary = Backed.of(host)
    primary.server.psql("CREATE TABLE item AS SELECT n FROM generate_series(1, 1000) AS n")
    standby = keep(host.server.standby()).start()
    assert "standby" in Backed(Host(standby, host.base, host.prefix)).take()["skipped"]
    other = Backed(Host(standby, host.base, host.prefix), {"source": "db1/main"})
    assert unarchived(other) == 0
    with primary.server.stopped("archiver"):
        for _number in range(3):
            host.switch()
        until(lambda: unarchived(other), "behind", lambda found: found >= 2)
    busy = _writing(primary.server)
    try:
        taken = other.take()
    finally:
        os.kill(busy, signal.SIGKILL)
        os.waitpid(busy, 0)
    made = other.kept(taken).manifest
    assert (made.from_standby, made.timeline) == (True, 1)
    assert other.verify()["verified"] == 1
    with other.restored(taken) as server:
        assert server.value("SELECT count(*) FROM item") == 1000


def unarchived(backed: Backed) -> int:
    """The segments that a standby has and the repository has not."""
    configuration = backed.configuration()
    with connect(endpoints.backed_up(configuration)) as session:
        return source.behind(session, configuration, source.read(session)).segments


def _writing(server: Server) -> int:
    """A process that writes now and then, so that segments end."""
    child = os.fork()
    if child:
        return child
    try:
        while True:
            server.value("SELECT pg_switch_wal() FROM pg_create_restore_point('here')")
    finally:
        os._exit(0)


def test_a_promotion_fails_the_backup_of_a_standby(
    make: Callable[..., Host], keep: Callable[[Server], Server]
) -> None:
    host = make(settings={"full_page_writes": "on"})
    primary = Backed.of(host)
    primary.take()
    standby = keep(host.server.standby({"checkpoint_timeout": "30s"})).start()
    other = Backed(Host(standby, host.base, host.prefix), {"source": "db1/main"})
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            os.close(reading)
            with pytest.raises((Conflict, HostFailed)) as caught:
                other.take(max_rate_mb=2.0)
            os.write(writing, str(caught.value).encode())
        finally:
            os._exit(0)
    os.close(writing)
    phase = "SELECT phase FROM pg_stat_progress_basebackup"
    until(lambda: standby.value(phase), "copying", "streaming database files")
    standby.promote()
    os.waitpid(child, 0)
    with open(reading, encoding="utf-8") as said:
        assert "promoted" in said.read()
    assert (len(backups.listed(str(primary.place)).backups), primary.listing.unfinished) == (1, ())
