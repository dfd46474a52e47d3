"""Builds the collection and installs it, so that tests meet what users get, not the checkout.

    build/dist/pgops-fleet-VERSION.tar.gz                    the artifact
    build/collections/ansible_collections/pgops/fleet        the same, installed
    build/lib/pgops                                          the library of the checkout as the package `pgops`

Nothing happens where no source has changed. Needs the ansible-galaxy beside the Python that runs it.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build"
LIBRARY = ROOT / "plugins" / "module_utils" / "_pgops"
DIST = BUILD / "dist"
COLLECTIONS = BUILD / "collections"
INSTALLED = COLLECTIONS / "ansible_collections" / "pgops" / "fleet"
MARK = COLLECTIONS / "made-from"
SOURCES = ("LICENSE", "README.md", "CHANGELOG.*", "galaxy.yml", "changelogs", "docs", "meta", "playbooks")
TREES = ("plugins", "roles", "grafana")


def sources() -> list[Path]:
    """Every file of the checkout that can end up in the artifact."""
    roots = [match for pattern in SOURCES + TREES for match in ROOT.glob(pattern)]
    files = [path for root in roots for path in ([root] if root.is_file() else root.rglob("*"))]
    return sorted(path for path in files if path.is_file() and "__pycache__" not in path.parts)


def fingerprint() -> str:
    """SHA-256 over names, modes and contents of the sources."""
    digest = hashlib.sha256()
    for path in sources():
        digest.update(f"{path.relative_to(ROOT)}\0{path.stat().st_mode}\0{path.stat().st_size}\0".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def is_current() -> bool:
    """Whether what is installed was built from the sources as they are now."""
    return MARK.exists() and MARK.read_text() == fingerprint()


def link_library() -> None:
    """Make the library importable as the package `pgops`, as the agent on a host has it."""
    link = BUILD / "lib" / "pgops"
    link.parent.mkdir(parents=True, exist_ok=True)
    if not link.is_symlink():
        link.symlink_to(Path("..") / ".." / "plugins" / "module_utils" / "_pgops", target_is_directory=True)


def _galaxy(*arguments: str) -> None:
    galaxy = Path(sys.executable).parent / "ansible-galaxy"
    command = [str(galaxy), "collection", *arguments]
    environment = {**os.environ, "ANSIBLE_COLLECTIONS_PATH": str(BUILD / "collections.new")}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{result.stdout}{result.stderr}")


def _install() -> None:
    shutil.rmtree(DIST, ignore_errors=True)
    _galaxy("build", "--output-path", str(DIST))
    new, old = BUILD / "collections.new", BUILD / "collections.old"
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    (artifact,) = DIST.glob("*.tar.gz")
    _galaxy("install", "--offline", "--no-deps", "--collections-path", str(new), str(artifact))
    if COLLECTIONS.exists():
        COLLECTIONS.rename(old)
    new.rename(COLLECTIONS)
    shutil.rmtree(old, ignore_errors=True)


def main() -> None:
    link_library()
    with (BUILD / ".collections.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not is_current():
            key = fingerprint()
            _install()
            MARK.write_text(key)
            print(f"installed {INSTALLED.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
