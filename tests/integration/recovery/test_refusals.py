# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What cannot be reached or restored is refused before a byte is written, and what can be is named."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from backing import PACKERS, Bank, own
from restoring import Restorer
from waiting import until

from pgops.errors import Conflict, HostFailed, InvalidInput, PgOpsError
from pgops.recovery import targets
from pgops.repository import backups, wal


def refused(restorer: Restorer, kind: type[PgOpsError], **asked: Any) -> str:
    """The error of a restore that is refused; nothing is there then."""
    directory = restorer.directory()
    with pytest.raises(kind) as caught:
        restorer.restore(directory=directory, **asked)
    assert not directory.exists()
    assert caught.value.hint
    return str(caught.value)


def test_targets_that_cannot_be_reached_are_refused_with_those_that_can(bank: Bank, restorer: Restorer) -> None:
    first = bank.work()
    made = bank.backup()
    bank.work()
    bank.point("twice")
    bank.point("twice")
    bank.archive()
    last = bank.work()
    bank.archive()
    said = refused(restorer, InvalidInput, time=(last.time + timedelta(hours=1)).isoformat())
    assert "no commit after it is archived, the last commit is of" in said
    assert targets.written(last.time)[:16] in said
    assert f"(LSN {wal.lsn(made.stop_lsn)}, backup {bank.taken[0][0]})" in said
    assert "before the end of the first backup" in refused(restorer, InvalidInput, time=first.time.isoformat())
    assert "cannot be reached" in refused(restorer, InvalidInput, lsn=first.lsn)
    assert "cannot be reached" in refused(restorer, InvalidInput, lsn="FF/0")
    after = str(bank.server.value("SELECT pg_current_wal_lsn()"))
    assert "cannot be reached" in refused(restorer, InvalidInput, lsn=after)
    assert "There is no restore point 'never'" in refused(restorer, InvalidInput, name="never")
    assert "several restore points 'twice'" in refused(restorer, InvalidInput, name="twice")
    assert "transaction 999999 is not in the WAL" in refused(restorer, InvalidInput, xid="999999")
    assert f"transaction {first.xid}" in refused(restorer, InvalidInput, xid=first.xid)
    assert "Timeline 7" in refused(restorer, InvalidInput, latest=True, timeline=7)


def test_a_target_during_a_backup_takes_the_one_before(bank: Bank, restorer: Restorer) -> None:
    bank.work()
    bank.backup()
    copying = "SELECT count(*) FROM pg_stat_progress_basebackup WHERE phase = 'streaming database files'"
    slow = threading.Thread(target=bank.backup, args=("full", "--max-rate=4M"))
    slow.start()
    until(lambda: bank.server.value(copying), "copying")
    during = bank.work()
    bank.work()
    assert bank.server.value(copying)
    slow.join()
    after = bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    assert restorer.plan(time=during.time.isoformat())["backup"]["name"] == bank.taken[0][0]
    assert restorer.plan(lsn=during.lsn)["backup"]["name"] == bank.taken[0][0]
    assert restorer.plan(time=after.time.isoformat())["backup"]["name"] == bank.taken[1][0]
    assert restorer.state(restorer.restore(time=during.time.isoformat())) == during.state


def test_directories_that_are_used_are_left_alone(bank: Bank, restorer: Restorer, root: Path) -> None:
    bank.backup()
    full = restorer.directory()
    full.mkdir()
    (full / "letter").write_text("dear")
    own(full, bank.server)
    with pytest.raises(Conflict, match="is not empty"):
        restorer.restore(directory=full, immediate=True)
    assert (full / "letter").read_text() == "dear"
    with pytest.raises(Conflict, match="A server runs in"):
        restorer.restore(directory=bank.server.data_dir, in_place=True, immediate=True)
    closed = root / "closed"
    closed.mkdir()
    with pytest.raises(HostFailed, match="may not write into"):
        restorer.restore(directory=closed / "d", immediate=True)
    with pytest.raises(Conflict, match="too long"):
        restorer.restore(directory=restorer.directory() / ("d" * 100), immediate=True)
    other = restorer.directory()
    other.mkdir()
    (other / "letter").write_text("dear")
    own(other, bank.server)
    with pytest.raises(Conflict, match="is not the data directory"):
        restorer.restore(directory=other, in_place=True, immediate=True)


