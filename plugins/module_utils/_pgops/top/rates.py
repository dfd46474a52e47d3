# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How fast a server's counters grow between two looks at them. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

RATES: Mapping[str, tuple[str, ...]] = {
    "transactions_per_second": ("commits", "rollbacks"),
    "rollbacks_per_second": ("rollbacks",),
    "rows_read_per_second": ("rows_read",),
    "rows_written_per_second": ("rows_written",),
    "temp_bytes_per_second": ("temp_bytes",),
    "wal_bytes_per_second": ("wal_bytes",),
}
"""By each rate, the counters that it is the sum of."""
HIT = "cache_hit_percent"
COUNTERS = (*("blocks_hit", "blocks_read"), *dict.fromkeys(name for parts in RATES.values() for name in parts))

SAME = ("started_at", "counted_since", "standby")
"""What is the same in two looks whose counters can be compared: the start of the server, which databases there are,
since when each of them counts, and whether the WAL's position is that of replay."""


def between(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, float | None]:
    """The rates between two looks, each with ``at`` (a time), COUNTERS and what SAME names. All are None where the
    looks cannot be compared; one is where a counter of it is, as is the share of reads that hit the cache where there
    were none."""
    unknown: dict[str, float | None] = dict.fromkeys((*RATES, HIT))
    if before is None or any(before[name] != now[name] for name in SAME):
        return unknown
    seconds = (now["at"] - before["at"]).total_seconds()
    grown = {name: _grown(before[name], now[name]) for name in COUNTERS}
    if seconds <= 0 or any(more is not None and more < 0 for more in grown.values()):
        return unknown
    return {
        **{rate: _rate([grown[name] for name in parts], seconds) for rate, parts in RATES.items()},
        HIT: _share(grown["blocks_hit"], grown["blocks_read"]),
    }


def _grown(before: float | None, now: float | None) -> float | None:
    return None if before is None or now is None else now - before


def _rate(grown: Sequence[float | None], seconds: float) -> float | None:
    known = [more for more in grown if more is not None]
    return sum(known) / seconds if len(known) == len(grown) else None


def _share(hit: float | None, read: float | None) -> float | None:
    return 100.0 * hit / (hit + read) if hit is not None and read is not None and hit + read else None
