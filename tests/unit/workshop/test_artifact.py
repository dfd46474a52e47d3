"""What is in the collection's artifact: all that a user needs, and nothing of the workshop."""

from __future__ import annotations

import artifact
import pytest

TOP = {
    "CHANGELOG.md",
    "FILES.json",
    "LICENSE",
    "MANIFEST.json",
    "README.md",
    "changelogs",
    "docs",
    "grafana",
    "meta",
    "playbooks",
    "plugins",
    "roles",
}


@pytest.fixture(scope="module", autouse=True)
def built():
    if not artifact.is_current():
        pytest.skip("sources changed since the build: run `make build`")


def test_nothing_of_the_workshop_is_shipped():
    assert {path.name for path in artifact.INSTALLED.iterdir()} - TOP == set()
    assert not (artifact.INSTALLED / "docs" / "dev").exists()


@pytest.mark.parametrize("suffix", [".py", ".sql"])
def test_every_file_of_the_library_is_shipped(suffix):
    library = artifact.ROOT / "plugins" / "module_utils"
    installed = artifact.INSTALLED / "plugins" / "module_utils"
    sources = {path.relative_to(library) for path in library.rglob(f"*{suffix}")}
    assert sources
    assert {path.relative_to(installed) for path in installed.rglob(f"*{suffix}")} == sources


def test_every_dashboard_is_shipped():
    sources = {path.relative_to(artifact.ROOT): path.read_bytes() for path in artifact.ROOT.glob("grafana/*/*")}
    assert sources
    shipped = artifact.INSTALLED.glob("grafana/*/*")
    assert {path.relative_to(artifact.INSTALLED): path.read_bytes() for path in shipped} == sources


def test_no_leftovers_are_shipped():
    assert [path for path in artifact.INSTALLED.rglob("*") if path.suffix in (".pyc", ".gz", ".log")] == []
