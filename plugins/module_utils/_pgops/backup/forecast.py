# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a backup will take in the repository, and how long, by those before it, and how much WAL will come meanwhile.
Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from ..repository.manifests import FULL, Manifest

UNKNOWN_RATIO = 2
"""How many times smaller a backup is thought to be that is the first one compressed."""
UNKNOWN_SPEED = 50_000_000
"""Bytes that are thought to be copied each second, where nothing tells."""
SHORTEST = 60.0
"""Seconds of which it is told how much WAL is written in them: a backup's own checkpoint comes all at once."""


@dataclass(frozen=True)
class Forecast:
    """Bytes in the repository, and seconds of copying; None where nothing tells them."""

    stored_bytes: int
    seconds: float | None


def forecast(
    kind: str, compression: str, data_bytes: int, max_rate_mb: float, before: Iterable[Manifest]
) -> Forecast:
    """What a backup of ``data_bytes`` will take, by the last of those ``before`` that is like it.

    Without one it is thought to be as large as the data, or a part of that where it is compressed; of changes alone
    nothing is known.
    """
    like = [one for one in before if (one.kind, one.compression) == (kind, compression) and one.data_bytes > 0]
    if like:
        growth = data_bytes / like[-1].data_bytes
        seconds = (like[-1].completed_at - like[-1].started_at).total_seconds()
        # A clock that was set back while it ran.
        return Forecast(round(like[-1].stored_bytes * growth), seconds * growth if seconds > 0 else None)
    if kind != FULL:
        return Forecast(0, None)
    stored = data_bytes if compression == "none" else data_bytes // UNKNOWN_RATIO
    return Forecast(stored, data_bytes / (max_rate_mb * 1_000_000) if max_rate_mb else None)


def wal_rate(timeline: int, byte: int, now: datetime, before: Iterable[Manifest]) -> float:
    """Bytes of WAL that a server writes each second, which has come to a byte of a timeline by ``now``: on average
    since the newest backup of that, or while it was taken, whichever is more; 0 where there is none."""
    newest = max((one for one in before if one.timeline == timeline), key=lambda one: one.stop_lsn, default=None)
    if newest is None:
        return 0.0
    during = _rate(newest.stop_lsn - newest.start_lsn, newest.started_at, newest.completed_at)
    return max(during, _rate(byte - newest.stop_lsn, newest.completed_at, now))


def _rate(size: int, since: datetime, until: datetime) -> float:
    """Bytes each second; of less than a minute, or of a clock that was set back, nothing can be told."""
    seconds = (until - since).total_seconds()
    return max(0, size) / seconds if seconds >= SHORTEST else 0.0


@dataclass(frozen=True)
class Reserve:
    """The room that a backup leaves for WAL: for that which comes ``until`` its end, in the seconds of some clock, at
    so many bytes each ``second``; and at least the ``floor``, in bytes."""

    floor: int
    second: float = 0.0
    until: float = 0.0

    def at(self, now: float) -> int:
        """The bytes that have to be left at a moment of that clock."""
        return max(self.floor, round(self.second * (self.until - now)))


def duration(expected: Forecast, data_bytes: int) -> float:
    """The seconds that a backup is thought to take, of so many bytes of data."""
    return data_bytes / UNKNOWN_SPEED if expected.seconds is None else expected.seconds
