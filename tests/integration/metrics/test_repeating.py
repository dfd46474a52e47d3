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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import artifact
import pytest
from clocks import Clock
from deploying import SHIPPED, configured, deploy
from servers import Server
from waiting import PATIENCE, until

from pgops import cli
from pgops.agent import runner
from pgops.errors import Unreachable
from pgops.instance import endpoints
from pgops.instance.configuration import Peer
from pgops.metrics import collect as collection
from pgops.metrics import collectors, history, latest, pace
from pgops.metrics import repeat as repetition
from pgops.metrics.collectors import Collector, wrapped
from pgops.server.session import Session
from pgops.server.target import Target


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
def _deployed(deployed: Server) -> Iterator[Server]:
    yield deployed
    deployed.value("DROP ROLE IF EXISTS flag")


@pytest.fixture(name="clock")
def _clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The one that the job goes by."""
    clock = Clock()
    for module in (repetition, collection):
        monkeypatch.setattr(module, "time", clock)
    return clock


def repeat(
    server: Server, state: Path, found: Sequence[Collector], seconds: float, **settings: Any
) -> dict[str, Any]:
    """What the job does in so many seconds; ``state`` is the agent's prefix."""
    configuration, layout = configured(server, state, **settings)
    memory = history.Memory(f"{layout.state}/collect", 5)
    return repetition.collect(configuration, layout, found, memory, seconds)


def count(server: Server, metric: str) -> int:
    return int(str(server.value(COUNT.format(metric), "pgops")))


def terminate() -> None:
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


def nothing() -> None:
    pass


def test_what_is_due_more_often_is_collected_again_in_the_same_session(
    deployed: Server, tmp_path: Path, clock: Clock
) -> None:
    own = "SELECT array_agg(pid)::text FROM pg_stat_activity WHERE application_name = 'pgops collect'"
    seen: list[object] = []
    clock.meanwhile = [lambda: seen.append(deployed.value(own))] * 2
    outcome = repeat(deployed, tmp_path, [QUICK, SLOW], 2.95)
    assert (outcome["errors"], outcome["passes"], outcome["collectors"]) == ([], 3, 4)
    assert (outcome["sink"], outcome["spooled"]) == ("local", 0)
    assert (count(deployed, "quick"), count(deployed, "slow")) == (3, 1)
    assert outcome["samples"] == deployed.value("SELECT count(*) FROM pgops.system_metrics", "pgops")
    spread = (
        "SELECT extract(epoch FROM max(collected_at) - min(collected_at)) FROM pgops.system_metrics "
        "WHERE metric_name = 'quick'"
    )
    assert float(str(deployed.value(spread, "pgops"))) == pytest.approx(2)
    assert seen == [only(seen[0])] * 2
    layout = configured(deployed, tmp_path)[1]
    kept = latest.present([layout.latest, layout.latest_repeated], clock.time())
    assert {run.collector: len(run.samples) for run in kept} == {"quick": 1, "slow": 1, "agent": 5, "login": 1}
    # The whole is written once, the newest of what is repeated each time.
    again = latest.load(layout.latest_repeated)
    assert [run.collector for run in again] == ["quick"]
    assert again[0].collected_at == pytest.approx(latest.load(layout.latest)[0].collected_at + 2)


def only(pids: object) -> str:
    """An array of one pid, as text."""
    found = str(pids)
    assert re.fullmatch(r"{\d+}", found), found
    return found


def test_where_nothing_is_due_more_often_one_pass_is_all(deployed: Server, tmp_path: Path, clock: Clock) -> None:
    began = clock.time()
    outcome = repeat(deployed, tmp_path, [SLOW], 30)
    assert (outcome["errors"], outcome["passes"], clock.time()) == ([], 1, began)


