# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What several tests on real servers need."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from archives import Host
from servers import Server


@pytest.fixture(name="root")
def _root() -> Iterator[Path]:
    """A directory that the servers of tests can reach: those of pytest are closed to others.

    To be asked for before any server, so that it outlives them.
    """
    root = Path(tempfile.mkdtemp(prefix="pgops-archiving-", dir="/tmp"))
    root.chmod(0o755)
    (root / "base").mkdir()
    (root / "prefix").mkdir()
    yield root
    shutil.rmtree(root, ignore_errors=True)


@pytest.fixture(name="make")
def _make(root: Path, major: int, new_server: Callable[..., Server]) -> Callable[..., Host]:
    def make(**options: Any) -> Host:
        return Host(new_server(major, **options).start(), root / "base", root / "prefix")

    return make
