"""`make check` sees an import that goes up, sideways, or in a circle."""

from __future__ import annotations

from pathlib import Path

import artifact
import floors
import pytest


@pytest.fixture(name="library")
def _library(tmp_path: Path) -> Path:
    """A library of four files that is as it should be."""
    for path, text in {
        "errors.py": "",
        "host/files.py": "from ..errors import HostFailed\n",
        "settings/deploy.py": "from ..host import files\nfrom .planning import plan\n",
        "settings/planning.py": "from .. import errors\n",
        "metrics/rounds.py": "",
        "cli.py": "from .settings import deploy\n",
    }.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_the_library_stands():
    imports = floors.house(artifact.LIBRARY)
    assert len(imports) > 60
    assert floors.faults(imports) == []


def test_downwards_is_well(library):
    imports = floors.house(library)
    assert imports["settings.deploy"] == {"host.files", "settings.planning"}
    assert floors.faults(imports) == []


@pytest.mark.parametrize(
    ("path", "line", "fault"),
    [
        ("host/files.py", "from ..settings import deploy", "host.files (floor 2) imports settings.deploy (floor 5)"),
        ("errors.py", "from .host.files import read", "errors (floor 1) imports host.files (floor 2)"),
        ("settings/planning.py", "from ..metrics import rounds", "imports metrics.rounds (floor 5)"),
        ("metrics/rounds.py", "def late():\n    from ..cli import main", "metrics.rounds (floor 5) imports cli"),
        ("settings/planning.py", "from . import deploy", "files import each other: settings."),
        ("attic/box.py", "", "attic: has no floor"),
    ],
)
def test_any_other_way_is_a_fault(library, path, line, fault):
    (library / path).parent.mkdir(exist_ok=True)
    (library / path).write_text(f"{line}\n")
    assert any(fault in found for found in floors.faults(floors.house(library)))
