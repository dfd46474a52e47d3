"""The Pythons of this machine, and virtual environments made with them.

Runs on any Python 3.9 or newer with its standard library alone: it is what everything else starts from.
A Python counts when it starts and can make a virtual environment: a pyenv shim of a version that is not
selected, or Debian's python3 without python3-venv, is on PATH and can not.

    python3 tests/workshop/pythons.py list
    python3 tests/workshop/pythons.py venv build/venv requirements-dev.txt
"""

from __future__ import annotations

import argparse
import fcntl
import functools
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OLDEST_HOST = 9  # the oldest Python of a managed host, as a minor version
OLDEST_CONTROLLER = 11
NEWEST = 14
PROBE = "import ensurepip, sqlite3, ssl, sys, venv; sys.exit(sys.prefix != sys.base_prefix)"


class NoPythonError(Exception):
    """No Python of this machine will do; the message says what to install."""


def _candidates(minor: int) -> list[Path]:
    name = f"python3.{minor}"
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    directories = [Path(entry) for entry in os.get_exec_path() if Path(entry) != pyenv / "shims"]
    directories += sorted(pyenv.glob(f"versions/3.{minor}.*/bin"))
    directories += sorted(Path.home().glob(f".local/share/uv/python/cpython-3.{minor}.*/bin"))
    return [directory / name for directory in directories if os.access(directory / name, os.X_OK)]


def _starts(python: Path) -> bool:
    command = [str(python), "-I", "-c", PROBE]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@functools.cache
def find(minor: int) -> Path | None:
    """The first usable Python 3.`minor`, or None."""
    return next((python for python in _candidates(minor) if _starts(python)), None)


def installed() -> dict[int, Path]:
    """Every usable Python from the oldest of a host to the newest of a controller, by minor version."""
    found = {minor: find(minor) for minor in range(OLDEST_HOST, NEWEST + 1)}
    return {minor: python for minor, python in found.items() if python}


def controller() -> Path:
    """The newest Python that runs Ansible here; the environment variable PGOPS_PYTHON overrules.

    Raises:
        NoPythonError: there is none.
    """
    if os.environ.get("PGOPS_PYTHON"):
        return Path(os.environ["PGOPS_PYTHON"])
    for minor in range(NEWEST, OLDEST_CONTROLLER - 1, -1):
        python = find(minor)
        if python:
            return python
    raise NoPythonError(
        f"No Python 3.{OLDEST_CONTROLLER} to 3.{NEWEST} that can make virtual environments was found. "
        "On Debian and Ubuntu: apt-get install python3 python3-venv"
    )


def version() -> str:
    """The version of the controller's Python, such as `3.13`."""
    query = "import sys; print('%d.%d' % sys.version_info[:2])"
    return subprocess.run([controller(), "-c", query], capture_output=True, text=True, check=True).stdout.strip()


def link(directory: Path) -> None:
    """Make `directory` hold a link python3.N for every usable Python, and nothing else."""
    directory.mkdir(parents=True, exist_ok=True)
    wanted = {f"python3.{minor}": python for minor, python in installed().items()}
    for stale in directory.iterdir():
        if stale.name not in wanted:
            stale.unlink()
    for name, python in wanted.items():
        if not (directory / name).exists():
            (directory / name).symlink_to(python)


def make_venv(directory: Path, requirements: Path, python: Path | None = None) -> None:
    """Make a virtual environment with what `requirements` asks for; nothing happens where it is up to date."""
    python = python or controller()
    directory.parent.mkdir(parents=True, exist_ok=True)
    mark = directory / "made-from"
    key = hashlib.sha256(f"{python}\n{requirements.read_text()}".encode()).hexdigest()
    with directory.with_name(f".{directory.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not mark.exists() or mark.read_text() != key:
            print(f"{directory}: installing {requirements.name} for {python}", flush=True)
            _fill(directory, requirements, python)
            mark.write_text(key)
        os.utime(mark)


def _fill(directory: Path, requirements: Path, python: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)
    subprocess.run([str(python), "-m", "venv", str(directory)], check=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "--disable-pip-version-check"]
    subprocess.run([*pip, "install", "--quiet", "--requirement", str(requirements)], check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the usable Pythons")
    venv = commands.add_parser("venv", help="make a virtual environment")
    venv.add_argument("directory", type=Path)
    venv.add_argument("requirements", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "list":
            print("\n".join(str(python) for python in installed().values()))
        else:
            make_venv(arguments.directory, arguments.requirements)
    except (NoPythonError, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
