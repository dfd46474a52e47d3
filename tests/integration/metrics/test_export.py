# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command that prints the newest values, as people and timers run it, and what Prometheus' checker says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import artifact
import promtool
import pytest
from deploying import AGENT, BUNDLE, SHIPPED, agent_arguments, collect, deploy, inspect, withdraw
from servers import Server

from pgops.agent import deploy as agent
from pgops.agent.declared import Desired
from pgops.host.identity import acting_as
from pgops.instance.configuration import Configuration
from pgops.instance.layout import Layout
from pgops.metrics import collectors, latest
from pgops.metrics.collectors import OWN, Collector
from pgops.metrics.latest import Run
from pgops.server import session

RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pgops.cli import main; sys.exit(main(sys.argv[1:]))"
PAGE = artifact.ROOT / "docs/prometheus.md"
SEQUENCES = next(found for found in SHIPPED if found.name == "sequences")
ODD = 'with "quotes", a \\ and\na line'


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    """An agent's files, as after a collection with all shipped collectors."""
    layout = Layout("main", str(tmp_path))
    for folder in (layout.state, layout.collectors, layout.inspection):
        Path(folder).mkdir(parents=True)
    Path(layout.agent_file).write_text(Configuration("main", "shop", "db1/main").text())
    for rights, path in ((("monitor", "host"), layout.latest), (("all_data",), layout.inspected)):
        runs = [measured(found) for found in [*SHIPPED, OWN] if found.rights in rights]
        latest.remember(path, runs, time.time())
    return layout


def measured(found: Collector) -> Run:
    """A run that found two series of each metric, one of them of odd names and values."""
    samples = [
        (json.dumps({"metric": metric.name, "database": database, "other": {"collector": found.name}}), value)
        for metric in found.metrics
        for database, value in (("shop", 12.5), (ODD, float("nan")))
    ]
    return Run(found.name, "", found.interval, time.time(), samples)


