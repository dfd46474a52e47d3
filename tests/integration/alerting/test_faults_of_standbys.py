# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shipped rules fire by a standby that lags, and resolve once it has caught up."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clusters import Node, primary, streaming
from deploying import SHIPPED
from majors import make_server
from quick import declare, firing
from waiting import until

MEASURED = [one for one in SHIPPED if one.name in ("replication", "standby")]
BOTH = ["critical", "warning"]
LOWERED = {"replay_delay": 0.001, "replication_lag_bytes": 100_000.0}
WRITTEN = "SELECT count(pg_logical_emit_message(false, 'test', repeat('x', 1000))) FROM generate_series(1, 1000)"


@pytest.fixture(name="pair")
def _pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    with make_server(18) as server:
        first = primary(server, "db1/main", tmp_path / "one")
        second = first.standby("db2/main", tmp_path / "two")
        with second.server:
            streaming(server)
            yield first, second


def seen(pair: tuple[Node, Node], name: str) -> list[str]:
    """What both nodes measure, and at which severities a rule fires by it."""
    for node in pair:
        assert node.collect([one for one in MEASURED if one.for_version(node.server.major)])["errors"] == []
    return firing(pair[0].server, name)


def test_a_standby_whose_replay_is_paused_lags_until_it_goes_on(pair: tuple[Node, Node]) -> None:
    first, second = pair
    declare(first.server, LOWERED, expected_standbys=1)
    until(lambda: seen(pair, "replay_delay"), "caught up", [])
    second.server.value("SELECT pg_wal_replay_pause()")
    until(lambda: second.server.value("SELECT pg_get_wal_replay_pause_state()"), "paused", "paused")
    first.server.value(WRITTEN)
    until(lambda: seen(pair, "replay_delay"), "firing", BOTH)
    until(lambda: seen(pair, "replication_lag_bytes"), "firing", BOTH)
    assert firing(first.server, "standby_missing") == []
    second.server.value("SELECT pg_wal_replay_resume()")
    until(lambda: seen(pair, "replication_lag_bytes"), "resolved", [])
    until(lambda: seen(pair, "replay_delay"), "resolved", [])


def test_a_standby_that_is_gone_is_missing_until_it_is_back(pair: tuple[Node, Node]) -> None:
    first, second = pair
    declare(first.server, LOWERED, expected_standbys=1)
    second.server.stop()
    streaming(first.server, 0)

    def missing() -> list[str]:
        assert first.collect([one for one in MEASURED if one.name == "replication"])["errors"] == []
        return firing(first.server, "standby_missing")

    until(missing, "firing", ["critical"])
    second.server.start()
    streaming(first.server)
    until(missing, "resolved", [])
