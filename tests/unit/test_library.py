"""How a module gets the library: from the host's agent where nobody else can have changed it, else as it was sent."""

from __future__ import annotations

import importlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import artifact
import pytest
from deploying import AGENT, agent_arguments

from pgops import sources
from pgops.agent import deploy as agent
from pgops.instance.layout import Layout

reporting = pytest.importorskip("ansible_collections.pgops.fleet.plugins.module_utils._pgops.reporting")
MODULES = sorted((artifact.ROOT / "plugins" / "modules").glob("pg_ops_*.py"))
NAMED = re.compile(r'reporting\.library\(module, "(\S+)"\)')


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_what_a_module_asks_for_is_there(module: Path) -> None:
    text = module.read_text()
    (name,) = NAMED.findall(text)
    file = importlib.import_module(f"pgops.{name}")
    ((function,),) = [re.findall(rf"{name.rpartition('.')[2]}\.(\w+)\(", text)]
    assert callable(getattr(file, function))


@pytest.mark.parametrize("name", ["agent.deploy", "agent.schedule"])
def test_who_does_not_log_in_loads_no_driver(name: str) -> None:
    program = f"import sys; import pgops.{name}; sys.exit('psycopg' in sys.modules)"
    place = {"PYTHONPATH": str(Path(agent.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", program], env={**os.environ, **place}, check=False).returncode == 0


def test_the_program_is_where_the_agents_layout_has_it() -> None:
    assert Layout("main").current == f"/{reporting.PROGRAM}"


def test_a_change_of_any_file_changes_the_digest() -> None:
    one = {"a.py": "1", "b.py": ""}
    others = [{"a.py": "2", "b.py": ""}, {"a.py": "1"}, {"a.py": "1", "c.py": ""}, {"a.py": "", "b.py": "1"}]
    assert sources.digest(one) not in {sources.digest(other) for other in others}
    assert sources.digest(one) == sources.digest(dict(reversed(one.items())))


@pytest.fixture(name="installed")
def _installed(tmp_path: Path) -> Path:
    """The library as the agent's program on a host whose root is ``tmp_path``."""
    tmp_path.chmod(0o755)
    shipped = sources.shipped(str(artifact.INSTALLED / "plugins" / "module_utils" / "_pgops"))
    agent.converge(
        agent_arguments({**AGENT, "prefix": str(tmp_path), "python": sys.executable, "sources": shipped}), False
    )
    return tmp_path / "usr/local/lib/pgops/current/pgops"


def test_what_nobody_else_can_change_is_ours(installed: Path) -> None:
    assert reporting.only_ours(os.path.realpath(installed))


@pytest.mark.parametrize("below", ["", "sources.py", "facts", ".."])
def test_what_others_may_write_is_not_ours(installed: Path, below: str) -> None:
    place = Path(os.path.realpath(installed)) / below
    place.chmod(place.stat().st_mode | 0o002)
    assert not reporting.only_ours(os.path.realpath(installed))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_somebody_else_is_not_ours(installed: Path) -> None:
    os.chown(installed / "sources.py", 12345, -1)
    assert not reporting.only_ours(os.path.realpath(installed))


@pytest.fixture(name="ask")
def _ask(tmp_path: Path) -> Callable[[], dict[str, Any]]:
    """The facts that a run of pg_ops_facts on this host leaves, with ``tmp_path`` as its root."""

    def ask() -> dict[str, Any]:
        arguments = json.dumps({"gather_subset": ["min"], "prefix": str(tmp_path), "login_host": str(tmp_path)})
        said = subprocess.run(
            [
                str(Path(sys.executable).parent / "ansible"),
                "localhost",
                "-m",
                "pgops.fleet.pg_ops_facts",
                "-a",
                arguments,
            ],
            env={
                **os.environ,
                "ANSIBLE_COLLECTIONS_PATH": str(artifact.COLLECTIONS),
                "ANSIBLE_PYTHON_INTERPRETER": sys.executable,
                "ANSIBLE_LOAD_CALLBACK_PLUGINS": "1",
                "ANSIBLE_STDOUT_CALLBACK": "ansible.builtin.oneline",
                "ANSIBLE_DEPRECATION_WARNINGS": "0",
            },
            capture_output=True,
            text=True,
            check=False,
        )
        assert "SUCCESS => " in said.stdout, said.stdout + said.stderr
        facts: dict[str, Any] = json.loads(said.stdout.partition("SUCCESS => ")[2])["ansible_facts"]
        return facts

    return ask


def test_a_host_without_the_library_is_sent_it(ask: Callable[[], dict[str, Any]]) -> None:
    facts = ask()
    assert facts["pg_ops"]["contract"] == 1
    assert facts["pgops_library_lacked"]


@pytest.mark.usefixtures("installed")
def test_a_host_with_the_library_is_not_sent_it(ask: Callable[[], dict[str, Any]]) -> None:
    facts = ask()
    assert facts["pg_ops"]["contract"] == 1
    assert "pgops_library_lacked" not in facts


@pytest.mark.parametrize("edit", [b"raise SystemExit('edited')\n", b"\xff"], ids=["readable", "not readable"])
def test_a_library_that_was_edited_is_not_used(
    installed: Path, ask: Callable[[], dict[str, Any]], edit: bytes
) -> None:
    (installed / "facts" / "gathering.py").write_bytes(edit)
    assert ask()["pgops_library_lacked"]
