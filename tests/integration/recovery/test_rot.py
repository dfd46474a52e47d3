# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A restore does not choose a way through WAL that a verification found damaged."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest
from backed import flip, put_back
from backing import Bank
from restoring import Restorer

from pgops.backup import clients, scrub
from pgops.backup.scrub import Scrub
from pgops.errors import PgOpsError
from pgops.host.identity import as_user


def test_what_is_behind_a_damaged_segment_is_refused_until_a_good_copy_is_there(
    bank: Bank, restorer: Restorer, root: Path
) -> None:
    bank.work()
    bank.backup()
    before = bank.work()
    bank.work()
    bank.archive()
    newest = max(name for name in bank.host.archived() if len(name) == 24)
    bank.work()
    bank.archive()
    after = bank.work()
    bank.work()
    bank.archive()
    rotten = min(path for name, path in bank.host.archived().items() if len(name) == 24 and name > newest)
    scratch = root / "r"
    scratch.mkdir(mode=0o777)
    scratch.chmod(0o777)
    run = Scrub(
        str(bank.host.repository),
        bank.generation,
        clients.readers([str(bank.server.client_dir)], bank.server.major),
        str(scratch / "scratch"),
    )
    now = datetime.now(timezone.utc)
    with put_back(rotten):
        flip(rotten, 8192)
        done = dict(as_user(restorer.owner, lambda: scrub.scrub(run, 7, now, everything=True), 600))
        assert rotten.name in done["damaged"]
        assert restorer.plan(time=before.time.isoformat())
        with pytest.raises(PgOpsError, match="cannot be reached"):
            restorer.plan(time=after.time.isoformat())
    assert restorer.plan(time=after.time.isoformat())
