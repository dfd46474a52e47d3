# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server that is watched, and who is told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from receivers import Webhook
from servers import Server
from watching import Watcher, placed


@pytest.fixture(name="webhook")
def _webhook() -> Iterator[Webhook]:
    webhook = Webhook().start()
    yield webhook
    webhook.stop()


@pytest.fixture(name="watched")
def _watched(major: int, new_server: Callable[..., Server]) -> Server:
    """A server with the agent's role and database, and nothing in it."""
    made = new_server(major, settings={"max_connections": "8", "superuser_reserved_connections": "2"}).start()
    made.value("CREATE ROLE pgops LOGIN")
    made.value("CREATE DATABASE pgops OWNER pgops")
    return made


@pytest.fixture(name="watcher")
def _watcher(watched: Server, tmp_path: Path, webhook: Webhook) -> Watcher:
    watcher = Watcher(watched, tmp_path / "prefix", own=placed(watched), answers=1.0)
    watcher.knows(ops={"hook": webhook.url("json", "hook")})
    return watcher
