# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the archived WAL says of transactions and restore points, and what reading it leaves behind."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import binaries
import pytest
from archives import Host
from backing import SMALL_SEGMENTS, Bank

from pgops.errors import HostFailed
from pgops.recovery import commits, scratch
from pgops.recovery import line as lines
from pgops.recovery.commits import Reader
from pgops.recovery.targets import position
from pgops.repository import inventory
from pgops.repository.wal import Run

NEWEST = binaries.majors()[-1]

pytestmark = pytest.mark.skipif(NEWEST not in binaries.TOOLED, reason="pg_waldump reads its own version's WAL only")


@pytest.fixture(name="bank")
def _bank(make: Callable[..., Host]) -> Bank:
    return Bank.opened(make(initdb=SMALL_SEGMENTS))


@contextlib.contextmanager
def reading(bank: Bank, beside: Path, seconds: float = 0.0) -> Iterator[tuple[Reader, Run]]:
    """A reader of the WAL, and the segments that there are."""
    found = inventory.read(str(bank.host.repository), bank.generation)
    (run,) = found.runs
    line = lines.to(1, {}, found.segment_bytes)
    place = (str(bank.host.repository), bank.generation, str(bank.server.client_dir), line, str(beside), seconds)
    with commits.reading(*place) as reader:
        yield reader, run


def test_the_wal_tells_of_commits_and_points(bank: Bank, tmp_path: Path) -> None:
    first = bank.work()
    bank.archive()
    middle = position(bank.point("mine"))
    bank.archive()
    last = bank.work()
    bank.server.psql("BEGIN; INSERT INTO transfer VALUES (-1); ROLLBACK")
    bank.archive()
    with reading(bank, tmp_path) as (reader, run):
        newest = commits.newest(reader, run.first, run.last)
        assert newest
        assert newest.time
        assert newest.time > last.time
        assert newest.what == "ABORT"
        before = commits.any_of(reader, run.first, run.last, lambda one: one.lsn < middle)
        assert before
        assert before.time
        assert before.time <= first.time
        points = [point for _segment, some in commits.restore_points(reader, run.first, run.last) for point in some]
        (point,) = [point for point in points if point.name == "mine"]
        assert point.lsn < middle <= point.lsn + 200
        found = commits.transaction(reader, int(first.xid), run.first, run.last)
        assert found.end
        assert found.end.lsn < position(first.lsn)
        nowhere = commits.transaction(reader, int(newest.xid) + 999, run.first, run.last)
        assert nowhere.end is None
        assert newest.xid in [one.xid for one in nowhere.others]
        assert reader.damaged == {}
        assert len(list(tmp_path.iterdir())) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_search_without_time_left_says_so(bank: Bank, tmp_path: Path) -> None:
    bank.work()
    bank.archive()
    with reading(bank, tmp_path, 1e-9) as (reader, run), pytest.raises(HostFailed, match="was given up at"):
        commits.newest(reader, run.first, run.last)


def test_what_cannot_be_read_is_known_and_the_rest_is_read(bank: Bank, tmp_path: Path) -> None:
    first = bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    name = bank.server.value(f"SELECT pg_walfile_name('{bank.moments[3].lsn}')")
    broken = bank.host.archived()[str(name)]
    broken.write_bytes(broken.read_bytes()[:-100])
    with reading(bank, tmp_path) as (reader, run):
        found = commits.transaction(reader, int(first.xid), run.first, run.last)
        assert found.end
        assert commits.any_of(reader, run.first, run.last, lambda _one: False) is None
        assert [str(name) in why for why in reader.damaged.values()] == [True]


def test_without_a_program_that_unpacks_nothing_is_said_of_the_wal(
    bank: Bank, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank.work()
    bank.archive()
    for name, path in bank.host.archived().items():
        if len(name) == 24:
            bank.server.run("zstd", "-q", "--rm", str(path))
    with reading(bank, tmp_path) as (reader, run):
        monkeypatch.setenv("PATH", "/nowhere")
        with pytest.raises(HostFailed, match="by zstd, which is not on this host"):
            commits.newest(reader, run.first, run.last)


def test_what_a_killed_search_has_left_is_removed_by_the_next_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "letter").write_text("dear")
    child = os.fork()
    if not child:
        with scratch.made(str(tmp_path)) as path:
            (Path(path) / "segment").write_text("WAL")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    assert len(list(tmp_path.iterdir())) == 2
    with scratch.made(str(tmp_path)) as one, scratch.made(str(tmp_path)) as other:
        assert {path.name for path in tmp_path.iterdir()} == {"letter", Path(one).name, Path(other).name}
    assert [path.name for path in tmp_path.iterdir()] == ["letter"]


def test_without_pg_waldump_nothing_is_known(tmp_path: Path) -> None:
    with (
        pytest.raises(HostFailed, match="pg_waldump"),
        commits.reading("/", "1-18", "/nowhere", lines.to(1, {}, 1 << 20), str(tmp_path)),
    ):
        pass
