# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Restores to each kind of target bring exactly the committed state of the moment."""

from __future__ import annotations

from backing import Bank
from restoring import Restorer


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
