"""How a module gets the library: from the host's agent where nobody else can have changed it, else as it was sent."""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import artifact
import pytest
from deploying import AGENT, agent_arguments

from pgops import arguments, library, modules, sources
from pgops.agent import deploy as agent
from pgops.instance.layout import Layout

MODULES = sorted(path.stem for path in (artifact.ROOT / "plugins" / "modules").glob("pg_ops_*.py"))
PACKAGE = "ansible_collections.pgops.fleet.plugins"


def test_each_module_has_its_work() -> None:
    assert sorted([*modules.WORK, "pg_ops_door"]) == MODULES
    for module, name in modules.WORK.items():
        file = importlib.import_module(f"pgops.{name}")
        assert callable(getattr(file, "gather" if module in modules.READING else "converge"))


@pytest.mark.parametrize("name", modules.WORK)
def test_a_module_run_by_itself_says_what_carries_it_out(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    basic = pytest.importorskip("ansible.module_utils.basic")
    module = importlib.import_module(f"{PACKAGE}.modules.{name}")
    needed = {"instances": [], "instance": "x", "cluster": "x", "node": "x", "repository": "/x", "directory": "/y"}
    needed = {**needed, "name": "x"}
    given = {key: value for key, value in needed.items() if key in module.SPEC}
    monkeypatch.setattr(basic, "_ANSIBLE_PROFILE", "legacy", raising=False)  # since 2.19
    monkeypatch.setattr(basic, "_ANSIBLE_ARGS", json.dumps({"ANSIBLE_MODULE_ARGS": given}).encode())
    with pytest.raises(SystemExit), contextlib.redirect_stdout(io.StringIO()) as shown:
        module.main()
    said = json.loads(shown.getvalue())
    assert said["failed"]
    assert "action plugin" in said["msg"]


SHAPED: arguments.Spec = {
    "prefix": {"type": "path", "default": "~"},
    "name": {"type": "str"},
    "many": {"type": "list", "elements": "path"},
    "instances": {
        "type": "list",
        "elements": "dict",
        "options": {
            "place": {"type": "path"},
            "port": {"type": "int"},
            "deeper": {"options": {"at": {"type": "path"}}},
        },
    },
}


def test_paths_are_the_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/one")
    monkeypatch.setenv("PLACE", "srv")
    given = {
        "prefix": "~/x",
        "name": "~",
        "many": ["/$PLACE", "~"],
        "instances": [{"place": "~", "port": 1, "deeper": {"at": "/${PLACE}"}}, {"place": None}],
    }
    assert arguments.expanded(given, arguments.paths(SHAPED)) == {
        "prefix": "/home/one/x",
        "name": "~",
        "many": ["/srv", "/home/one"],
        "instances": [{"place": "/home/one", "port": 1, "deeper": {"at": "/srv"}}, {"place": None}],
    }


def test_on_the_controller_paths_are_texts() -> None:
    spec = arguments.without_paths(SHAPED)
    assert arguments.paths(spec) == {}
    assert spec["prefix"] == {"type": "str", "default": "~"}
    assert spec["name"] == SHAPED["name"]
    assert spec["instances"]["options"]["place"] == {"type": "str"}


@pytest.mark.parametrize("name", ["agent.deploy", "agent.schedule"])
def test_who_does_not_log_in_loads_no_driver(name: str) -> None:
    program = f"import sys; import pgops.{name}; sys.exit('psycopg' in sys.modules)"
    place = {"PYTHONPATH": str(Path(agent.__file__).parents[2])}
    assert subprocess.run([sys.executable, "-c", program], env={**os.environ, **place}, check=False).returncode == 0


def test_the_program_is_where_the_agents_layout_has_it() -> None:
    assert Layout("main").current == f"/{library.PROGRAM}"


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
    assert library.only_ours(os.path.realpath(installed))


@pytest.mark.parametrize("below", ["", "sources.py", "facts", ".."])
def test_what_others_may_write_is_not_ours(installed: Path, below: str) -> None:
    place = Path(os.path.realpath(installed)) / below
    place.chmod(place.stat().st_mode | 0o002)
    assert not library.only_ours(os.path.realpath(installed))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_what_belongs_to_somebody_else_is_not_ours(installed: Path) -> None:
    os.chown(installed / "sources.py", 12345, -1)
    assert not library.only_ours(os.path.realpath(installed))


Ask = Callable[..., dict[str, Any]]


@pytest.fixture(name="ask")
def _ask(tmp_path: Path) -> Ask:
    """What a run of pg_ops_facts on this host returns, with ``tmp_path`` as its root and more arguments."""
    pytest.importorskip("ansible", reason="this is a host, and no controller")

    def ask(**more: object) -> dict[str, Any]:
        given = {"gather_subset": ["min"], "prefix": str(tmp_path), "login_host": str(tmp_path), **more}
        ansible = str(Path(sys.executable).parent / "ansible")
        said = subprocess.run(
            [ansible, "localhost", "-m", "pgops.fleet.pg_ops_facts", "-a", json.dumps(given)],
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
        word = next((word for word in ("SUCCESS => ", "FAILED! => ") if word in said.stdout), None)
        assert word, said.stdout + said.stderr
        result: dict[str, Any] = json.loads(said.stdout.partition(word)[2])
        return {**result, "failed": word.startswith("FAILED")}

    return ask


def test_a_host_without_the_library_is_sent_it(ask: Ask) -> None:
    facts = ask()["ansible_facts"]
    assert facts["pg_ops"]["contract"] == 1
    assert facts["pgops_library_lacked"]


@pytest.mark.usefixtures("installed")
def test_a_host_with_the_library_is_not_sent_it(ask: Ask) -> None:
    facts = ask()["ansible_facts"]
    assert facts["pg_ops"]["contract"] == 1
    assert "pgops_library_lacked" not in facts


@pytest.mark.parametrize("edit", [b"raise SystemExit('edited')\n", b"\xff"], ids=["readable", "not readable"])
def test_a_library_that_was_edited_is_not_used(installed: Path, ask: Ask, edit: bytes) -> None:
    (installed / "facts" / "gathering.py").write_bytes(edit)
    assert ask()["ansible_facts"]["pgops_library_lacked"]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (
            {"gather_subsets": ["min"]},
            "Unsupported parameters for (pgops.fleet.pg_ops_facts) module: gather_subsets.",
        ),
        ({"login_port": "many"}, "login_port"),
        ({"ssl_mode": "perhaps"}, "value of ssl_mode must be one of"),
        ({"gather_subset": ["servers"]}, "gather_subset: unknown sections servers."),
    ],
    ids=["name", "type", "choice", "found on the host"],
)
def test_a_wrong_argument_is_an_error(ask: Ask, wrong: dict[str, Any], words: str) -> None:
    said = ask(**wrong)
    assert said["failed"]
    assert words in said["msg"]


