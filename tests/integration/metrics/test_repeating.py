# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The job that collects again within its minute, and what comes in between."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import artifact
import pytest
from deploying import SHIPPED, configured, deploy, withdraw
from servers import Server, until

from pgops import cli
from pgops.agent import runner
from pgops.errors import Unreachable
from pgops.instance import endpoints
from pgops.instance.configuration import Peer
from pgops.metrics import collectors, history, latest
from pgops.metrics import repeat as repetition
from pgops.metrics.collectors import Collector
from pgops.server.session import Session
from pgops.server.target import Target

pytestmark = pytest.mark.ends


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


def repeat(
    server: Server, state: Path, found: Sequence[Collector], seconds: float, **settings: Any
) -> dict[str, Any]:
    """What the job does in so many seconds; ``state`` is the agent's prefix."""
    configuration, layout = configured(server, state, **settings)
    memory = history.Memory(f"{layout.state}/collect", 5)
    return repetition.collect(configuration, layout, found, memory, seconds)


def count(server: Server, metric: str) -> int:
    return int(str(server.value(COUNT.format(metric), "pgops")))


@contextlib.contextmanager
def meanwhile(*steps: Callable[[], object]) -> Iterator[None]:
    """Other steps at the same time, in their order; what goes wrong there goes wrong here."""
    with ThreadPoolExecutor() as threads:
        beside = threads.submit(lambda: [step() for step in steps])
        yield
        beside.result(30)


def terminate() -> None:
    time.sleep(0.3)  # what was seen in the database is known to the job by then
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def test_what_is_due_more_often_is_collected_again_in_the_same_session(deployed: Server, tmp_path: Path) -> None:
    own = "SELECT array_agg(pid)::text FROM pg_stat_activity WHERE application_name = 'pgops collect'"
    seen: list[object] = []
    with meanwhile(*watched(deployed, lambda: seen.append(deployed.value(own)))):
        outcome = repeat(deployed, tmp_path, [QUICK, SLOW], 2.95)
    assert (outcome["errors"], outcome["passes"], outcome["collectors"]) == ([], 3, 4)
    assert (outcome["sink"], outcome["spooled"]) == ("local", 0)
    assert (count(deployed, "quick"), count(deployed, "slow")) == (3, 1)
    assert outcome["samples"] == deployed.value("SELECT count(*) FROM pgops.system_metrics", "pgops")
    spread = (
        "SELECT extract(epoch FROM max(collected_at) - min(collected_at)) FROM pgops.system_metrics "
        "WHERE metric_name = 'quick'"
    )
    assert float(str(deployed.value(spread, "pgops"))) == pytest.approx(2, abs=0.9)
    assert seen == [only(seen[0])] * 2
    layout = configured(deployed, tmp_path)[1]
    kept = latest.present([layout.latest, layout.latest_repeated], time.time())
    assert {run.collector: len(run.samples) for run in kept} == {"quick": 1, "slow": 1, "agent": 5}
    # The whole is written once, the newest of what is repeated each time.
    again = latest.load(layout.latest_repeated)
    assert [run.collector for run in again] == ["quick"]
    assert again[0].collected_at > latest.load(layout.latest)[0].collected_at + 1


def only(pids: object) -> str:
    """An array of one pid, as text."""
    found = str(pids)
    assert re.fullmatch(r"{\d+}", found), found
    return found


def watched(server: Server, look: Callable[[], object]) -> list[Callable[[], object]]:
    """Steps that look once after each of two passes."""
    return [
        lambda: until(lambda: count(server, "quick") == 1, "collected"),
        look,
        lambda: until(lambda: count(server, "quick") == 2, "collected again"),
        look,
    ]


def test_where_nothing_is_due_more_often_one_pass_is_all(deployed: Server, tmp_path: Path) -> None:
    began = time.monotonic()
    outcome = repeat(deployed, tmp_path, [SLOW], 30)
    assert (outcome["errors"], outcome["passes"]) == ([], 1)
    assert time.monotonic() - began < 25  # it would stay for 30 s


def test_what_takes_too_much_of_its_interval_is_not_repeated(deployed: Server, tmp_path: Path) -> None:
    heavy = _collector("heavy", 1, "pg_sleep(0.3) IS NULL AS nothing, 1")
    time.sleep(2 - time.time() % 2 + 0.2)  # not at the edge of its slots
    outcome = repeat(deployed, tmp_path, [QUICK, heavy], 2.95)
    # Slowed down to two seconds, of which 300 ms are few enough.
    assert (count(deployed, "quick"), count(deployed, "heavy")) == (3, 2)
    assert outcome["errors"] == []


@pytest.mark.parametrize("hangs", [False, True])
def test_sigterm_ends_it_and_keeps_what_was_measured(deployed: Server, tmp_path: Path, hangs: bool) -> None:
    def slept() -> object:
        return deployed.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")

    steps: list[Callable[[], object]] = [lambda: until(lambda: count(deployed, "quick") == 1, "collected")]
    if hangs:
        steps += [lambda: deployed.value("CREATE ROLE flag"), lambda: until(lambda: slept() == 1, "asleep")]
    began = time.monotonic()
    with meanwhile(*steps, terminate):
        # It is ended while it waits for its next turn, or in the midst of its second pass.
        outcome = repeat(deployed, tmp_path, [QUICK, HANGS] if hangs else [_collector("quick", 30)], 60)
    assert time.monotonic() - began < 50  # it would stay for 60 s
    if hangs:
        assert "ended by SIGTERM" in " ".join(outcome["errors"])
        # Not delivered any more: what was measured in the second pass waits.
        assert (outcome["passes"], outcome["spooled"], count(deployed, "quick")) == (2, 1, 1)
        deployed.value("DROP ROLE flag")
        time.sleep(1)
        assert repeat(deployed, tmp_path, [QUICK], 0)["errors"] == []
        assert count(deployed, "quick") == 3
    else:
        assert (outcome["errors"], outcome["passes"], outcome["spooled"]) == ([], 1, 0)


