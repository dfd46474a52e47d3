# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server and its agent whose clocks a test sets ahead, for what only minutes show."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from clocks import Clock, ServerClock
from deploying import SHIPPED, collect
from servers import Server

from pgops.metrics import collect as collection

SETTINGS = {"autovacuum": "off", "wal_sender_timeout": "0"}
"""Of the server: a walsender takes minutes that are left out for a standby that is silent."""


@dataclass
class Ahead:
    """A server and its agent, whose clocks go on when the test says so, and the agent's directory."""

    server: Server
    of_server: ServerClock
    of_agent: Clock
    state: Path
    minutes: int = 0

    @classmethod
    def of(cls, server: Server, state: Path, patch: pytest.MonkeyPatch) -> Ahead:
        """Start a server under a clock of its own; ``patch`` gives the agent another one."""
        made = cls(server, ServerClock(server), Clock(time.time()), state)
        patch.setattr(collection, "time", made.of_agent)
        server.start()
        return made

    def later(self, minutes: int) -> None:
        """Let some time pass."""
        self.minutes += minutes
        self.of_server.shift(self.minutes * 60)
        self.of_agent.now = time.time() + self.minutes * 60

    def measure(self, *names: str, **settings: Any) -> None:
        """What an agent does each minute, with the collectors of these names."""
        self.of_agent.now = time.time() + self.minutes * 60
        found = [one for one in SHIPPED if one.name in names and one.for_version(self.server.major)]
        assert collect(self.server, self.state, found=found, **settings)["errors"] == []

    def clock(self) -> float:
        """The time on the server (Unix)."""
        return float(str(self.server.value("SELECT extract(EPOCH FROM clock_timestamp())")))
