# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restores to each kind of target bring exactly the committed state of the moment."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from archives import Host
from backing import SMALL_SEGMENTS, Bank
from clocks import ServerClock
from restoring import Restorer
from servers import Server
from waiting import until

from pgops.errors import HostFailed, InvalidInput
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


def test_a_time_is_reached_though_the_clock_was_set_back_since(
    root: Path, major: int, new_server: Callable[..., Server], restorers: Callable[[Bank], Restorer]
) -> None:
    """PostgreSQL stops at the first commit after the time, in the order of the WAL; the last one does not matter."""
    server = new_server(major, initdb=SMALL_SEGMENTS)
    clock = ServerClock(server)
    bank = Bank.opened(Host(server.start(), root / "base", root / "prefix"))
    server.stop()  # it was restarted without its clock
    server.start()
    restorer = restorers(bank)
    bank.backup()
    before = bank.work()
    clock.shift(7200)
    bank.work()
    clock.shift(0)
    bank.archive()
    bank.backup()
    last = bank.work()
    bank.archive()
    asked = before.time + timedelta(hours=1)
    assert bank.moments[-4].time > asked > last.time
    found = restorer.restore(time=asked.isoformat())
    assert found["backup"]["name"] == bank.taken[0][0]
    assert restorer.state(found) == before.state
    with pytest.raises(InvalidInput, match="no commit after it is archived"):
        restorer.restore(time=(asked + timedelta(hours=2)).isoformat())


def test_a_copy_has_the_libraries_and_the_memory_that_it_is_to_have(bank: Bank, restorer: Restorer) -> None:
    bank.server.configure({"shared_preload_libraries": "auto_explain"})
    bank.server.stop()
    bank.server.start()
    bank.environment = {"preloaded": ["auto_explain", "pg_cron"]}
    bank.backup()
    (warning,) = restorer.plan_warnings(immediate=True)
    assert warning == "The copy does not preload pg_cron."
    found = restorer.restore(immediate=True)
    assert restorer.value(found, "SHOW shared_preload_libraries") == '"auto_explain"'
    assert restorer.value(found, "SHOW shared_buffers") == "16MB"
    found = restorer.restore(immediate=True, preload=(), shared_buffers="24MB")
    assert restorer.value(found, "SHOW shared_preload_libraries") == ""
    assert restorer.value(found, "SHOW shared_buffers") == "24MB"


def test_without_a_library_of_the_original_nothing_is_copied(bank: Bank, restorer: Restorer) -> None:
    bank.environment = {"preloaded": ["auto_explain", "nowhere_to_be_found"]}
    bank.backup()
    directory = restorer.directory()
    for place in ({"directory": directory}, {"directory": directory, "in_place": True}):
        with pytest.raises(InvalidInput, match="would preload nowhere_to_be_found, and would not start"):
            restorer.restore(immediate=True, **place)
        assert not directory.exists()
    found = restorer.restore(directory=directory, immediate=True, preload=("auto_explain",))
    assert restorer.value(found, "SHOW shared_preload_libraries") == '"auto_explain"'
