# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the archived WAL says of transactions and restore points."""

from __future__ import annotations

from collections.abc import Callable

import binaries
import pytest
from archives import Host
from backing import SMALL_SEGMENTS, Bank

from pgops.errors import HostFailed
from pgops.recovery import commits
from pgops.recovery import line as lines
from pgops.recovery.targets import position
from pgops.repository import inventory

TOOLS = str(binaries.client("pg_waldump").parent)
NEWEST = binaries.majors()[-1]

pytestmark = pytest.mark.skipif(NEWEST != 18, reason="the tools of tests are of PostgreSQL 18")


def test_the_wal_tells_of_commits_and_points(make: Callable[..., Host]) -> None:
    bank = Bank.opened(make(initdb=SMALL_SEGMENTS))
    first = bank.work()
    bank.archive()
    middle = position(bank.point("mine"))
    bank.archive()
    last = bank.work()
    bank.server.psql("BEGIN; INSERT INTO transfer VALUES (-1); ROLLBACK")
    bank.archive()
    found = inventory.read(str(bank.host.repository), bank.generation)
    (run,) = found.runs
    line = lines.to(1, {}, found.segment_bytes)
    with commits.reading(str(bank.host.repository), bank.generation, TOOLS, line) as reader:
        newest = commits.newest(reader, run.first, run.last)
        assert newest
        assert newest.time
        assert newest.time > last.time
        assert newest.what == "ABORT"
        before = commits.newest(reader, run.first, run.last, before=middle)
        assert before
        assert before.time
        assert before.time <= first.time
        (point,) = commits.restore_points(reader, "mine", run.first, run.last)
        assert point.lsn < middle <= point.lsn + 200
        assert commits.restore_points(reader, "nowhere", run.first, run.last) == []
        transaction = commits.transaction(reader, int(first.xid), run.first, run.last)
        assert transaction
        assert transaction.lsn < position(first.lsn)
        assert commits.transaction(reader, 999_999, run.first, run.last) is None
        with pytest.raises(commits.Unknown):
            commits.transaction(reader, 999_999, run.first, run.last, seconds=-1)


def test_without_pg_waldump_nothing_is_known(tmp_path: object) -> None:
    with (
        pytest.raises(HostFailed, match="pg_waldump"),
        commits.reading("/", "1-18", "/nowhere", lines.to(1, {}, 1 << 20)),
    ):
        pass
