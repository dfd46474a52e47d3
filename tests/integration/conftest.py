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
import scratch
from archives import Host
from copies import Copies
from deploying import withdraw
from servers import Server


@pytest.fixture(name="copies", scope="module")
def _copies(server: Server) -> Iterator[Copies]:
    made = Copies(server)
    yield made
    made.end()


@pytest.fixture(name="deployed")
def _deployed(copies: Copies) -> Iterator[Server]:
    """A server with the ops database as it was deployed; for tests of the deployment itself there is ``server``."""
    with copies.one() as server:
        yield server


@pytest.fixture(name="undeployed")
def _undeployed(copies: Copies) -> Iterator[Server]:
    """The same server with nothing of ours, for tests that deploy by themselves; all of it is taken away again."""
    copies.end()
    yield copies.server
    withdraw(copies.server)


@pytest.fixture(name="root")
def _root() -> Iterator[Path]:
    """A directory that the servers of tests can reach: those of pytest are closed to others.

    To be asked for before any server, so that it outlives them.
    """
    root = Path(tempfile.mkdtemp(prefix="pgops-archiving-", dir=scratch.root()))
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
