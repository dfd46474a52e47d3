# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A generation that no server writes into any more, as pg_upgrade leaves it, stays restorable."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from archives import Host
from backing import SMALL_SEGMENTS, Bank
from restoring import Restorer
from servers import Server

from pgops.backup.expiry import Expiry
from pgops.backup.retention import Retention
from pgops.errors import InvalidInput
from pgops.host.identity import as_user
from pgops.recovery import restore


def test_the_generation_before_an_upgrade_is_restored_and_kept(
    root: Path, bank: Bank, restorer: Restorer, new_server: Callable[..., Server]
) -> None:
    bank.work()
    bank.backup()
    moment = bank.work()
    bank.work()
    bank.archive()
    old = bank.generation
    bank.server.stop()
    upgraded = Host(new_server(bank.server.major, initdb=SMALL_SEGMENTS).start(), root / "base", root / "prefix")
    upgraded.params = {"another_server": True}
    upgraded.registered = upgraded.server.data_dir
    upgraded.apply()
    upgraded.wait_for(upgraded.switch())
    assert len([path for path in bank.host.repository.iterdir() if path.is_dir()]) == 2

    # Years later, what is needed of it is still there.
    run = Expiry(str(bank.host.repository), old, Retention(), datetime.now(timezone.utc) + timedelta(days=2000))
    done = as_user(restorer.owner, lambda: {"removed": len(run.apply().removed)})
    assert done == {"removed": 0}

    request = restorer.request(time=moment.time.isoformat())
    with pytest.raises(InvalidInput, match="generation"):
        as_user(restorer.owner, lambda: restore.plan(request).told())
    named = dataclasses.replace(request, generation=old)
    found = dict(as_user(restorer.owner, lambda: restore.restore(named), 600.0))
    assert restorer.state(found) == moment.state
