"""Which servers there are for the tests, and where."""

from __future__ import annotations

from pathlib import Path

import binaries
import debian
import pytest


@pytest.fixture(autouse=True)
def _all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PGOPS_TEST_MAJORS", raising=False)


def test_a_machine_without_debians_packages_tests_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "available", lambda: True)
    assert binaries.majors() == binaries.MAJORS
    monkeypatch.setattr(debian, "available", lambda: False)
    assert binaries.majors() == tuple(sorted(set(binaries.MAJORS) - set(binaries.DEBIAN)))


def test_every_major_is_fetched_from_one_place() -> None:
    assert not set(binaries.NPM) & set(binaries.DEBIAN)
    assert set(binaries.TOOLED) <= set(binaries.MAJORS)


def test_programs_that_hold_a_path_are_of_that_path_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    (major,) = binaries.DEBIAN
    monkeypatch.setattr(binaries, "store", lambda: Path("/one"))
    here = binaries.build(major)
    monkeypatch.setattr(binaries, "store", lambda: Path("/two"))
    assert here != binaries.build(major)
    assert here.startswith(f"{major}-")
    assert binaries.build(binaries.BUNDLED) == binaries.NPM[binaries.BUNDLED]
