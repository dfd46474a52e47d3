# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restores to each kind of target bring exactly the committed state of the moment."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
from backing import Bank
from restoring import Restorer
from waiting import until

from pgops.errors import HostFailed
from pgops.host.identity import as_user
from pgops.recovery import restore


def test_each_kind_of_target_brings_the_state_of_its_moment(bank: Bank, restorer: Restorer) -> None:
    bank.work()
    bank.backup()
    at_backup = bank.moments[-1]
    moment = bank.work()
    bank.point("before_drop")
    bank.work()
    bank.archive()
    last = bank.work()
    bank.archive()

    found = restorer.restore(time=moment.time.isoformat())
    assert restorer.state(found) == moment.state
    assert found["reached"]["timeline"] == 2
    assert restorer.state(restorer.restore(lsn=moment.lsn, inclusive=False)) == moment.state
    assert restorer.state(restorer.restore(name="before_drop")) == moment.state
    assert restorer.state(restorer.restore(xid=moment.xid)) == moment.state
    before = bank.moments[bank.moments.index(moment) - 1]
    assert restorer.state(restorer.restore(xid=moment.xid, inclusive=False)) == before.state
    assert restorer.state(restorer.restore(immediate=True)) == at_backup.state
    assert restorer.state(restorer.restore(latest=True)) == last.state


def test_settings_that_the_original_has_raised_since_are_raised_for_the_recovery(
    bank: Bank, restorer: Restorer
) -> None:
    bank.backup()
    bank.work()
    bank.server.configure({"max_connections": "70", "max_worker_processes": "11"})
    bank.server.stop()
    bank.server.start()
    moment = bank.work()
    bank.archive()
    bank.work()
    bank.archive()
    found = restorer.restore(time=moment.time.isoformat())
    assert restorer.state(found) == moment.state
    assert restorer.value(found, "SHOW max_connections") == "50"


@pytest.mark.parametrize("count", [6, pytest.param(50, marks=pytest.mark.slow)])
def test_random_moments_while_backups_are_taken(bank: Bank, restorer: Restorer, count: int) -> None:
    chance = random.Random(count)
    bank.backup()
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            bank.work(1)
            if len(bank.moments) % 7 == 0:
                bank.point(f"after_{bank.moments[-1].xid}")

    worker = threading.Thread(target=work)
    worker.start()
    try:
        for _number in range(2):
            bank.archive()
            bank.backup()
        bank.archive()
    finally:
        stop.set()
        worker.join()
    bank.work(1)
    bank.archive()
    for moment in chance.sample(bank.moments[1:-1], count):
        index = bank.moments.index(moment)
        asked: dict[str, Any] = {
            "time": {"time": moment.time.isoformat()},
            "lsn": {"lsn": moment.lsn, "inclusive": False},
            "xid": {"xid": moment.xid},
        }[chance.choice(["time", "lsn", "xid"])]
        if (index + 1) % 7 == 0:
            asked = {"name": f"after_{moment.xid}"}
        found = restorer.restore(**asked)
        assert restorer.state(found) == moment.state, asked
        data = Path(found["directory"])
        restorer.end(data)
        shutil.rmtree(data)


def test_a_server_that_is_killed_while_it_recovers_is_told(bank: Bank, restorer: Restorer) -> None:
    bank.backup()
    bank.work()
    bank.archive()
    directory = restorer.directory()

    def kill(text: str) -> None:
        if text == "recover":
            threading.Thread(target=killed, daemon=True).start()

    def killed() -> None:
        lock = directory / "postmaster.pid"
        until(lambda: lock.exists() and lock.read_text().strip() != "", "started", pause=0.001)
        os.kill(int(lock.read_text().split()[0]), signal.SIGKILL)

    request = restorer.request(directory=directory, latest=True)
    with pytest.raises(HostFailed, match="phase recover"):
        as_user(restorer.owner, lambda: restore.restore(request, kill), 600.0)
    last = bank.moments[-1]
    assert restorer.state(restorer.restore(directory=directory, latest=True)) == last.state
