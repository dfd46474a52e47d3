"""The rules of style that no linter knows, on every Python file of the collection."""

from __future__ import annotations

import ast
from pathlib import Path

import artifact
import pytest

LIBRARY = artifact.LIBRARY
FILES = sorted((artifact.ROOT / "plugins").rglob("*.py"))
LIBRARY_FILES = [path for path in FILES if LIBRARY in path.parents]
LONGEST_FUNCTION = 50
LONGEST_MAIN = 20
NAMELESS = {"base", "common", "helper", "helpers", "misc", "tools", "util", "utilities", "utils"}
DRIVER = "session.py"  # the one that knows psycopg


def shown(path: Path) -> str:
    return str(path.relative_to(artifact.ROOT))


every_file = pytest.mark.parametrize("path", FILES, ids=shown)
every_library_file = pytest.mark.parametrize("path", LIBRARY_FILES, ids=shown)


def functions(path: Path) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    tree = ast.parse(path.read_text())
    return [node for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]


def imported(path: Path) -> list[tuple[int, str]]:
    """What a file imports, as (level, dotted name): level 0 is absolute, 1 the file's own package."""
    found: list[tuple[int, str]] = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(0, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            prefix = f"{node.module}." if node.module else ""
            found += [(node.level, prefix + alias.name) for alias in node.names]
    return found


def test_there_is_something_to_check():
    assert LIBRARY_FILES


@every_file
def test_functions_are_short(path):
    lengths = {
        f"{shown(path)}:{node.lineno} {node.name}": (node.end_lineno or node.lineno) - node.lineno + 1
        for node in functions(path)
    }
    limits = {name: LONGEST_MAIN if name.endswith(" main") else LONGEST_FUNCTION for name in lengths}
    assert {name: length for name, length in lengths.items() if length > limits[name]} == {}


@every_file
def test_files_are_named_for_what_they_are(path):
    assert path.stem not in NAMELESS


@every_library_file
def test_library_imports_its_own_files_relatively(path):
    assert [name for level, name in imported(path) if not level and name.startswith("ansible_collections")] == []


@every_library_file
def test_the_library_does_not_know_ansible(path):
    assert [name for level, name in imported(path) if not level and name.split(".")[0] == "ansible"] == []


@every_library_file
def test_only_server_knows_the_driver(path):
    known = [name for level, name in imported(path) if not level and name.split(".")[0] in ("psycopg", "psycopg2")]
    assert path.name == DRIVER or known == []
