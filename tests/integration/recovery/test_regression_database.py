# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All kinds of objects that PostgreSQL has come back from a restore as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import regression
from archives import Host
from backed import Backed
from backing import Bank
from restoring import Restorer

from pgops.repository import wal
from pgops.repository.manifests import Manifest

LATER = """
SELECT lo_from_bytea(0, 'of a later time');
UPDATE tenk1 SET stringu1 = 'later' WHERE unique1 % 3 = 0;
CREATE TABLE later AS SELECT * FROM onek;
VACUUM;
"""
MISTAKE = "DROP TABLE later; TRUNCATE tenk2; DELETE FROM tenk1 WHERE unique1 % 2 = 0"


def test_tablespaces_that_are_no_links_come_back(make: Callable[..., Host], root: Path) -> None:
    backed = Backed.of(make())
    restorer = Restorer(Bank(backed.host), root)
    with backed.server.connect() as session:
        session.execute("SET allow_in_place_tablespaces = on")
        session.execute("CREATE TABLESPACE inside LOCATION ''")
        session.execute("CREATE TABLE kept TABLESPACE inside AS SELECT 'here' AS word")
    backed.take()
    try:
        found = restorer.restore(immediate=True)
        assert restorer.value(found, "SELECT word FROM kept") == "here"
    finally:
        for data in restorer.made:
            restorer.end(data)


@pytest.mark.slow
@pytest.mark.every_major(since=18)  # whose tests are known, and whose programs the tests have
def test_the_database_of_the_regression_tests_comes_back(make: Callable[..., Host], root: Path) -> None:
    backed = Backed.of(
        make(initdb=("--data-checksums",), settings={"summarize_wal": "on"}),
        incremental=True,
        unsafe_incremental=True,
    )
    bank = Bank(backed.host)
    restorer = Restorer(bank, root)
    regression.make(bank.server)
    full = backed.kept(backed.take()).manifest
    at_backup = regression.dumped(bank.server)
    bank.archive()
    regression.run(bank.server, LATER)
    assert backed.kept(backed.take()).manifest.kind == "incremental"
    bank.point("before_mistake")
    before_mistake = regression.dumped(bank.server)
    bank.server.value(MISTAKE, regression.NAME)
    bank.archive()
    latest = regression.dumped(bank.server)
    assert len({at_backup, before_mistake, latest}) == 3
    try:
        for asked, expected in (
            ({"name": "before_mistake"}, before_mistake),
            ({"lsn": end_of(full), "inclusive": False}, at_backup),
            ({"latest": True}, latest),
        ):
            found = restorer.restore(**asked)
            restored = restorer.server(Path(found["directory"]), found["port"])
            assert regression.dumped(restored) == expected, asked
            regression.check(restored)
    finally:
        for data in restorer.made:
            restorer.end(data)


def end_of(backup: Manifest) -> str:
    """Where it ends, as PostgreSQL writes it."""
    return wal.lsn(backup.stop_lsn)
