# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server all of whose connections are taken: the agent stays in, is let in by what is reserved, or knows that it
was refused."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from clocks import Clock
from deploying import SHIPPED, collect, configured, deploy
from servers import Server

from pgops.errors import LoginRefused, QueryFailed
from pgops.metrics import collect as collection
from pgops.metrics import collectors, history, latest
from pgops.metrics import repeat as repetition
from pgops.metrics.collectors import Collector

ACTIVITY = next(one for one in SHIPPED if one.name == "activity")
QUICK = collectors.parse("-- collector: quick\n-- interval: 10\n-- metric: quick\nSELECT 1 AS quick", "quick")
SLOW = collectors.parse("-- collector: slow\n-- metric: slow\nSELECT 1 AS slow", "slow")
FOUND = [ACTIVITY, QUICK, SLOW]
SMALL = {"max_connections": "15"}
PASSES = 25.0
"""Seconds of a minute in which there are three passes."""
VALUES = """
SELECT coalesce(jsonb_agg(s.metric_value ORDER BY s.collected_at), '[]') FROM pgops.system_metrics AS s
WHERE s.metric_name = '{}'
"""


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that the job goes by."""
    clock = Clock()
    for module in (repetition, collection):
        monkeypatch.setattr(module, "time", clock)
    return clock


def small(major: int, new_server: Callable[..., Server], **settings: str) -> Server:
    server = new_server(major, settings={**SMALL, **settings}).start()
    deploy(server)
    server.value("CREATE ROLE crowd LOGIN")
    return server


class Crowd:
    """Sessions of an ordinary role, which take all connections that are there for it."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.sessions = contextlib.ExitStack()

    def come(self) -> None:
        with contextlib.suppress(psycopg.OperationalError):
            while True:
                self.sessions.enter_context(self.server.connect(user="crowd"))

    def go(self) -> None:
        self.sessions.close()


@pytest.fixture(name="crowd")
def _crowd(major: int, new_server: Callable[..., Server]) -> Iterator[Crowd]:
    found = Crowd(small(major, new_server))
    yield found
    found.go()


def repeat(
    server: Server, state: Path, seconds: float = PASSES, found: Sequence[Collector] = FOUND, limited: bool = False
) -> dict[str, Any]:
    configuration, layout = configured(server, state)
    memory = history.Memory(f"{layout.state}/collect", 5)
    return repetition.collect(configuration, layout, found, memory, seconds, limited)


def values(server: Server, metric: str) -> list[float]:
    """All of a metric, the oldest first."""
    found = server.value(VALUES.format(metric), "pgops")
    assert isinstance(found, list)
    return [float(one) for one in found]


def nothing() -> None:
    pass


@pytest.mark.every_major
def test_a_session_that_could_not_be_had_again_is_kept_and_sees_it_all(
    crowd: Crowd, tmp_path: Path, clock: Clock
) -> None:
    # Sleeps: to the second and the third pass, to the next minute, and to the second and the third pass of it.
    clock.meanwhile = [crowd.come, nothing, nothing, nothing, crowd.go]
    outcome = repeat(crowd.server, tmp_path)
    assert (outcome["errors"], outcome["passes"], outcome["spooled"]) == ([], 6, 0)
    used = values(crowd.server, "connections_used_percent")
    assert len(used) == 6
    assert all(percent >= 100 for percent in used[1:5])
    assert max(used[0], used[5]) < 50
    assert values(crowd.server, "slow") == [1, 1]
    assert values(crowd.server, "login_refused") == [0, 1]


