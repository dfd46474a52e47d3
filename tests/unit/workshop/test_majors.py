"""Which tests run on which major."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import majors
import pytest

OLDEST = majors.EVERY_NAME[0]
MARKED = pytest.mark.every_major
several = pytest.mark.skipif(OLDEST == majors.NEWEST, reason="of one major there is nothing to choose")


@dataclass
class Item:
    """What is asked of a test."""

    marks: list[pytest.MarkDecorator]
    nodeid: str = "tests/integration/test_a.py::test_it"

    def iter_markers(self, name: str) -> list[Any]:
        return [one.mark for one in self.marks if one.mark.name == name]


def item(major: str | None, *marks: pytest.MarkDecorator) -> Any:
    return Item([*marks, *([pytest.mark.xdist_group(major)] if major else [])])


def chosen(one: Any) -> list[str]:
    return [matrix for matrix in majors.MATRICES if majors.chosen(one, matrix)]


@several
def test_most_run_on_the_newest_major_and_some_on_every() -> None:
    assert chosen(item(OLDEST)) == ["all"]
    assert chosen(item(OLDEST, MARKED)) == ["newest", "smoke", "all"]
    assert chosen(item(majors.NEWEST)) == ["newest", "all"]
    assert chosen(item(majors.NEWEST, MARKED)) == ["newest", "smoke", "all"]


def test_what_needs_no_major_is_of_the_newest() -> None:
    assert chosen(item(None)) == ["newest", "all"]
    assert chosen(item(None, pytest.mark.xdist_group("patroni"))) == ["newest", "all"]


def test_what_is_slow_is_for_a_release() -> None:
    assert chosen(item(majors.NEWEST, pytest.mark.slow)) == ["all"]
    assert chosen(item(majors.NEWEST, MARKED, pytest.mark.slow)) == ["all"]


def test_what_a_major_does_not_have_runs_nowhere_on_it() -> None:
    assert chosen(item(majors.NEWEST, MARKED(since=98))) == []
    assert chosen(item(majors.NEWEST, MARKED(until=13))) == []
    assert chosen(item(majors.NEWEST, MARKED(since=98), MARKED)) == []
    assert chosen(item(majors.NEWEST, MARKED(since=14, until=98))) == ["newest", "smoke", "all"]


@several
def test_servers_are_shared_by_a_module_or_by_the_few_of_a_major() -> None:
    assert majors.groups(item(OLDEST), "newest") == (OLDEST,)
    assert majors.groups(item(majors.NEWEST), "newest") == (majors.NEWEST, "tests/integration/test_a.py")
    assert majors.groups(item(OLDEST), "all") == (OLDEST, "tests/integration/test_a.py")


def test_a_matrix_that_there_is_not_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPS_TEST_MATRIX", "everything")
    with pytest.raises(pytest.UsageError, match="not one of newest, smoke, all"):
        majors.matrix()


def test_what_somebody_else_runs_is_left_out_but_for_what_needs_no_major(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGOPS_TEST_ELSEWHERE", OLDEST.removeprefix("pg"))
    assert chosen(item(OLDEST, MARKED)) == []
    assert "newest" in chosen(item(None)) or majors.NEWEST == OLDEST
