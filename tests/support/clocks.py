# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Clocks of a test's own: of a module of ours, and of a server."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import libfaketime
from servers import Server


def _at_a_minute() -> float:
    return time.time() // 60 * 60 + 0.2  # not at the edge of anybody's slots


@dataclass
class Clock:
    """Stands in for the module `time` in what is tested. It stands still but where somebody sleeps, and then all
    those sleep whom it is given to: whatever a busy machine does takes no time.

    ``meanwhile`` holds what happens during each sleep, the first first.
    """

    now: float = field(default_factory=_at_a_minute)
    meanwhile: list[Callable[[], object]] = field(default_factory=list)

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        if self.meanwhile:
            self.meanwhile.pop(0)()
        self.now += seconds


class ServerClock:
    """The clock of a server, which has to be started after this is made."""

    def __init__(self, server: Server) -> None:
        self.file = server.write(server.directory / "clock", "+0", 0o644)
        library = next(Path(libfaketime.__file__).parent.rglob("libfaketime.so.1"))
        preloaded = shutil.copy(library, server.directory / library.name)
        server.environment = {
            "LD_PRELOAD": str(preloaded),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "DONT_FAKE_MONOTONIC": "1",
            "TZ": "UTC",
        }

    def set(self, moment: datetime) -> None:
        """To a moment."""
        self.file.write_text(f"{moment:@%Y-%m-%d %H:%M:%S}")

    def shift(self, seconds: int) -> None:
        """Ahead of the real one, or behind it."""
        self.file.write_text(f"{seconds:+d}")
