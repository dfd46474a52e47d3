# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The time that a report is about, and its steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..errors import InvalidInput, QueryFailed
from ..server.session import Session

SHORTEST_STEP = 1
"""Seconds: no collector runs more often."""
MOST_POINTS = 1000
MOST_HOURS = 24 * 366

BOUNDS = """
SELECT
    extract(EPOCH FROM b.until)::double precision AS until,
    extract(EPOCH FROM clock_timestamp())::double precision AS now
FROM (SELECT least(coalesce(nullif(%(until)s, '')::timestamptz, now()), now()) AS until) AS b
"""


@dataclass(frozen=True)
class Window:
    """``starts`` and ``ends`` in seconds since 1970, ``points`` steps of ``step`` seconds between them, and ``now``
    by the clock of the server."""

    starts: float
    ends: float
    points: int
    now: float

    @property
    def step(self) -> float:
        """Seconds."""
        return (self.ends - self.starts) / self.points

    def bounds(self) -> dict[str, Any]:
        """For queries."""
        return {"starts": self.starts, "ends": self.ends, "step": self.step}

    def described(self) -> dict[str, Any]:
        """For the document."""
        return {"starts": round(self.starts), "ends": round(self.ends), "points": self.points}


def checked(params: Mapping[str, Any]) -> None:
    """Raise InvalidInput for bounds that make no window."""
    if not 0 < params["hours"] <= MOST_HOURS:
        raise InvalidInput(f"hours must be above 0 and at most {MOST_HOURS}, not {params['hours']:g}.")
    if not 1 <= params["points"] <= MOST_POINTS:
        raise InvalidInput(f"points must be from 1 to {MOST_POINTS}, not {params['points']}.")


def opened(session: Session, hours: float, until: str, points: int) -> Window:
    """The hours before ``until``, which is a time as PostgreSQL reads it, '' for now; by the server's clock.

    Raises InvalidInput for what is no time, and QueryFailed.
    """
    try:
        found = session.row(BOUNDS, {"until": until}) or {}
    except QueryFailed as error:
        if str(error.sqlstate).startswith("22"):
            raise InvalidInput(f"ends_at: {until!r} is not a time, as 2026-01-31 03:12+01 is one.") from error
        raise
    ends, seconds = float(found["until"]), hours * 3600
    return Window(ends - seconds, ends, max(1, min(points, int(seconds // SHORTEST_STEP))), float(found["now"]))
