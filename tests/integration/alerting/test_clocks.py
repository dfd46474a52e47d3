# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A clock that was ahead for a while, and is set back, makes nothing fire: with real collections before and after."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ahead import SETTINGS, Ahead
from deploying import deploy
from majors import make_server
from quick import declare, firing

SORTED = "SET work_mem = '64kB'; SELECT count(*) FROM (SELECT DISTINCT generate_series(1, 200000)) AS d"


@pytest.fixture(name="ahead")
def _ahead(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ahead]:
    server = make_server(18, settings=SETTINGS)
    yield Ahead.of(server, tmp_path_factory.mktemp("agent"), monkeypatch)
    server.delete()


def test_counters_do_not_begin_again_where_a_clock_was_ahead(ahead: Ahead) -> None:
    deploy(ahead.server)
    declare(ahead.server, {"temp_bytes": 1.0})

    def fires(later: int) -> list[str]:
        ahead.later(later)
        ahead.measure("database_activity")
        return firing(ahead.server, "temp_bytes", '{"database": "postgres"}')

    def spill() -> None:
        with ahead.server.connect() as session:
            for one in SORTED.split("; "):
                session.execute(one.encode())

    spill()
    assert [fires(0), fires(30), fires(1)] == [[]] * 3
    assert fires(-31) == []
    spill()
    assert fires(1) == ["critical", "warning"]
    # What was measured ahead is overtaken, when less had been counted than now.
    assert [fires(later) for later in (9, 10, 9, 1, 1, 1, 1)] == [[]] * 7
    spill()
    assert fires(1) == ["critical", "warning"]
    assert "rounds of node 1 in the future are forgotten: a clock was ahead" in ahead.server.logged()