def test_programs_of_another_version_are_refused(bank: Bank, restorer: Restorer) -> None:
    import binaries

    bank.backup()
    older = str(binaries.directory(binaries.majors()[0]))
    request = restorer.request(immediate=True)
    changed = type(request)(**{**vars(request), "server_directory": older})
    from pgops.host.identity import as_user
    from pgops.recovery import restore

    with pytest.raises(InvalidInput, match=f"the backups are of PostgreSQL {bank.server.major}"):
        as_user(restorer.owner, lambda: restore.plan(changed).told())


def test_without_space_nothing_is_written(bank: Bank, restorer: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    bank.backup()
    real = os.statvfs

    class Full:
        """A file system with a megabyte left."""

        def __init__(self, path: str) -> None:
            self.f_bavail, self.f_frsize = (1 << 20) // real(path).f_frsize, real(path).f_frsize

    monkeypatch.setattr(os, "statvfs", Full)
    assert "MB are free" in refused(restorer, HostFailed, immediate=True)


@pytest.mark.parametrize("kind", ["missing", "truncated"])
def test_damage_of_the_wal_ends_a_restore_and_never_shortens_it(bank: Bank, restorer: Restorer, kind: str) -> None:
    bank.work()
    bank.backup()
    early = bank.work()
    bank.archive()
    bank.work()
    # A server reads some WAL ahead of what it replays.
    bank.server.value("CREATE TABLE wide AS SELECT repeat(md5(n::text), 60) FROM generate_series(1, 2000) n")
    beyond = bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    number = targets.position(beyond.lsn) // bank.taken[0][1].segment_bytes + 1
    broken = bank.host.archived()[wal.name(1, number, bank.taken[0][1].segment_bytes)]
    if kind == "missing":
        broken.unlink()
        assert f"{broken.name} is missing" in refused(restorer, InvalidInput, latest=True)
    else:
        broken.write_bytes(broken.read_bytes()[:-100])
        assert "incomplete WAL segment" in refused(restorer, PgOpsError, latest=True)
    assert restorer.state(restorer.restore(time=early.time.isoformat())) == early.state


def flipped(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _data(path: Path) -> Path:
    return next(one for one in sorted((path / "data" / "base").rglob("1259")) if one.stat().st_size)


@pytest.mark.parametrize(
    ("victim", "told"),
    [
        (_data, "The backup is damaged"),
        (lambda path: path / "data" / "backup_label", "The backup is damaged"),
        (lambda path: path / "data" / "backup_manifest", "backup_manifest is damaged"),
        (lambda path: path / "manifest.json", "is damaged"),
    ],
    ids=["data", "backup_label", "backup_manifest", "manifest"],
)
def test_a_flipped_byte_in_a_backup_is_found(
    bank: Bank, restorer: Restorer, victim: Callable[[Path], Path], told: str
) -> None:
    made = bank.backup()
    flipped(victim(bank.directory(made)))
    with pytest.raises(HostFailed, match=told):
        restorer.restore(immediate=True)


def test_a_backup_that_is_known_to_be_damaged_is_not_taken(bank: Bank, restorer: Restorer) -> None:
    bank.backup()
    newest = bank.directory(bank.backup())
    assert restorer.plan(immediate=True)["backup"]["name"] == newest.name
    backups.note_checked(bank.place, newest.name, ["base/1 has another checksum"], datetime.now(timezone.utc))
    own(newest, bank.server)
    assert restorer.plan(immediate=True)["backup"]["name"] != newest.name


@pytest.mark.parametrize("packed", ["", "gzip", "zstd", "lz4"])
def test_wal_that_cannot_be_replayed_is_found_before_anything_is_copied(
    bank: Bank, restorer: Restorer, packed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last segment is torn, whatever it is compressed by; what needs the program of a compression is refused
    without it; and what does not need the segment is restored."""
    bank.work()
    bank.backup()
    early = bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    bank.work()
    name = bank.host.switch()
    bank.host.wait_for(name)
    last = bank.host.archived()[name]
    if packed:
        bank.server.run(*PACKERS[packed], str(last))
        (last,) = last.parent.glob(f"{last.name}.*")
    if packed in ("zstd", "lz4"):
        with monkeypatch.context() as changed:
            changed.setenv("PATH", str(bank.server.bin_dir))
            assert f"{packed}, which is not on this host" in refused(restorer, HostFailed, latest=True)
    last.write_bytes(last.read_bytes()[:-1000])
    assert name in refused(restorer, PgOpsError, latest=True)
    last.write_bytes(b"something else")
    assert name in refused(restorer, PgOpsError, latest=True)
    assert restorer.plan(time=early.time.isoformat())["last_segment"] < name
