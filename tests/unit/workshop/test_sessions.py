"""What must have run is all that `make test` runs, and a session that was skipped has not."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import artifact
import pytest
import sessions

LISTED = (artifact.ROOT / ".ci" / "sessions").read_text().split()


def tagged(*tags: str) -> list[str]:
    """The sessions of the noxfile with one of some tags."""
    functions = [node for node in ast.parse((artifact.ROOT / "noxfile.py").read_text()).body if _is_session(node)]
    return [one.name for one in functions if any(f"'{tag}'" in ast.unparse(one.decorator_list[0]) for tag in tags)]


def _is_session(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef) and any(
        ast.unparse(decorator).startswith("nox.session") for decorator in node.decorator_list
    )


def test_all_that_make_test_runs_must_have_run() -> None:
    assert tagged("check", "test") == LISTED


@pytest.mark.parametrize("result", ["skipped", "failed", "aborted", None])
def test_whatever_is_no_success_is_named(tmp_path: Path, result: str | None) -> None:
    found = [{"name": "style", "result": "success"}]
    if result:
        found.append({"name": "scenarios", "result": result})
    report = tmp_path / "report.json"
    report.write_text(json.dumps({"result": 1, "sessions": found}))
    assert sessions.missing(report, ["style"]) == []
    assert sessions.missing(report, ["style", "scenarios"]) == [f"scenarios: {result or 'not run'}"]


def test_where_nothing_ran_nothing_is_right(tmp_path: Path) -> None:
    assert sessions.missing(tmp_path / "none.json", []) != []
