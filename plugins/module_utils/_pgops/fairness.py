# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is scarce, shared out among those who want it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf


def level(wanted: Iterable[float], room: float) -> float:
    """The most that each may have so that all together have ``room`` at most; infinite if there is enough.

    Who wants less than an equal share gets it, and leaves the rest to the others (max-min fairness).

    >>> level([1, 2, 30, 40], 23)
    10.0
    """
    ordered = sorted(wanted)
    for place, least in enumerate(ordered):
        share = room / (len(ordered) - place)
        if least > share:
            return max(share, 0.0)
        room -= least
    return inf
