# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A bank works on while it is archived, backed up and promoted, and each moment of it can be restored."""

from __future__ import annotations

import random
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from backing import Bank, Moment, own
from restoring import Restorer

from pgops.errors import InvalidInput
from pgops.recovery import choice, commits
from pgops.recovery.targets import position
from pgops.repository import inventory, wal

KINDS = ("time", "lsn", "xid", "name")
NAMED = 3
"""Every so many-th transaction is followed by a restore point."""


@dataclass
class Work:
    """Transfers that go on in a thread, but while the server is away."""

    bank: Bank
    ended: threading.Event = field(default_factory=threading.Event)
    working: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> None:
        while not self.ended.is_set():
            with self.working:
                moment = self.bank.work(1)
                if len(self.bank.moments) % NAMED == 0:
                    self.bank.point(f"after_{moment.xid}")

    @contextmanager
    def going_on(self) -> Iterator[None]:
        thread = threading.Thread(target=self.run)
        thread.start()
        try:
            yield
        finally:
            self.ended.set()
            thread.join()

    def promote(self) -> None:
        """Have the server go on along a new timeline, as a standby does that takes over."""
        with self.working:
            server = self.bank.server
            server.stop()
            signal = server.data_dir / "standby.signal"
            signal.touch()
            own(signal, server)
            server.start()
            assert server.value("SELECT pg_promote()")


def worked(bank: Bank) -> int:
    """Full and incremental backups, and two promotions, while the bank works; how many transactions were before."""
    bank.work()
    bank.backup()
    before = len(bank.moments)
    work = Work(bank)
    with work.going_on():
        for _number in range(2):
            bank.archive()
            work.promote()
            full = bank.backup()
            bank.archive()
            bank.backup("incremental", parent=full)
    # What comes last can be reached only if something follows.
    bank.work(2)
    bank.archive()
    return before


def records(bank: Bank, root: Path) -> dict[int, int]:
    """Where transactions ended, by their IDs, on the line that the server is on."""
    found = inventory.read(str(bank.host.repository), bank.generation)
    reach = choice.reaches(found)[-1]
    ends: dict[int, int] = {}
    place = (str(bank.host.repository), bank.generation, str(bank.server.client_dir), reach.line, str(root))
    with commits.reading(*place) as reader:
        segments = commits.backwards(min(run.first for run in found.runs), reach.last)
        for some in reader.search(segments, "Transaction", lambda records: records):
            ends.update({record.xid: record.lsn for record in some})
    return ends


def asked(moments: list[Moment], index: int, kind: str) -> dict[str, Any]:
    """The target that a moment is. Only some have a name."""
    moment = moments[index]
    if kind == "name" and (index + 1) % NAMED:
        kind = "lsn"
    return {
        "time": {"time": moment.time.isoformat()},
        "lsn": {"lsn": moment.lsn, "inclusive": False},
        "xid": {"xid": moment.xid},
        "name": {"name": f"after_{moment.xid}"},
    }[kind]


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_each_moment_is_restored_exactly(bank: Bank, restorer: Restorer, root: Path, count: int) -> None:
    before = worked(bank)
    moments, ends = bank.moments, records(bank, root)
    chance = random.Random(count)
    named = [index for index in range(before, len(moments) - 2) if (index + 1) % NAMED == 0]
    chosen = [*chance.sample(range(before, len(moments) - 2), count - 1), chance.choice(named)]
    for number, index in enumerate(chosen):
        target = asked(moments, index, "name" if index == chosen[-1] else KINDS[number % len(KINDS)])
        found = restorer.restore(**target)
        assert restorer.state(found) == moments[index].state, target
        reached = position(found["reached"]["lsn"])
        assert ends[int(moments[index].xid)] < reached <= ends[int(moments[index + 1].xid)], target
        data = Path(found["directory"])
        restorer.end(data)
        shutil.rmtree(data)
    _edges(bank, restorer, before)


def _edges(bank: Bank, restorer: Restorer, before: int) -> None:
    """Just within what can be reached, and just outside of it."""
    first, moments = bank.taken[0][1], bank.moments
    last = moments[-1].time
    second = timedelta(seconds=1)
    inside: list[dict[str, Any]] = [
        {"lsn": wal.lsn(first.stop_lsn)},
        {"time": moments[before].time.isoformat()},
        {"time": moments[-2].time.isoformat()},
        {"time": max(moments[before].time, last - second).isoformat()},
        {"xid": moments[before].xid},
        {"xid": moments[-1].xid},
    ]
    for target in inside:
        assert restorer.plan(**target)["backup"], target
    outside: list[dict[str, Any]] = [
        {"lsn": wal.lsn(first.stop_lsn - 1)},
        {"time": moments[before - 2].time.isoformat()},
        {"time": (moments[0].time - second).isoformat()},
        {"time": (last + second).isoformat()},
        {"xid": moments[before - 1].xid},
        {"xid": str(int(moments[-1].xid) + 1000)},
        {"lsn": "FF/0"},
    ]
    for target in outside:
        with pytest.raises(InvalidInput, match=r"cannot be reached|is not in the WAL|before the end"):
            restorer.plan(**target)