def test_no_error_has_a_password(ask: Ask) -> None:
    said = ask(login_password="opensesame", ssl_mode="opensesame")
    assert said["failed"]
    assert "opensesame" not in json.dumps(said)


def test_any_text_gets_to_the_host(ask: Ask) -> None:
    texts = ['x"""', "x'" + "''", "x\\", "x\\'", "x\ny", "x\u2028 \U0001f418 $(id)"]
    said = ask(gather_subset=texts)
    assert said["failed"]
    assert f"unknown sections {', '.join(sorted(texts))}." in said["msg"]


def _door(python: str) -> str:
    """The text that a host gets, which asks for at least this version of Python, with an order for nothing."""
    text = (artifact.ROOT / "plugins" / "modules" / "pg_ops_door.py").read_text()
    return text.replace("<<INCLUDE_ANSIBLE_MODULE_JSON_ARGS>>", "{}").replace("(3, 9)", python)


def test_an_older_python_is_named_and_nothing_is_imported_from_where_it_was_called(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit('this is of a user from whose directory root was called')\n")
    said = subprocess.run(
        [sys.executable], input=_door("(9, 9)"), cwd=tmp_path, capture_output=True, text=True, check=False
    )
    answer = json.loads(said.stdout)
    assert answer["failed"]
    assert "needs Python 9.9" in answer["msg"]
    assert "ansible_python_interpreter" in answer["msg"]
