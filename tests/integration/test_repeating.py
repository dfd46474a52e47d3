# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The job that collects again within its minute, and what comes in between."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import artifact
import pytest
from deploying import SHIPPED, configured, deploy, withdraw
from servers import Server, until

from pgops import cli, collectors, delivery, latest, repetition, runs
from pgops.collectors import Collector
from pgops.configuration import Peer
from pgops.target import Target


def _collector(name: str, interval: int, expression: str = "1") -> Collector:
    text = f"-- collector: {name}\n-- interval: {interval}\n-- timeout: 60\n-- metric: {name}\n"
    return collectors.parse(f"{text}SELECT {expression} AS {name}", name)


# A role is a flag that every session sees at once.
FLAGGED = "EXISTS (SELECT FROM pg_roles WHERE rolname = 'flag')"
QUICK = _collector("quick", 1)
SLOW = _collector("slow", 60)
FAILS = _collector("fails", 1, f"1 / CASE WHEN {FLAGGED} THEN 0 ELSE 1 END")
HANGS = _collector("hangs", 1, f"pg_sleep(CASE WHEN {FLAGGED} THEN 30 ELSE 0 END) IS NULL AS nothing, 1")
COUNT = "SELECT count(*) FROM pgops.system_metrics WHERE metric_name = '{}'"


@pytest.fixture(name="deployed")
def _deployed(server: Server) -> Iterator[Server]:
    deploy(server)
    yield server
    server.value("DROP ROLE IF EXISTS flag")
    withdraw(server)


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is slowed down because this machine is busy: 250 ms of a second are few enough."""
    monkeypatch.setattr(collectors, "SHARE", 0.25)


def repeat(server: Server, state: Path, found: Sequence[Collector], seconds: float, **settings: Any) -> dict[str, Any]:
    """What the job does in so many seconds; ``state`` is the agent's prefix."""
    configuration, layout = configured(server, state, **settings)
    memory = functools.partial(runs.remembered, f"{layout.state}/collect", 5)
    return repetition.collect(configuration, layout, found, memory, seconds)


def count(server: Server, metric: str) -> int:
    return int(str(server.value(COUNT.format(metric), "pgops")))


@contextlib.contextmanager
def meanwhile(*steps: Any) -> Iterator[None]:
    """Other steps at the same time, in their order; what goes wrong there goes wrong here."""
    with ThreadPoolExecutor() as threads:
        beside = threads.submit(lambda: [step() for step in steps])
        yield
        beside.result(30)


def terminate() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def test_what_is_due_more_often_is_collected_again_in_the_same_session(deployed: Server, tmp_path: Path) -> None:
    opened = "SELECT sessions FROM pg_stat_database WHERE datname = 'pgops'"
    before = int(str(deployed.value(opened)))
    seen: list[object] = []
    own = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgops collect' AND state = 'idle'"
    with meanwhile(
        lambda: until(lambda: "quick" in _exported(tmp_path), "collected"), lambda: seen.append(deployed.value(own))
    ):
        outcome = repeat(deployed, tmp_path, [QUICK, SLOW], 2.6)
    assert (outcome["errors"], outcome["passes"], outcome["collectors"]) == ([], 3, 4)
    assert (outcome["sink"], outcome["spooled"]) == ("local", 0)
    assert (count(deployed, "quick"), count(deployed, "slow")) == (3, 1)
    assert outcome["samples"] == deployed.value("SELECT count(*) FROM pgops.system_metrics", "pgops")
    spread = (
        "SELECT extract(epoch FROM max(collected_at) - min(collected_at)) FROM pgops.system_metrics "
        "WHERE metric_name = 'quick'"
    )
    assert float(str(deployed.value(spread, "pgops"))) == pytest.approx(2, abs=0.4)
    assert seen == [1]
    until(lambda: int(str(deployed.value(opened))) > before, "counted")
    # One of the agent, and those by which this test counts.
    counting = 4
    assert int(str(deployed.value(opened))) - before == 1 + counting


def _exported(state: Path) -> set[str]:
    _path = Path(str(state), "var/lib/pgops/main/state/latest.json")
    return {run.collector for run in latest.load(str(_path))}


def test_where_nothing_is_due_more_often_one_pass_is_all(deployed: Server, tmp_path: Path) -> None:
    began = time.monotonic()
    outcome = repeat(deployed, tmp_path, [SLOW], 30)
    assert (outcome["errors"], outcome["passes"]) == ([], 1)
    assert time.monotonic() - began < 10


def test_what_takes_too_much_of_its_interval_is_not_repeated(deployed: Server, tmp_path: Path) -> None:
    heavy = _collector("heavy", 1, "pg_sleep(0.3) IS NULL AS nothing, 1")
    outcome = repeat(deployed, tmp_path, [QUICK, heavy], 2.6)
    # Slowed down to two seconds, of which 300 ms are few enough.
    assert (count(deployed, "quick"), count(deployed, "heavy")) == (3, 2)
    assert outcome["errors"] == []


