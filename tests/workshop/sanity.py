"""Runs ansible-test sanity on a copy of the installed collection, with every Python of this machine.

The copy is a git repository of its own: inside this repository's ignored build/ directory ansible-test would
find no file and pass. The caches are in build/ too, since ansible-test keeps its environments below HOME.

ansible-test fetches a script that brings pip into its environments; each Python has pip with it (ensurepip),
so a script that says so takes its place, and nothing but PyPI is needed.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import artifact
import pythons

HOME = artifact.BUILD / "home"
COPY = artifact.BUILD / "sanity" / "ansible_collections" / "pgops" / "fleet"
BOOTSTRAP = "import ensurepip\nensurepip.bootstrap(default_pip=True)\n"
NOISE = re.compile(
    r"^\s*(Building|Collecting|Created|Downloading|Getting requirements|Installing|Looking in|Preparing metadata"
    r"|Processing|Stored in|Successfully|Using cached|WARNING: Location|━)|━━|Requirement already satisfied"
)


def _copy() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    shutil.copytree(artifact.INSTALLED, COPY, ignore=shutil.ignore_patterns("__pycache__"))
    (COPY / "tests").mkdir()
    shutil.copy(artifact.ROOT / "tests" / "config.yml", COPY / "tests")
    subprocess.run(["git", "init", "--quiet", str(COPY)], check=True)


def _bring_pip() -> None:
    """Put the bootstrap script where this ansible-test looks for the pip version it wants."""
    (package,) = Path(sys.prefix).glob("lib/python3.*/site-packages/ansible_test")
    source = (package / "_internal" / "python_requirements.py").read_text()
    cache = HOME / ".ansible" / "test" / "cache"
    cache.mkdir(parents=True, exist_ok=True)
    for version in re.findall(r"\bpip='([0-9.]+)'", source):
        (cache / f"get_pip_{version.replace('.', '_')}.py").write_text(BOOTSTRAP)


def _environment() -> dict[str, str]:
    links = artifact.BUILD / "pythons"
    pythons.link(links)
    for name in (".config/pip", ".cache/pip"):  # how the user reaches PyPI
        own = HOME / name
        own.parent.mkdir(parents=True, exist_ok=True)
        if not own.is_symlink() and (Path.home() / name).exists():
            shutil.rmtree(own, ignore_errors=True)
            own.symlink_to(Path.home() / name)
    path = [entry for entry in os.get_exec_path() if not entry.endswith("/shims")]  # pyenv's don't all start
    here = [str(Path(sys.prefix) / "bin"), str(links)]
    return {**os.environ, "HOME": str(HOME), "PATH": os.pathsep.join(here + path)}


def main() -> int:
    _copy()
    _bring_pip()
    command = ["ansible-test", "sanity", "--color", "no", *sys.argv[1:]]
    result = subprocess.run(
        command, cwd=COPY, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    lines = result.stdout.decode(errors="replace").splitlines()
    print("\n".join(line for line in lines if not NOISE.search(line)))
    done = sum(line.startswith("Running sanity test") for line in lines)
    if not result.returncode and (not done or any("All targets skipped" in line for line in lines)):
        print("ansible-test found nothing to check: that is an error of this script")
        return 1
    print(f"ansible-test sanity: {done} tests run, {'some failed' if result.returncode else 'all passed'}")
    return result.returncode


if __name__ == "__main__":
    sys.exit(main())
