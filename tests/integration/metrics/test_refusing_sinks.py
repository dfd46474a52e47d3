# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A sink that refuses whatever it is given costs one attempt, and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import binaries
import pytest
from deploying import collect, deploy
from servers import Server

LAST = 2_144_484_900
"""A transaction id after which a server that began with 3 gives out none any more: three million are left."""
SEGMENT = 32_768 * 32
"""Transactions of which one file of pg_xact says what became of them, two bits each."""


@pytest.fixture(name="exhausted")
def _exhausted(major: int, new_server: Callable[..., Server]) -> Server:
    """A server with the ops database that is out of transaction ids; an old prepared transaction keeps vacuum, which
    would otherwise be there at once, from freeing any."""
    if major != binaries.majors()[-1]:
        pytest.skip("pg_resetwal is of the newest version")
    server = new_server(major, settings={"max_prepared_transactions": "1"}).start()
    deploy(server)
    with server.connect("pgops") as session:
        session.execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'old'")
    return server


def test_a_server_without_transaction_ids_has_its_samples_spooled(exhausted: Server, tmp_path: Path) -> None:
    assert collect(exhausted, tmp_path)["errors"] == []
    exhausted.stop()
    exhausted.run(exhausted.client("pg_resetwal"), "-x", str(LAST), "-D", exhausted.data_dir)
    status = exhausted.data_dir / "pg_xact" / f"{LAST // SEGMENT:04X}"
    exhausted.write(status, "\0" * (SEGMENT // 4))
    exhausted.start()
    before = exhausted.log.stat().st_size
    outcome = collect(exhausted, tmp_path)
    (error,) = outcome["errors"]
    assert "not accepting commands that assign new transaction IDs" in error
    assert "will be retried" in error
    assert (outcome["dropped"], outcome["delivered"]) == (0, 0)
    assert outcome["spooled"] > 0
    assert exhausted.logged(since=before).count("STATEMENT:") < 5


def test_what_somebody_put_onto_a_table_loses_nothing(deployed: Server, tmp_path: Path) -> None:
    deployed.value("ALTER TABLE pgops.round ADD CONSTRAINT never CHECK (false) NOT VALID", "pgops")
    outcome = collect(deployed, tmp_path)
    (error,) = outcome["errors"]
    assert "will be retried" in error
    assert (outcome["dropped"], outcome["delivered"]) == (0, 0)
    deployed.value("ALTER TABLE pgops.round DROP CONSTRAINT never", "pgops")
    later = collect(deployed, tmp_path)
    assert (later["errors"], later["spooled"]) == ([], 0)
    assert later["delivered"] > outcome["spooled"]
