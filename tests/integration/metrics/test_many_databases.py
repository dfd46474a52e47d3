# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server with many databases: how many are connected to at once, and what becomes of those that come and go."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deploying import collect
from servers import Server
from waiting import PATIENCE, until

from pgops.metrics import collectors
from pgops.metrics.collectors import Collector
from pgops.metrics.history import Runs, key
from pgops.metrics.pace import paced

MANY = [f"many_{number}" for number in range(8)]
SAMPLES = "SELECT count(*) FROM pgops.system_metrics WHERE metric_name = 'inside'"
DATABASES = "SELECT count(*) FROM pg_database WHERE datallowconn AND NOT datistemplate"


FLAGGED = "CASE WHEN EXISTS (SELECT FROM pg_roles WHERE rolname = 'flag') THEN 30 ELSE 0 END"


def _slow(seconds: float | str) -> Collector:
    header = "-- collector: inside\n-- scope: database\n-- interval: 300\n-- timeout: 60\n-- metric: inside\n"
    asleep = f"pg_sleep(CASE WHEN current_database() LIKE 'many%' THEN {seconds} ELSE 0 END) IS NULL AS slept"
    return collectors.parse(f"{header}SELECT current_database() AS database, {asleep}, 1 AS inside", "inside")


@pytest.fixture(name="deployed")
def _deployed(deployed: Server) -> Iterator[Server]:
    server = deployed
    for name in MANY:
        server.value(f"CREATE DATABASE {name}")
    yield server
    for name in [*MANY, "many_later"]:
        server.value(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def measured(server: Server) -> set[str]:
    """The databases of which there is a sample."""
    select = "SELECT array_agg(DISTINCT database_name) FROM pgops.system_metrics WHERE metric_name = 'inside'"
    found = server.value(select, "pgops")
    return set(found) if isinstance(found, list) else set()


def test_where_time_is_short_all_come_in_turn_by_one_more_connection(deployed: Server, tmp_path: Path) -> None:
    deployed.value(f"REVOKE CONNECT ON DATABASE {MANY[0]} FROM PUBLIC")
    all_of_them = int(str(deployed.value(DATABASES)))
    sessions, over = [0], threading.Event()

    def watch() -> None:
        with deployed.connect() as watcher:
            count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgops collect'"
            while not over.wait(0.005):
                sessions.append(watcher.execute(count).fetchone()[0])  # type: ignore[index]

    left_out = stored = 0
    with ThreadPoolExecutor() as threads:
        watching = threads.submit(watch)
        try:
            for _run in range(60):
                outcome = collect(deployed, tmp_path, found=[_slow(0.1)], time_budget=0.3)
                said = " ".join(outcome["errors"])
                left = re.search(r"time limit reached: (\d+) databases were left out", said)
                behind = int(left.group(1)) if left else 0
                left_out += behind
                # Each is measured, refuses us, is cut short or is left out.
                refused = said.count('permission denied for database "many_0"')
                cut = said.count("inside in ")
                stored, before = int(str(deployed.value(SAMPLES, "pgops"))), stored
                assert stored - before + refused + cut + behind == all_of_them, said
                if len(measured(deployed)) == all_of_them - 1:
                    break
        finally:
            over.set()
            watching.result(PATIENCE)
    assert left_out > 0
    assert len(measured(deployed)) == all_of_them - 1
    assert MANY[0] not in measured(deployed)
    # One more than that to the ops database; a server that is busy may still show some that have ended.
    assert 2 <= max(sessions) <= 4


def test_databases_that_come_and_go_cost_nobody_else_anything(deployed: Server, tmp_path: Path) -> None:
    asleep = (
        "SELECT datname FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND application_name = 'pgops collect'"
    )
    dropped = []

    deployed.value("CREATE ROLE flag")

    def drop() -> None:
        until(lambda: deployed.value(asleep) is not None, "asleep")
        present = str(deployed.value(asleep))
        deployed.value("DROP ROLE flag")  # the others take no time
        dropped.extend([present, next(name for name in MANY if name != present)])
        for name in dropped:
            deployed.value(f"DROP DATABASE {name} WITH (FORCE)")

    with ThreadPoolExecutor() as threads:
        dropping = threads.submit(drop)
        outcome = collect(deployed, tmp_path, found=[_slow(FLAGGED)])
        dropping.result(PATIENCE)
    assert [error for error in outcome["errors"] if not any(name in error for name in dropped)] == []
    assert 1 <= len(outcome["errors"]) <= 2
    left = set(MANY) - set(dropped)
    assert left < measured(deployed)
    assert dropped[0] not in measured(deployed)
    deployed.value("CREATE DATABASE many_later")
    assert collect(deployed, tmp_path, found=[_slow(0)])["errors"] == []
    assert "many_later" in measured(deployed)


def test_a_slow_database_slows_down_itself_only(deployed: Server, tmp_path: Path) -> None:
    slow = _slow(f"CASE WHEN current_database() = '{MANY[0]}' THEN 60 ELSE 0 END")
    runs = Runs()
    for _run in range(2):
        runs.last.clear()  # all are due, however little time has passed
        outcome = collect(deployed, tmp_path, found=[slow], runs=runs, time_budget=10)
        (error,) = outcome["errors"]
        assert f"inside in {MANY[0]}: " in error
    assert measured(deployed) >= set(MANY[1:])
    assert outcome["slowed"]["inside"] > slow.interval
    intervals = {name: paced([slow], runs).of(slow, name).interval for name in MANY}
    # Where the machine is busy, others may be slow as well, but none as it is.
    assert intervals.pop(MANY[0]) > max(intervals.values())
    # It has its own time, and is counted once for all the others.


def test_databases_that_were_left_out_come_first(deployed: Server, tmp_path: Path) -> None:
    runs, found = Runs(), _slow(1)
    collect(deployed, tmp_path, found=[found], runs=runs, time_budget=2.5)
    left_out = set(runs.left_out)
    assert left_out & set(MANY)
    runs.last.clear()
    collect(deployed, tmp_path, found=[found], runs=runs, time_budget=2.5)
    came = {name for name in MANY if key(found.name, name) in runs.last}
    assert came
    assert came <= left_out or left_out & set(MANY) <= came
    assert not came & runs.left_out
