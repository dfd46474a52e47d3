# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shipped rules fire by faults that only minutes show, on a host whose clock the test sets ahead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import disks
import pytest
from ahead import SETTINGS, Ahead
from backing import own
from clusters import primary, streaming
from deploying import configured, deploy
from majors import make_server
from quick import declare, firing
from servers import Server
from waiting import until

from pgops.instance import records

BOTH = ["critical", "warning"]
WRITTEN = "SELECT count(pg_logical_emit_message(false, 'test', repeat('x', 1000))) FROM generate_series(1, 1000)"


@pytest.fixture(name="server")
def _server() -> Iterator[Server]:
    made = make_server(18, settings=SETTINGS)
    yield made
    made.delete()


@pytest.fixture(name="ahead")
def _ahead(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Ahead:
    return Ahead.of(server, tmp_path, monkeypatch)


def test_a_disk_that_fills_fires_until_it_no_longer_does(ahead: Ahead) -> None:
    deploy(ahead.server)
    declare(ahead.server, {})
    place = ahead.server.directory / "space"
    roomy = '{"tablespace": "roomy"}'
    with disks.small(place, "60m") as mounted:
        if not mounted:
            pytest.skip("nothing can be mounted here")
        own(place, ahead.server)
        ahead.server.value(f"CREATE TABLESPACE roomy LOCATION '{place}'")

        def goes_on(bytes_more: int) -> list[str]:
            with (place / "filler").open("ab") as filler:
                filler.write(b"x" * bytes_more)
            ahead.later(2)
            ahead.measure("disks")
            return firing(ahead.server, "disk_filling", roomy)

        assert [goes_on(2_000_000) for _turn in range(3)] == [[]] * 3
        until(lambda: goes_on(2_000_000), "firing", ["critical"])
        assert firing(ahead.server, "disk_usage", roomy) == []
        (place / "filler").unlink()
        until(lambda: goes_on(0), "resolved", [])
        ahead.server.value("DROP TABLESPACE roomy")


def test_a_standby_that_does_not_catch_up_fires_until_it_does(ahead: Ahead, tmp_path: Path) -> None:
    first = primary(ahead.server, "db1/main", tmp_path / "one")
    second = first.standby("db2/main", tmp_path / "two")
    with second.server:
        streaming(ahead.server)
        declare(ahead.server, {"replication_lag_not_shrinking": 100_000.0}, expected_standbys=1)
        second.server.value("SELECT pg_wal_replay_pause()")
        until(lambda: second.server.value("SELECT pg_get_wal_replay_pause_state()"), "paused", "paused")

        def goes_on(written: str) -> list[str]:
            ahead.server.value(written)
            ahead.later(1)
            ahead.measure("replication")
            return firing(ahead.server, "replication_lag_not_shrinking")

        assert goes_on(WRITTEN) == []
        until(lambda: goes_on(WRITTEN), "firing", ["critical"])
        second.server.value("SELECT pg_wal_replay_resume()")
        until(lambda: goes_on("SELECT 1"), "resolved", [])


def test_an_agent_that_stands_still_fires_until_it_goes_on(ahead: Ahead) -> None:
    deploy(ahead.server)
    declare(ahead.server, {})

    def stale() -> list[str]:
        return firing(ahead.server, "collector_stale", '{"collector": "agent"}')

    ahead.measure("connections")
    assert stale() == []
    ahead.later(5)
    assert stale() == ["warning"]
    ahead.later(10)
    assert stale() == BOTH
    ahead.measure("connections")
    assert stale() == []


def test_a_watch_that_does_not_run_fires_until_it_does(ahead: Ahead) -> None:
    deploy(ahead.server)
    declare(ahead.server, {})
    _configuration, layout = configured(ahead.server, ahead.state)

    def ran(ago: float) -> list[str]:
        ahead.later(1)
        records.note(layout, "watch", ahead.clock() - ago, 0.1, 0)
        ahead.measure("connections")
        return firing(ahead.server, "watch_stale")

    assert ran(30) == []
    assert ran(700) == ["critical"]
    assert ran(1) == []
