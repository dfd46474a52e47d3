# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Variables mean the same whether they are YAML, or texts, as on the command line and in INI inventories."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import artifact
import pytest
import yaml

import playbooks

written = pytest.importorskip("ansible_collections.pgops.fleet.plugins.filter.written")
AnsibleFilterError = pytest.importorskip("ansible.errors").AnsibleFilterError

TEXTS = {"true": True, "True": True, "yes": True, "y": True, "on": True, "1": True} | {
    "false": False,
    "no": False,
    "n": False,
    "off": False,
    "0": False,
    "": False,
}
BOOKS = sorted(
    path
    for pattern in ("playbooks/*.yml", "roles/*/tasks/*.yml", "roles/*/vars/*.yml")
    for path in artifact.ROOT.glob(pattern)
)
SWITCHES = {"pgops_statements", "pgops_repository", "pgops_backup", "pgops_drill", "pgops_purge"}
"""Those that no role declares as a boolean."""
READ = re.compile(r"\s*(\| default\([\w']*\) )?\| pgops\.fleet\.(yes_or_no|switched_on)\b")


def booleans() -> set[str]:
    """The variables that are either yes or no."""
    found = set(SWITCHES)
    for path in artifact.ROOT.glob("roles/*/meta/argument_specs.yml"):
        for point in yaml.safe_load(path.read_text())["argument_specs"].values():
            found |= {name for name, option in point["options"].items() if option["type"] == "bool"}
    return found


def conditions(data: Any) -> Iterator[str]:
    """All conditions of tasks."""
    if isinstance(data, dict):
        for key, value in data.items():
            if key in ("when", "that", "changed_when", "failed_when", "until"):
                yield from map(str, value if isinstance(value, list) else [value])
            yield from conditions(value)
    elif isinstance(data, list):
        for one in data:
            yield from conditions(one)


@pytest.mark.parametrize(("text", "meant"), TEXTS.items())
def test_yes_and_no_are_understood(text: str, meant: bool) -> None:
    assert written.yes_or_no(text) is meant
    assert written.yes_or_no(f" {text.upper()} ") is meant
    assert written.yes_or_no(meant) is meant


@pytest.mark.parametrize("text", ["perhaps", "offf", "22"])
def test_what_is_neither_is_refused_and_not_shown(text: str) -> None:
    with pytest.raises(AnsibleFilterError) as caught:
        written.yes_or_no(text)
    assert text not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("a", ["a"]),
        ("a, b", ["a", "b"]),
        ('["a", "b"]', ["a", "b"]),
        ("[]", []),
        ("", []),
        (None, []),
        (["a,b"], ["a,b"]),
        (5, [5]),
    ],
)
def test_lists_are_understood(text: Any, meant: list[Any]) -> None:
    assert written.listed(text) == meant


@pytest.mark.parametrize(
    ("text", "meant"),
    [('{"a": true}', {"a": True}), ("a=1 b=2", {"a": "1", "b": "2"}), ("", {}), (None, {}), ({"a": 1}, {"a": 1})],
)
def test_mappings_are_understood(text: Any, meant: dict[str, Any]) -> None:
    assert written.mapped(text) == meant


@pytest.mark.parametrize("text", ['["hunter2"', '{"hunter2"', "hunter2"])
def test_what_cannot_be_read_is_refused_and_not_shown(text: str) -> None:
    for read in (written.listed, written.mapped):
        if read is written.listed and not text.startswith("["):
            continue
        with pytest.raises(AnsibleFilterError) as caught:
            read(text)
        assert "hunter2" not in str(caught.value)


def expressions(data: Any) -> Iterator[str]:
    """All that is between braces in the texts of a file."""
    if isinstance(data, dict):
        for one in data.values():
            yield from expressions(one)
    elif isinstance(data, list):
        for one in data:
            yield from expressions(one)
    elif isinstance(data, str):
        yield from (found.strip() for found in re.findall(r"\{[{%]-?(.*?)-?[%}]\}", data, re.DOTALL))


@pytest.mark.parametrize("book", BOOKS, ids=lambda path: str(path.relative_to(artifact.ROOT)))
def test_no_role_takes_a_text_for_a_boolean(book: Path) -> None:
    data = yaml.safe_load(book.read_text())
    for text in [*conditions(data), *expressions(data)]:
        assert not re.search(r"\| *bool\b", text)
        for name in booleans() - {text}:  # alone, it goes to a module, which reads it
            for found in re.finditer(rf"(?<![\w']){name}\b(?!')", text):
                behind = text[found.end() :]
                as_path = name == "pgops_repository" and behind.startswith(", pgops_target.cluster")
                assert as_path or READ.match(behind), f"{name}{behind[:40]}"


PLACE: dict[str, Any] = {
    "pgops_targets": [],
    "pgops_password": "",
    "pgops_targets_facts": {"ansible_facts": {"pg_ops": {"host": {"psycopg": "", "os_family": "Debian"}}}},
}


def test_every_condition_is_a_boolean_whatever_its_variables_are_written_as(tmp_path: Path) -> None:
    names = booleans()
    tasks: list[dict[str, Any]] = []
    for condition in sorted({one for path in BOOKS for one in conditions(yaml.safe_load(path.read_text()))}):
        for name in sorted(one for one in names if re.search(rf"\b{one}\b", condition)):
            for text, meant in TEXTS.items():
                for value in (text, meant):
                    label = json.dumps([condition, name, text, type(value).__name__])
                    tasks.append({"name": label, "debug": None, "vars": {**PLACE, name: value}, "when": condition})
    assert len(tasks) > 100
    (tmp_path / "play.yml").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": tasks}]))
    (tmp_path / "hosts").write_text("here ansible_connection=local\n")
    run = playbooks.play(tmp_path / "hosts", tmp_path, str(tmp_path / "play.yml"))
    assert run.code == 0, run.text
    done = {said["task"] for said in run.outcomes}
    states = [(task["name"], task["name"] in done) for task in tasks]
    assert [pair for pair in zip(states[::2], states[1::2]) if pair[0][1] != pair[1][1]] == []
    assert {state for _task, state in states} == {True, False}