def test_what_takes_too_much_of_its_interval_is_not_repeated(
    deployed: Server, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def takes_300_ms(query: str) -> str:
        clock.now += 0.3 * ("heavy" in query)
        return wrapped(query)

    monkeypatch.setattr(pace, "SHARE", 0.25)
    monkeypatch.setattr(collection, "wrapped", takes_300_ms)
    outcome = repeat(deployed, tmp_path, [QUICK, _collector("heavy", 1)], 2.95)
    # Slowed down to two seconds, of which 300 ms are few enough.
    assert (count(deployed, "quick"), count(deployed, "heavy")) == (3, 2)
    assert outcome["errors"] == []


def test_sigterm_ends_it_while_it_waits(deployed: Server, tmp_path: Path, clock: Clock) -> None:
    clock.meanwhile = [terminate]
    outcome = repeat(deployed, tmp_path, [_collector("quick", 30)], 60)
    assert (outcome["errors"], outcome["passes"], outcome["spooled"]) == ([], 1, 0)


def test_sigterm_ends_a_pass_that_hangs_and_keeps_what_was_measured(
    deployed: Server, tmp_path: Path, clock: Clock
) -> None:
    def slept() -> object:
        return deployed.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'")

    def end() -> None:
        until(slept, "asleep", 1)
        terminate()

    with ThreadPoolExecutor() as threads:
        ends: list[Future[None]] = []
        clock.meanwhile = [lambda: deployed.value("CREATE ROLE flag") or ends.append(threads.submit(end))]
        outcome = repeat(deployed, tmp_path, [QUICK, HANGS], 60)
        ends[0].result()
    assert "ended by SIGTERM" in " ".join(outcome["errors"])
    # Not delivered any more: what was measured in the second pass waits.
    assert (outcome["passes"], outcome["spooled"], count(deployed, "quick")) == (2, 1, 1)
    deployed.value("DROP ROLE flag")
    clock.now += 1
    assert repeat(deployed, tmp_path, [QUICK], 0)["errors"] == []
    assert count(deployed, "quick") == 3


def test_a_lost_session_is_no_error_and_a_lost_server_one_of_the_passes_that_miss_it(
    major: int, new_server: Callable[..., Server], tmp_path: Path, clock: Clock
) -> None:
    server = new_server(major).start()
    deploy(server)
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'pgops collect'"
    # The session is lost after the first pass, and the server after the second, for two of them.
    clock.meanwhile = [lambda: server.value(ended), server.stop, nothing, server.start, terminate]
    outcome = repeat(server, tmp_path, [QUICK, FAILS], 60)
    assert outcome["errors"]
    assert all(f"port {server.port}" in error for error in outcome["errors"])
    assert (outcome["passes"], count(server, "quick")) == (5, 3)
    # What those passes missed is told with the next collection of all.
    clock.now += 1
    assert repeat(server, tmp_path, [QUICK, FAILS], 0)["errors"] == []
    newest = (
        "SELECT metric_value FROM pgops.system_metrics WHERE metric_name = 'collector_errors' "
        "AND additional_info ->> 'collector' = 'fails' ORDER BY collected_at DESC LIMIT 1"
    )
    assert server.value(newest, "pgops") == 2


def test_errors_of_later_passes_are_said_once_and_counted(deployed: Server, tmp_path: Path, clock: Clock) -> None:
    clock.meanwhile = [lambda: deployed.value("CREATE ROLE flag")]
    outcome = repeat(deployed, tmp_path, [QUICK, FAILS], 2.95)
    (error,) = outcome["errors"]
    assert error.startswith("fails in pgops: division by zero")
    assert error.endswith("(2 times)")
    assert count(deployed, "quick") == 3


def test_a_standby_keeps_one_session_with_its_primary(
    deployed: Server, tmp_path: Path, keep: object, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    standby = keep(deployed.standby()).start()  # type: ignore[operator]
    place = {"host": str(deployed.socket_dir), "port": str(deployed.port), "user": "pgops", "database": "pgops"}
    there = Target(**place, application_name="sink")  # type: ignore[arg-type]
    monkeypatch.setattr(endpoints, "primary", lambda *_arguments: there)
    seen: list[object] = []
    watching = "SELECT array_agg(pid)::text FROM pg_stat_activity WHERE application_name = 'sink'"
    ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'sink'"
    clock.meanwhile = [lambda: seen.append(deployed.value(watching))] * 2 + [lambda: deployed.value(ended)]
    outcome = repeat(standby, tmp_path, [QUICK, SLOW], 3.95, node="db2/main", peers=(Peer("127.0.0.1"),))
    assert (outcome["errors"], outcome["sink"], outcome["passes"]) == ([], "primary", 4)
    assert seen == [only(seen[0])] * 2
    assert count(deployed, "quick") == 4


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
        until(lambda: cli.main([*arguments, "collect"]), "collected by hand", 0)
        assert cli.main([*arguments, "collect", "--repeat"]) == runner.BUSY
        assert job.poll() is None
        job.terminate()
        said = json.loads(job.communicate(timeout=PATIENCE)[0])
    assert (job.returncode, said["ok"], said["passes"]) == (0, True, 1)
    assert count(deployed, "waiting_sessions") >= before


def test_a_sink_that_is_away_is_waited_for_once_and_what_it_misses_delivered_later(
    deployed: Server, tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    @contextlib.contextmanager
    def away(*arguments: object) -> Iterator[Session]:
        asked.append(arguments)
        raise Unreachable("nobody answers")
        yield

    with monkeypatch.context() as patched:
        patched.setattr(repetition, "opened", away)
        outcome = repeat(deployed, tmp_path, [QUICK], 2.95)
    assert (len(asked), outcome["passes"], outcome["sink"]) == (1, 3, "spool")
    assert outcome["errors"] == ["not delivered; will be retried: nobody answers (3 times)"]
    clock.now += 1
    later = repeat(deployed, tmp_path, [QUICK], 0)
    assert (later["errors"], later["delivered"]) == ([], outcome["spooled"] + 2)
    assert count(deployed, "quick") == 4
