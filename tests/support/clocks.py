# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A clock of a test's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field


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
