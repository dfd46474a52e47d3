"""The floors of the library: a package imports from lower floors only, and no files import each other in a circle.

    python tests/workshop/floors.py          print the house; exit status 1 where an import goes up or sideways

The table is the house's plan: a new package gets its floor here, and nowhere else.
"""

from __future__ import annotations

import ast
import graphlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import artifact

ROOT = ""
FLOORS: tuple[tuple[str, ...], ...] = (
    (ROOT,),  # what everything stands on
    ("host",),
    ("server",),
    ("instance",),
    ("settings", "metrics"),
    ("opsdb", "statements", "repository", "agent"),
    ("alerting", "backup"),
    ("facts", "recovery"),
    ("reports", "top"),
    ("cli", "modules"),  # the doors: the agent's and the modules'
)
FLOOR_OF: Mapping[str, int] = {room: number for number, floor in enumerate(FLOORS, 1) for room in floor}


def house(library: Path) -> dict[str, set[str]]:
    """By each file of the library, as a dotted name, the files of it that it imports, inside functions too."""
    files = {name(path, library): path for path in sorted(library.rglob("*.py"))}
    return {here: set(_imports(path, here, set(files))) for here, path in files.items()}


def name(path: Path, library: Path) -> str:
    """The dotted name of a file, of a package without its ``__init__``."""
    parts = path.relative_to(library).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(path: Path, here: str, known: set[str]) -> Iterator[str]:
    package = here.split(".") if path.name == "__init__.py" else here.split(".")[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            above = package[: len(package) - node.level + 1]
            base = ".".join([*above, *filter(None, [node.module])])
            for alias in node.names:
                whole = f"{base}.{alias.name}".lstrip(".")
                yield whole if whole in known else base


def room(dotted: str) -> str:
    """Where a file stands: its package, or itself where it is one of the doors."""
    first, dot, _rest = dotted.partition(".")
    return first if dot or first in FLOOR_OF else ROOT


def faults(imports: Mapping[str, set[str]]) -> list[str]:
    """What is wrong with a house: rooms that have no floor, imports that go up or sideways, circles."""
    homeless = sorted({room(here) for here in imports} - set(FLOOR_OF))
    if homeless:
        return [f"{one}: has no floor in {Path(__file__).name}" for one in homeless]
    found = [
        f"{here} (floor {FLOOR_OF[room(here)]}) imports {there} (floor {FLOOR_OF[room(there)]})"
        for here, others in sorted(imports.items())
        for there in sorted(others)
        if room(here) != room(there) and FLOOR_OF[room(there)] >= FLOOR_OF[room(here)]
    ]
    try:
        graphlib.TopologicalSorter(imports).prepare()
    except graphlib.CycleError as error:
        found.append(f"files import each other: {' -> '.join(error.args[1])}")
    return found


def picture(imports: Mapping[str, set[str]]) -> str:
    """The house from its roof down, each floor with its rooms and their files."""
    lines = []
    for number, floor in reversed(list(enumerate(FLOORS, 1))):
        for one in floor:
            files = sorted(here.rpartition(".")[2] for here in imports if room(here) == one and here != one)
            lines.append(f"{number}  {one or '(root)':12}{', '.join(filter(None, files))}")
    return "\n".join(lines)


def main() -> int:
    """Draw the house and say what is wrong with it."""
    imports = house(artifact.LIBRARY)
    print(picture(imports))
    wrong = faults(imports)
    print("\n".join(wrong) or "no import goes up or sideways, and there is no circle", flush=True)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
