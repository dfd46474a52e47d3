# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How tests wait: for what they can see, and never for some time."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 180.0  # seconds: what takes so long does not come at all, however busy the machine is
PAUSE = 0.05  # seconds between two looks: each is a session of its own, most often

Seen = TypeVar("Seen")


class LateError(RuntimeError):
    """What was waited for does not come."""


def until(
    look: Callable[[], Seen], state: str, wanted: object = bool, *, pause: float = PAUSE, patience: float = PATIENCE
) -> Seen:
    """Look until what is seen is wanted, and return it; ``wanted`` is a value, or tells whether it is one.

    Raises:
        LateError: it does not come; with what was seen last.
    """
    deadline = time.monotonic() + patience
    while True:
        late = time.monotonic() > deadline
        seen = look()
        if wanted(seen) if callable(wanted) else seen == wanted:
            return seen
        if late:
            expected = "" if callable(wanted) else f", and not {wanted!r}"
            raise LateError(f"not {state} within {patience:.0f} s: seen was {seen!r}{expected}")
        time.sleep(pause)