@pytest.mark.every_major
def test_a_refusal_is_stored_with_its_own_time_and_what_it_says(crowd: Crowd, tmp_path: Path, clock: Clock) -> None:
    layout = configured(crowd.server, tmp_path)[1]
    crowd.come()
    with pytest.raises(LoginRefused, match="refused role pgops"):
        repeat(crowd.server, tmp_path, seconds=15)
    told = [run for run in latest.present([layout.latest, layout.latest_repeated], clock.time()) if run.samples]
    assert {run.collector: dict(run.samples) for run in told} == {
        "login": {'{"metric": "login_refused"}': 1},
        "activity": {'{"metric": "connections_used_percent"}': 100},
    }
    crowd.go()
    clock.now += 30
    assert repeat(crowd.server, tmp_path, seconds=0)["errors"] == []
    # Refused, and refused once more ten seconds later.
    assert values(crowd.server, "login_refused") == [1, 1, 0]
    used = values(crowd.server, "connections_used_percent")
    assert used[:2] == [100, 100]
    assert used[2] < 50
    assert len(used) == 3
    spread = "SELECT extract(epoch FROM max(collected_at) - min(collected_at)) FROM pgops.system_metrics WHERE {}"
    assert crowd.server.value(spread.format("metric_name = 'login_refused'"), "pgops") == pytest.approx(40)


def test_within_the_minute_a_connection_that_becomes_free_is_taken(
    crowd: Crowd, tmp_path: Path, clock: Clock
) -> None:
    crowd.come()
    clock.meanwhile = [nothing, crowd.go]
    outcome = repeat(crowd.server, tmp_path)
    (error,) = outcome["errors"]
    assert error.endswith("(2 times)")
    assert outcome["passes"] == 1
    assert values(crowd.server, "login_refused") == [1, 1, 0]


def test_one_collection_by_hand_tells_a_refusal_as_well(crowd: Crowd, tmp_path: Path) -> None:
    crowd.come()
    with pytest.raises(LoginRefused):
        collect(crowd.server, tmp_path, found=FOUND)
    crowd.go()
    assert collect(crowd.server, tmp_path, found=FOUND)["errors"] == []
    assert values(crowd.server, "login_refused") == [1, 0]


def test_another_refusal_says_nothing_of_the_connections(crowd: Crowd, tmp_path: Path, clock: Clock) -> None:
    crowd.server.value("ALTER ROLE pgops NOLOGIN")
    with pytest.raises(LoginRefused):
        repeat(crowd.server, tmp_path)
    crowd.server.value("ALTER ROLE pgops LOGIN")
    clock.now += 60
    assert repeat(crowd.server, tmp_path, seconds=0)["errors"] == []
    assert values(crowd.server, "login_refused") == [1, 0]
    assert len(values(crowd.server, "connections_used_percent")) == 1


def test_a_run_does_not_stay_for_ever(
    crowd: Crowd, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repetition, "LONGEST", 125.0)
    clock.meanwhile = [crowd.come]
    began = clock.now
    outcome = repeat(crowd.server, tmp_path)
    assert (outcome["errors"], outcome["passes"]) == ([], 9)
    assert clock.now == pytest.approx(began + 140)


def test_one_that_hangs_is_ended_with_its_minute(
    crowd: Crowd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repetition, "LIMIT", 0.5)
    hangs = collectors.parse(
        "-- collector: hangs\n-- timeout: 600\n-- metric: hangs\nSELECT 1 AS hangs, pg_sleep(500) IS NULL AS slept",
        "hangs",
    )
    try:
        errors = repeat(crowd.server, tmp_path, found=[hangs], limited=True)["errors"]
    except QueryFailed as error:  # on a busy machine it has not even begun
        errors = [str(error)]
    assert errors
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


@pytest.mark.every_major(since=16)
def test_reserved_connections_let_the_agent_in(major: int, new_server: Callable[..., Server], tmp_path: Path) -> None:
    server = small(major, new_server, reserved_connections="3")
    crowd = Crowd(server)
    crowd.come()
    try:
        outcome = collect(server, tmp_path, found=FOUND)
    finally:
        crowd.go()
    assert (outcome["errors"], outcome["spooled"]) == ([], 0)
    (used,) = values(server, "connections_used_percent")
    assert used >= 100
    assert values(server, "login_refused") == [0]