def test_a_lost_session_is_no_error_and_a_lost_server_one_of_the_passes_that_miss_it(
    major: int, new_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = new_server(major).start()
    deploy(server)
    # A server ends with the thread that has started it, hence one for all of the test.
    with ThreadPoolExecutor(max_workers=1) as threads:
        beside = threads.submit(_interrupt, server)
        outcome = repeat(server, tmp_path, [QUICK, FAILS], 60)
        beside.result(30)
        # It is down, or on its way.
        assert outcome["errors"]
        assert all(f"port {server.port}" in error for error in outcome["errors"])
        missed = outcome["passes"] - count(server, "quick")
        assert 1 <= missed <= 4
        # What those passes missed is told with the next collection of all.
        time.sleep(1)
        assert repeat(server, tmp_path, [QUICK, FAILS], 0)["errors"] == []
        newest = (
            "SELECT metric_value FROM pgops.system_metrics WHERE metric_name = 'collector_errors' "
            "AND additional_info ->> 'collector' = 'fails' ORDER BY collected_at DESC LIMIT 1"
        )
        assert server.value(newest, "pgops") == missed


def _interrupt(server: Server) -> None:
    """End the session after the first pass, and the server after the second; at last the job."""
    until(lambda: count(server, "quick") == 1, "collected")
    server.value("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgops collect'")
    until(lambda: count(server, "quick") == 2, "collected again")
    server.stop()
    time.sleep(1.2)
    server.start()
    until(lambda: count(server, "quick") == 3, "collected at last")
    terminate()


def test_errors_of_later_passes_are_said_once_and_counted(deployed: Server, tmp_path: Path) -> None:
    with meanwhile(
        lambda: until(lambda: count(deployed, "quick") == 1, "collected"), lambda: deployed.value("CREATE ROLE flag")
    ):
        outcome = repeat(deployed, tmp_path, [QUICK, FAILS], 2.95)
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
    monkeypatch.setattr(endpoints, "primary", lambda *_arguments: there)
    seen: list[object] = []
    watching = "SELECT array_agg(pid)::text FROM pg_stat_activity WHERE application_name = 'sink'"
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sink'"
    steps = watched(deployed, lambda: seen.append(deployed.value(watching)))
    with meanwhile(*steps, lambda: deployed.value(ended)):
        outcome = repeat(standby, tmp_path, [QUICK, SLOW], 2.95, node="db2/main", peers=(Peer("127.0.0.1"),))
    assert (outcome["errors"], outcome["sink"], outcome["passes"]) == ([], "primary", 3)
    assert seen == [only(seen[0])] * 2
    assert count(deployed, "quick") == 3


def test_a_person_collects_between_the_passes_of_the_job(deployed: Server, tmp_path: Path) -> None:
    seldom = {one.name: {"interval": 50} for one in SHIPPED if one.interval < 60}
    configuration, layout = configured(deployed, tmp_path, collectors=seldom)
    Path(layout.agent_file).parent.mkdir(parents=True)
    Path(layout.agent_file).write_text(configuration.text())
    arguments = ["--prefix", str(tmp_path), "--instance", "main"]
    program = f"import sys; sys.path.insert(0, {str(artifact.BUILD / 'lib')!r}); from pgops import cli; "
    command = [sys.executable, "-c", f"{program}sys.exit(cli.main(sys.argv[1:]))", *arguments, "collect", "--repeat"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "JOURNAL_STREAM": "1:1"}) as job:
        until(lambda: count(deployed, "waiting_sessions") > 0, "collected")
        before = count(deployed, "waiting_sessions")
        # Its first pass may not be over yet, which is told by 75.
        until(lambda: cli.main([*arguments, "collect"]) == 0, "collected by hand")
        assert cli.main([*arguments, "collect", "--repeat"]) == runner.BUSY
        assert job.poll() is None
        job.terminate()
        said = json.loads(job.communicate(timeout=30)[0])
    assert (job.returncode, said["ok"], said["passes"]) == (0, True, 1)
    assert count(deployed, "waiting_sessions") >= before


def test_a_sink_that_is_away_is_waited_for_once_and_what_it_misses_delivered_later(
    deployed: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []

    @contextlib.contextmanager
    def away(*_arguments: object) -> Iterator[Session]:
        asked.append(time.monotonic())
        raise Unreachable("nobody answers")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(repetition, "opened", away)
        outcome = repeat(deployed, tmp_path, [QUICK], 2.95)
    assert (len(asked), outcome["passes"], outcome["sink"]) == (1, 3, "spool")
    assert outcome["errors"] == ["not delivered; will be retried: nobody answers (3 times)"]
    time.sleep(1)
    later = repeat(deployed, tmp_path, [QUICK], 0)
    assert (later["errors"], later["delivered"]) == ([], outcome["spooled"] + 2)
    assert count(deployed, "quick") == 4
