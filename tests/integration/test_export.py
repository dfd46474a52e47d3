# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The command that prints the newest values, as people and timers run it, and what Prometheus' checker says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import promtool
import pytest
from deploying import LIBRARY, SHIPPED

from pgops import agent, latest, server, sources
from pgops.collectors import OWN, Collector
from pgops.configuration import Configuration
from pgops.latest import Run
from pgops.layout import Layout

RUN = "import sys; sys.path.insert(0, sys.argv.pop(1)); from pgops.cli import main; sys.exit(main(sys.argv[1:]))"
AGENT: dict[str, Any] = {
    **dict.fromkeys(("socket_directory", "ca_cert", "password", "python", "repository", "superuser")),
    "host": "",
    "state": "present",
    "instance": "main",
    "cluster": "shop",
    "node": "db1/main",
    "port": 5432,
    "database": "pgops",
    "peers": [],
    "ssl_mode": "require",
    "collectors": [],
    "collector_settings": {},
    "keeper": "postgres",
    "validate": False,
    "metric_retention": {},
    "query_texts": True,
    "user": "nobody",
}
ODD = 'with "quotes", a \\ and\na line'


@pytest.fixture(name="layout")
def _layout(tmp_path: Path) -> Layout:
    """An agent's files, as after a collection with all shipped collectors."""
    layout = Layout("main", str(tmp_path))
    for folder in (layout.state, layout.collectors):
        Path(folder).mkdir(parents=True)
    Path(layout.agent_file).write_text(Configuration("main", "shop", "db1/main").text())
    latest.remember(layout.latest, [measured(found) for found in [*SHIPPED, OWN]], time.time())
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
        str(Path(latest.__file__).parents[1]),
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
    return sum(len(run.samples) for run in latest.load(layout.latest))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--instance", "other"], b"agent.json cannot be read: No such file or directory"),
        (["--output", "pgops.prom"], b"no absolute path"),
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
    assert (pgops(layout, "export").stdout, pgops(layout, "export").returncode) == (b"", 0)
    past = time.time() - 10_000
    latest.remember(layout.latest, [Run("locks", "", 60, past, [('{"metric": "waiting_locks"}', 1.0)])], past)
    assert (pgops(layout, "export").stdout, pgops(layout, "export").returncode) == (b"", 0)


@pytest.mark.skipif(os.geteuid() != 0 or bool(server.IMPORT_ERROR), reason="needs root, and psycopg for the agent")
def test_the_agent_writes_what_node_exporter_reads_by_a_link_of_roots(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout, folder = Layout("main", str(root / "prefix")), root / "textfile"
    folder.mkdir(0o755)
    # Owners are kept only below /, where the tests leave nothing.
    monkeypatch.setattr(agent, "_owners", lambda _layout, desired: ("root", desired.user, desired.group))
    bundle = sources.pack({**sources.gather(str(LIBRARY), (".py",)), **sources.gather(str(LIBRARY), (".sql",))})
    wish = {**AGENT, "prefix": layout.prefix, "sources": bundle, "textfile_directory": str(folder)}
    agent.converge(wish, False)
    latest.remember(layout.latest, [measured(found) for found in SHIPPED], time.time())
    os.chown(layout.latest, *(os.stat(layout.state).st_uid, os.stat(layout.state).st_gid))
    command = [layout.command, "--prefix", layout.prefix, "export", "--output"]
    subprocess.run(command, check=True, umask=0o077)
    link = folder / "pgops_main.prom"
    assert (link.is_symlink(), link.owner(), link.stat().st_mode & 0o777) == (True, "nobody", 0o644)
    assert "pgops_table_size_bytes" in metrics_of(link.read_bytes())
    assert not agent.converge(wish, False)["changed"]
