# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The agent, installed for real below a directory: versions, the switch, collectors, and what goes wrong."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from disks import fill

from pgops import agent, server, sources
from pgops.errors import HostFailed, InvalidInput
from pgops.layout import Layout

LIBRARY = Path(agent.__file__).resolve().parent
BUNDLE = {
    **sources.gather(str(LIBRARY), (".py",)),
    **sources.gather(str(LIBRARY), (".sql",), "sql/collectors"),
}
LIBRARY_PARENT = str(Path(agent.__file__).parents[1])
MINE = "-- collector: mine\n-- metric: my_metric\nSELECT 1 AS my_metric\n"
RUN = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pgops import agent
agent.converge(json.load(sys.stdin), False)
"""

pytestmark = pytest.mark.skipif(bool(server.IMPORT_ERROR), reason="the agent needs psycopg")


def params(prefix: Path, **other: Any) -> dict[str, Any]:
    """The module's arguments."""
    return {
        "state": "present",
        "instance": "main",
        "cluster": "shop",
        "node": "db1/main",
        "port": 5432,
        "socket_directory": "",
        "database": "pgops",
        "peers": [],
        "ssl_mode": "require",
        "ca_cert": None,
        "password": None,
        "user": "pgops",
        "collectors": [],
        "collector_settings": {},
        "python": "",
        "prefix": str(prefix),
        "sources": sources.pack(BUNDLE),
        **other,
    }


def files(prefix: Path) -> set[str]:
    """All paths below a directory."""
    return {str(path.relative_to(prefix)) for path in prefix.rglob("*")}


def installed(prefix: Path) -> str:
    """The version that the command says it has, run as people run it."""
    command = Layout("main", str(prefix)).command
    return subprocess.run([command, "version"], check=True, capture_output=True, text=True).stdout.strip()


def test_prediction_run_and_second_run(tmp_path: Path) -> None:
    predicted = agent.converge(params(tmp_path), True)
    assert files(tmp_path) == set()
    done = agent.converge(params(tmp_path), False)
    assert done == predicted
    assert installed(tmp_path) in done["version"]
    assert not agent.converge(params(tmp_path), False)["changed"]


def test_a_new_version_is_switched_to_and_one_old_kept(tmp_path: Path) -> None:
    versions = []
    for number in range(4):
        bundle = {**BUNDLE, "version.py": f'VERSION = "9.{number}"\n'}
        versions.append(agent.converge(params(tmp_path, sources=sources.pack(bundle)), False)["version"])
        assert installed(tmp_path) == f"9.{number}"
        assert not agent.converge(params(tmp_path, sources=sources.pack(bundle)), False)["changed"]
    folder = Path(Layout("main", str(tmp_path)).library) / "versions"
    assert sorted(os.listdir(folder)) == sorted(versions[-2:])


def test_a_version_that_does_not_start_is_never_switched_to(tmp_path: Path) -> None:
    agent.converge(params(tmp_path), False)
    before = files(tmp_path)
    bundle = {**BUNDLE, "version.py": "raise SystemExit(3)\n"}
    with pytest.raises(HostFailed):
        agent.converge(params(tmp_path, sources=sources.pack(bundle)), False)
    assert installed(tmp_path)
    assert files(tmp_path) == before


def test_an_edited_file_is_seen_and_put_back(tmp_path: Path) -> None:
    version = agent.converge(params(tmp_path), False)["version"]
    path = Path(Layout("main", str(tmp_path)).library) / "versions" / version / "pgops" / "plan.py"
    path.write_text(path.read_text() + "# mine\n")
    assert agent.converge(params(tmp_path), False)["changes"] == [f"update agent {version}"]
    assert "# mine" not in path.read_text()


def test_collectors_come_and_go_and_must_be_right(tmp_path: Path) -> None:
    agent.converge(params(tmp_path, collectors=[MINE]), False)
    path = Path(Layout("main", str(tmp_path)).collectors) / "mine.sql"
    assert path.read_text() == MINE
    agent.converge(params(tmp_path), False)
    assert not path.exists()
    for wrong in (MINE.replace("my_metric", "deadlocks"), MINE.replace("mine", "locks"), "SELECT 1"):
        with pytest.raises(InvalidInput):
            agent.converge(params(tmp_path, collectors=[wrong]), False)
    with pytest.raises(InvalidInput, match="nonsense"):
        agent.converge(params(tmp_path, collector_settings={"nonsense": {"interval": 5}}), False)


def test_the_password_is_in_one_file_and_in_no_diff(tmp_path: Path) -> None:
    done = agent.converge(params(tmp_path, password="correct horse"), False)
    assert "correct horse" not in str(done)
    path = Path(Layout("main", str(tmp_path)).passfile)
    assert path.read_text() == "*:*:pgops:pgops:correct horse\n"
    assert path.stat().st_mode & 0o777 == 0o600
    other = agent.converge(params(tmp_path, password="battery staple"), False)
    assert "staple" not in str(other)
    assert other["changed"]
    assert not agent.converge(params(tmp_path), False)["changed"]


def test_absent_takes_its_instance_and_the_last_takes_all(tmp_path: Path) -> None:
    agent.converge(params(tmp_path), False)
    agent.converge(params(tmp_path, instance="other"), False)
    predicted = agent.converge(params(tmp_path, instance="other", state="absent"), True)
    assert agent.converge(params(tmp_path, instance="other", state="absent"), False) == predicted
    assert installed(tmp_path)
    agent.converge(params(tmp_path, state="absent"), False)
    assert [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "pgops.lock"] == []
    assert not agent.converge(params(tmp_path, state="absent"), False)["changed"]


def test_a_run_killed_at_any_moment_leaves_an_agent_that_works(tmp_path: Path) -> None:
    agent.converge(params(tmp_path), False)
    for number in range(6):
        bundle = sources.pack({**BUNDLE, "version.py": f'VERSION = "9.{number}"\n'})
        argument = json.dumps(params(tmp_path, sources=bundle))
        with subprocess.Popen([sys.executable, "-c", RUN, LIBRARY_PARENT], stdin=subprocess.PIPE, text=True) as run:
            killer = threading.Timer(random.uniform(0.1, 1.2), run.send_signal, [signal.SIGKILL])
            killer.start()
            with contextlib.suppress(BrokenPipeError):
                run.communicate(argument)
            killer.cancel()
        assert installed(tmp_path)
    agent.converge(params(tmp_path), False)
    assert not agent.converge(params(tmp_path), False)["changed"]


def test_a_full_disk_changes_nothing_and_says_so(small_disk: Path) -> None:
    agent.converge(params(small_disk), False)
    before = files(small_disk)
    fill(small_disk)
    bundle = {**BUNDLE, "version.py": 'VERSION = "9.9"\n'}
    with pytest.raises(HostFailed, match=r"No space left.*Make room"):
        agent.converge(params(small_disk, sources=sources.pack(bundle)), False)
    assert files(small_disk) == {*before, "filler"}
    assert installed(small_disk)
