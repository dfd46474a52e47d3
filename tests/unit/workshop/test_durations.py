"""No test bounds a duration by a number: what takes how long says how busy the machine is."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import artifact
import pytest

ROOMS = ("unit", "integration", "support")
FILES = sorted(path for room in ROOMS for path in (artifact.ROOT / "tests" / room).rglob("*.py"))
CLOCKS = {"monotonic", "perf_counter", "time"}
DURATIONS = re.compile(r"(_seconds|_ms|_s|_age)$")


def bounded(source: str) -> list[int]:
    """The lines of assertions in which something that a clock says, or a value named as a duration, is less than a
    number."""
    tree = ast.parse(source)
    spans = {
        target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and _reads_a_clock(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    asserted = [test for node in ast.walk(tree) if isinstance(node, ast.Assert) for test in ast.walk(node.test)]
    return [
        test.lineno
        for test in asserted
        if isinstance(test, ast.Compare)
        for lesser, greater in _ordered(test)
        if _is_number(greater) and _is_duration(lesser, spans)
    ]


def _ordered(test: ast.Compare) -> Iterator[tuple[ast.expr, ast.expr]]:
    """The pairs of a comparison, the lesser one first."""
    sides = [test.left, *test.comparators]
    for left, sign, right in zip(sides, test.ops, sides[1:]):
        if isinstance(sign, (ast.Lt, ast.LtE)):
            yield left, right
        elif isinstance(sign, (ast.Gt, ast.GtE)):
            yield right, left


def _is_number(node: ast.expr) -> bool:
    return all(isinstance(part, (ast.Constant, ast.BinOp, ast.operator, ast.UnaryOp)) for part in ast.walk(node))


def _reads_a_clock(node: ast.expr) -> bool:
    called = [part.func for part in ast.walk(node) if isinstance(part, ast.Call)]
    return any(
        isinstance(function, ast.Attribute)
        and function.attr in CLOCKS
        and isinstance(function.value, ast.Name)
        and function.value.id == "time"
        for function in called
    )


def _is_duration(node: ast.expr, spans: set[str]) -> bool:
    named = any(
        isinstance(part, ast.Subscript)
        and isinstance(part.slice, ast.Constant)
        and DURATIONS.search(str(part.slice.value))
        for part in ast.walk(node)
    )
    taken = any(isinstance(part, ast.Name) and part.id in spans for part in ast.walk(node))
    return named or taken or _reads_a_clock(node)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(artifact.ROOT)))
def test_no_duration_is_bounded_by_a_number(path: Path) -> None:
    assert bounded(path.read_text()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        "assert time.monotonic() - began < 25",
        "began = time.time()\nassert 30 > began - 1",
        "assert 0 < row['delay_seconds'] < 2 * 60",
        "assert row['age_s'] <= 60 and ready",
    ],
)
def test_the_check_finds(wrong: str) -> None:
    assert len(bounded(wrong)) == 1


@pytest.mark.parametrize(
    "right",
    [
        "before = time.time()\nassert before <= row['at'] <= time.time()",
        "assert 100 <= row['took_ms']",
        "assert row['delay_seconds'] < server.age()",
        "assert 0 < row['share'] < 100",
    ],
)
def test_the_check_leaves(right: str) -> None:
    assert bounded(right) == []