def pgops(layout: Layout, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """The command, in a locale that knows ASCII only."""
    command = [
        sys.executable,
        "-c",
        RUN,
        str(Path(latest.__file__).parents[2]),
        "--prefix",
        layout.prefix,
        *arguments,
    ]
    return subprocess.run(command, capture_output=True, check=False, env={"LC_ALL": "C", "PYTHONUTF8": "0"})


def metrics_of(text: bytes) -> set[str]:
    """The names that have a TYPE."""
    return {line.split()[2] for line in text.decode().splitlines() if line.startswith("# TYPE")}


def test_it_prints_the_newest_values_and_nothing_else(layout: Layout) -> None:
    done = pgops(layout, "export")
    assert (done.returncode, done.stderr) == (0, b"")
    assert all(line.startswith((b"pgops_", b"# HELP pgops_", b"# TYPE pgops_")) for line in done.stdout.splitlines())
    metrics = {metric.name for found in [*SHIPPED, OWN] for metric in found.metrics}
    assert len(metrics_of(done.stdout)) == len(metrics) + 1
    assert (
        b'pgops_table_size_bytes{cluster="shop",collector="table_size",database="shop",node="db1/main"}'
        in done.stdout
    )


def test_promtool_finds_nothing_to_complain_of(layout: Layout) -> None:
    try:
        program = promtool.program()
    except promtool.UnavailableError as error:
        pytest.skip(str(error))
    printed = pgops(layout, "export").stdout
    assert metrics_of(printed)
    assert promtool_says(program, printed) == (0, "")
    # It does look: a gauge that ends like a counter is refused.
    wrong = b"# HELP pgops_x_total X.\n# TYPE pgops_x_total gauge\npgops_x_total 1\n"
    assert promtool_says(program, printed + wrong)[0] == 3


@pytest.fixture(name="rules", scope="module")
def _rules(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """promtool, and a file with the rules that the documentation shows."""
    try:
        program = promtool.program()
    except promtool.UnavailableError as error:
        pytest.skip(str(error))
    blocks = re.findall(r"```yaml\n(.*?)```", PAGE.read_text(), re.DOTALL)
    (text,) = [block for block in blocks if block.startswith("groups:")]
    path = tmp_path_factory.mktemp("rules") / "pgops.yml"
    path.write_text(text)
    return program, path


def test_the_documented_rules_are_rules(rules: tuple[Path, Path]) -> None:
    program, path = rules
    done = subprocess.run([program, "check", "rules", path], capture_output=True, text=True, check=False)
    assert (done.returncode, "6 rules found" in done.stdout) == (0, True), done.stderr


FILE = 'node_textfile_mtime_seconds{instance="db1:9100",file="/var/lib/prometheus/node-exporter/pgops_%s.prom"}'
COLLECTED = 'pgops_collected_timestamp_seconds{instance="db1:9100",cluster="shop",node="db1/%s",collector="agent"}'
FRESH = "0+60x180"
FAILS = 'pgops_collector_errors{instance="db1:9100",cluster="shop",node="db1/a",collector="%s"}'
DEADLOCKS = 'pgops_deadlocks_total{cluster="shop",node="db1/a",database="shop"}'
RECOVERY = 'pgops_recovery_time_seconds{cluster="shop",node="db1/a"}'
DISK = 'pgops_disk_used_ratio{cluster="shop",node="db1/a",mount="/",disk="data"}'


@pytest.mark.parametrize(
    ("alert", "series", "expected"),
    [
        ("PostgresNotMeasured", {FILE % "a": "0x180"}, {"pgops_a.prom"}),
        ("PostgresNotMeasured", {FILE % "a": FRESH}, set()),
        # One of two instances is down, or refuses the agent.
        (
            "PostgresNotReached",
            {FILE % "a": FRESH, FILE % "b": FRESH, COLLECTED % "a": FRESH, COLLECTED % "b": "0+60x3 stale _x175"},
            {"pgops_b.prom"},
        ),
        ("PostgresNotReached", {FILE % "a": FRESH, COLLECTED % "a": FRESH}, set()),
        ("PostgresNotReached", {"up": FRESH}, set()),
        # Every five minutes and hourly, seen for one minute each time; and one that was well again.
        ("PostgresCollectorFails", {FAILS % "slow": " ".join(["1 stale _x3"] * 36)}, {"slow"}),
        ("PostgresCollectorFails", {FAILS % "hourly": "_x59 1 stale _x58 1 stale _x58"}, {"hourly"}),
        ("PostgresCollectorFails", {FAILS % "well": "1 stale _x58 0 stale _x58 0 stale _x58"}, set()),
        ("PostgresDiskFull", {DISK: "0.95x180"}, {'mount="/"'}),
        ("PostgresDiskFull", {DISK: "0.85x180"}, set()),
        ("PostgresRecoveryTooSlow", {RECOVERY: "15000x180"}, {"shop"}),
        # One that is not known is no series: that it is recoverable is another metric.
        ("PostgresRecoveryTooSlow", {RECOVERY: "900x180"}, set()),
        ("PostgresDeadlocks", {DEADLOCKS: "0+1x180"}, {"shop"}),
        ("PostgresDeadlocks", {DEADLOCKS: "7x180"}, set()),
    ],
)
def test_the_documented_alerts_fire_when_they_should(
    rules: tuple[Path, Path], tmp_path: Path, alert: str, series: dict[str, str], expected: set[str]
) -> None:
    """After two and a half hours of a scrape each minute. ``expected`` are words of what fires, one of each alert."""
    program, path = rules
    given = [{"series": name, "values": values} for name, values in series.items()]
    unfired = {"eval_time": "150m", "alertname": alert, "exp_alerts": []}
    test = {"interval": "1m", "input_series": given, "alert_rule_test": [unfired]}
    file = tmp_path / "test.yml"
    file.write_text(json.dumps({"rule_files": [str(path)], "evaluation_interval": "1m", "tests": [test]}))
    done = subprocess.run([program, "test", "rules", file], capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == bool(expected), said
    # What nobody expected is what fires.
    fired = said.partition("got:")[2]
    assert fired.count("Labels:") == len(expected), said
    assert all(word in fired for word in expected), said


def promtool_says(program: Path, text: bytes) -> tuple[int, str]:
    """The exit code of promtool for a text, and its words."""
    done = subprocess.run([program, "check", "metrics"], input=text, capture_output=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode()


def test_a_file_is_replaced_for_all_to_read(layout: Layout, tmp_path: Path) -> None:
    target = tmp_path / "out" / "pgops.prom"
    target.parent.mkdir(0o755)
    target.write_text("old")
    target.chmod(0o600)
    done = pgops(layout, "--instance", "main", "export", "--output", str(target))
    assert done.returncode == 0
    outcome = json.loads(done.stdout)
    assert (outcome["job"], outcome["ok"], outcome["samples"]) == ("export", True, samples(layout))
    assert target.read_bytes() == pgops(layout, "export").stdout
    assert target.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in target.parent.iterdir()] == ["pgops.prom"]


def samples(layout: Layout) -> int:
    """Values of all runs that are kept."""
    runs = [*latest.load(layout.latest), *latest.load(layout.inspected)]
    return sum(len(run.samples) for run in runs)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--instance", "other"], b"agent.json cannot be read: No such file or directory"),
        (["--output", "pgops.prom"], b"not an absolute path"),
        (["--output", "/nowhere/pgops.prom"], b"No such file or directory"),
    ],
)
def test_what_goes_wrong_is_said_and_fails(layout: Layout, arguments: Sequence[str], says: bytes) -> None:
    done = pgops(layout, "export", *arguments)
    assert done.returncode == 1
    assert says in (done.stdout if "--output" in arguments else done.stderr)
    assert "--output" in arguments or done.stdout == b""


def test_before_the_first_collection_and_long_after_the_last_there_is_nothing(layout: Layout) -> None:
    Path(layout.latest).unlink()
    Path(layout.inspected).unlink()
    assert (pgops(layout, "export").stdout, pgops(layout, "export").returncode) == (b"", 0)
    past = time.time() - 10_000
    latest.remember(layout.latest, [Run("locks", "", 60, past, [('{"metric": "waiting_locks"}', 1.0)])], past)
    assert (pgops(layout, "export").stdout, pgops(layout, "export").returncode) == (b"", 0)


def test_what_the_servers_user_measures_is_among_it(server: Server, tmp_path: Path) -> None:
    deploy(server)
    try:
        with server.database() as name:
            server.value("CREATE SEQUENCE public.short MAXVALUE 200; SELECT setval('public.short', 150)", name)
            assert collect(server, tmp_path)["errors"] == []
            assert inspect(server, tmp_path)["errors"] == []
    finally:
        withdraw(server)
    layout = Layout("main", str(tmp_path))
    Path(layout.configuration).mkdir(parents=True)
    Path(layout.agent_file).write_text(Configuration("main", "shop", "db1/main").text())
    shown = pgops(layout, "export").stdout.decode().splitlines()
    of = f'cluster="shop",database="{name}",node="db1/main"'
    assert f'pgops_sequence_used_ratio{{{of},schema="public",sequence="short"}} 0.75' in shown
    durations = [line for line in shown if line.startswith("pgops_collector_duration_seconds")]
    ran = {line.partition('collector="')[2].partition('"')[0] for line in durations}
    assert {"sequences", "table_size"} <= ran
    assert Path(layout.inspected).stat().st_mode & 0o777 == 0o644
    moments = [line for line in shown if line.startswith("pgops_collected_timestamp_seconds")]
    assert {collectors.OWN.name, collectors.INSPECTION.name} <= {line.split('"')[3] for line in moments}


def _named(metric: str, **labels: Any) -> str:
    """What the server's user could write, as a run of the collector that it does run."""
    samples = [(json.dumps({"metric": metric, **labels}), 1.0)]
    return latest.text([Run("sequences", "", 600, time.time(), samples)])


@pytest.mark.parametrize(
    "content",
    [
        "",
        "no JSON",
        "[" * 100_000,
        '{"format": 1, "runs": [["sequences", "", 600, "now", [["[]", 1]]]]}',
        _named("disk_free_mb", other={"disk": "data"}),
        _named("sequence_used_percent", other=[]),
        _named("sequence_used_percent").replace("sequences", "disks", 1),
        _named("sequence_used_percent").replace('{\\"', "[" * 100_000),
    ],
    # Without the times in them, so that all workers call them the same.
    ids=["empty", "no JSON", "deep", "no time", "metric", "labels", "collector", "deep labels"],
)
def test_what_the_servers_user_may_not_say_is_left_out(layout: Layout, content: str) -> None:
    Path(layout.inspected).unlink()
    without = pgops(layout, "export")
    Path(layout.inspected).write_text(content)
    done = pgops(layout, "export")
    assert (done.returncode, done.stdout, done.stderr) == (0, without.stdout, b"")
    assert "pgops_sequence_used_ratio" not in metrics_of(done.stdout)
    assert "pgops_table_size_bytes" in metrics_of(done.stdout)


def test_what_the_servers_user_puts_in_the_way_is_not_followed(layout: Layout) -> None:
    """Else it could have the agent read what only the agent may, or wait for ever."""
    path = Path(layout.inspected)
    secret = path.rename(path.parent / "other")
    for put in (lambda: path.symlink_to(secret), lambda: os.mkfifo(path), path.mkdir):
        put()
        done = pgops(layout, "export")
        assert done.returncode == 0
        assert "pgops_sequence_used_ratio" not in metrics_of(done.stdout)
        assert "pgops_table_size_bytes" in metrics_of(done.stdout)
        assert path.is_fifo() or f"{path} cannot be read".encode() in done.stderr
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    with_output = pgops(layout, "export", "--output", str(path.parent / "out.prom"))
    assert json.loads(with_output.stdout)["warnings"] == []


@pytest.mark.skipif(os.geteuid() != 0 or bool(session.IMPORT_ERROR), reason="needs root, and psycopg for the agent")
def test_the_agent_writes_what_node_exporter_reads_by_a_link_of_roots(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, folder = Layout("main", str(root / "prefix")), root / "textfile"
    folder.mkdir(0o755)
    # Owners are kept only below /, where the tests leave nothing.
    monkeypatch.setattr(Desired, "owners", property(lambda desired: ("root", desired.user, desired.group)))
    # The Python of the tests may be one that only root can run.
    monkeypatch.setattr(Desired, "runners", ())
    wish = {**AGENT, "prefix": layout.prefix, "sources": BUNDLE, "textfile_directory": str(folder)}
    wish["owner"] = "daemon"
    agent.converge(agent_arguments(wish), False)
    latest.remember(layout.latest, [measured(found) for found in SHIPPED if found != SEQUENCES], time.time())
    os.chown(layout.latest, *(os.stat(layout.state).st_uid, os.stat(layout.state).st_gid))
    # The server's user writes, the agent reads, and nobody else may enter.
    inspection = Path(layout.inspection)
    assert (inspection.owner(), inspection.stat().st_mode & 0o777) == ("daemon", 0o750)
    assert inspection.stat().st_gid == os.stat(layout.state).st_gid
    with acting_as(inspection.stat().st_uid):
        latest.remember(layout.inspected, [measured(SEQUENCES)], time.time(), 0o644)
    command = [layout.command, "--prefix", layout.prefix, "export", "--output"]
    subprocess.run(command, check=True, umask=0o077)
    link = folder / "pgops_main.prom"
    assert (link.is_symlink(), link.owner(), link.stat().st_mode & 0o777) == (True, "nobody", 0o644)
    assert {"pgops_table_size_bytes", "pgops_sequence_used_ratio"} <= metrics_of(link.read_bytes())
    assert not agent.converge(agent_arguments(wish), False)["changed"]
