# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a backup will take in the repository, and how long, by those before it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..repository.manifests import FULL, Manifest

UNKNOWN_RATIO = 2
"""How many times smaller a backup is thought to be that is the first one compressed."""


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