@pytest.mark.parametrize("hangs", [False, True])
def test_sigterm_ends_it_and_keeps_what_was_measured(deployed: Server, tmp_path: Path, hangs: bool) -> None:
    asleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    steps = [lambda: until(lambda: count(deployed, "quick") == 1, "collected")]
    if hangs:
        steps += [lambda: deployed.value("CREATE ROLE flag"), lambda: until(lambda: deployed.value(asleep), "asleep")]  # type: ignore[arg-type,list-item,func-returns-value]
    began = time.monotonic()
    with meanwhile(*steps, terminate):
        outcome = repeat(deployed, tmp_path, [QUICK, HANGS], 60)
    assert time.monotonic() - began < 10
    if hangs:
        assert "ended by SIGTERM" in " ".join(outcome["errors"])
        # Not delivered any more: what was measured in the second pass waits.
        assert (outcome["passes"], outcome["spooled"], count(deployed, "quick")) == (2, 1, 1)
        deployed.value("DROP ROLE flag")
        assert repeat(deployed, tmp_path, [QUICK], 0)["errors"] == []
        assert count(deployed, "quick") == 3
    else:
        assert (outcome["errors"], outcome["passes"], outcome["spooled"]) == ([], 1, 0)


def test_a_lost_session_is_no_error_and_a_lost_server_one_of_the_passes_that_miss_it(
    deployed: Server, tmp_path: Path
) -> None:
    ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgops collect'"
    with meanwhile(
        lambda: until(lambda: count(deployed, "quick") == 1, "collected"),
        lambda: deployed.value(ours),
        lambda: until(lambda: count(deployed, "quick") == 2, "collected again"),
        deployed.stop,
        lambda: time.sleep(1.2),
        deployed.start,
        lambda: until(lambda: count(deployed, "quick") > 2, "collected again"),
        terminate,
    ):
        outcome = repeat(deployed, tmp_path, [QUICK, FAILS], 60)
    (error,) = outcome["errors"]
    assert f"port {deployed.port}" in error
    missed = outcome["passes"] - count(deployed, "quick")
    assert 1 <= missed <= 4
    # What those passes missed is told with the next collection of all.
    time.sleep(1)
    assert repeat(deployed, tmp_path, [QUICK, FAILS], 0)["errors"] == []
    newest = (
        "SELECT metric_value FROM pgops.system_metrics WHERE metric_name = 'collector_errors' "
        "AND additional_info ->> 'collector' = 'fails' ORDER BY collected_at DESC LIMIT 1"
    )
    assert deployed.value(newest, "pgops") == missed


def test_errors_of_later_passes_are_said_once_and_counted(deployed: Server, tmp_path: Path) -> None:
    with meanwhile(
        lambda: until(lambda: count(deployed, "quick") == 1, "collected"), lambda: deployed.value("CREATE ROLE flag")
    ):
        outcome = repeat(deployed, tmp_path, [QUICK, FAILS], 2.6)
    (error,) = outcome["errors"]
    assert error.startswith("fails in pgops: division by zero")
    assert error.endswith("(2 times)")
    assert count(deployed, "quick") == 3


def test_a_standby_keeps_one_session_with_its_primary(
    deployed: Server, tmp_path: Path, keep: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    standby = keep(deployed.standby()).start()  # type: ignore[operator]
    place = {"host": str(deployed.socket_dir), "port": str(deployed.port), "user": "pgops", "database": "pgops"}
    there = Target(**place, application_name="sink")  # type: ignore[arg-type]
    monkeypatch.setattr(delivery, "sink_target", lambda _configuration, _layout: there)
    settings = {"node": "db2/main", "peers": (Peer("127.0.0.1"),)}
    pids: set[object] = set()
    watching = "SELECT pid FROM pg_stat_activity WHERE application_name = 'sink'"
    ours = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sink'"
    with meanwhile(
        lambda: until(lambda: count(deployed, "quick") == 1, "collected"),
        lambda: pids.add(deployed.value(watching)),
        lambda: until(lambda: count(deployed, "quick") == 2, "collected again"),
        lambda: pids.add(deployed.value(watching)),
        lambda: deployed.value(ours),
    ):
        outcome = repeat(standby, tmp_path, [QUICK, SLOW], 2.6, **settings)
    assert (outcome["errors"], outcome["sink"], outcome["passes"]) == ([], "primary", 3)
    assert None not in pids
    assert len(pids) == 1
    assert count(deployed, "quick") == 3


def test_a_person_collects_between_the_passes_of_the_job(deployed: Server, tmp_path: Path) -> None:
    configuration, layout = configured(deployed, tmp_path)
    Path(layout.agent_file).parent.mkdir(parents=True)
    Path(layout.agent_file).write_text(configuration.text())
    arguments = ["--prefix", str(tmp_path), "--instance", "main"]
    program = f"import sys; sys.path.insert(0, {str(artifact.BUILD / 'lib')!r}); from pgops import cli; "
    command = [sys.executable, "-c", f"{program}sys.exit(cli.main(sys.argv[1:]))", *arguments, "--repeat", "collect"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "JOURNAL_STREAM": "1:1"}) as job:
        until(lambda: count(deployed, "waiting_sessions") > 0, "collected")
        before = count(deployed, "waiting_sessions")
        # Its first pass may not be over yet, which is told by 75.
        until(lambda: cli.main([*arguments, "collect"]) == 0, "collected by hand")
        assert cli.main([*arguments, "--repeat", "collect"]) == cli.BUSY
        assert job.poll() is None
        job.terminate()
        said = json.loads(job.communicate(timeout=30)[0])
    assert (job.returncode, said["ok"], said["passes"]) == (0, True, 1)
    assert count(deployed, "waiting_sessions") >= before
    assert SHIPPED
