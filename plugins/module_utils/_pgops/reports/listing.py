# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A fleet as a table for the terminal. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..terminal import shown

TITLES = ("STATUS", "INSTANCE", "ROLE", "VERSION", "FIRES", "RECOVERY", "BACKUP", "WHY")
UNKNOWN = "-"
LONGEST = 100
"""Characters of a reason."""


def lines(document: Mapping[str, Any]) -> list[str]:
    """The lines of a table of all instances, the worst first, and of the hosts that have none to show."""
    rows = [TITLES, *map(_host, _silent(document)), *map(_instance, document["instances"])]
    widths = [max(len(row[place]) for row in rows) for place in range(len(TITLES))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]


def _silent(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [host for host in document["hosts"] if not host["instances"]]


def _host(host: Mapping[str, Any]) -> Sequence[str]:
    empty = (UNKNOWN,) * (len(TITLES) - 3)
    return (host["status"], shown(host["name"]), *empty, _cut(host["text"]))


def _instance(one: Mapping[str, Any]) -> Sequence[str]:
    facts = one["facts"]
    reasons = [reason["text"] for reason in one["reasons"] if reason["level"] != "notice"]
    more = f" (+{len(reasons) - 1})" if len(reasons) > 1 else ""
    return (
        one["status"],
        shown(one["id"]),
        facts["role"] or UNKNOWN,
        facts["version"] or UNKNOWN,
        _firing(one),
        _recovery(facts.get("backups") or {}),
        _age(facts.get("backups") or {}),
        _cut(reasons[0]) + more if reasons else "",
    )


def _firing(one: Mapping[str, Any]) -> str:
    firing = (one["facts"].get("alerts") or {}).get("firing")
    return UNKNOWN if firing is None else str(sum(alert["node"] == one["node"] for alert in firing))


def _recovery(backups: Mapping[str, Any]) -> str:
    words: dict[Any, str] = {True: backups.get("recovery", UNKNOWN), False: "impossible", None: "no backups"}
    return words[backups["recoverable"]] if "recoverable" in backups else UNKNOWN


def _age(backups: Mapping[str, Any]) -> str:
    ages = [one["completed_age_s"] for one in backups.get("newest", ())]
    return duration(min(ages)) if ages else UNKNOWN


def duration(seconds: float) -> str:
    """A time as people say it."""
    for unit, size, limit in (("s", 1, 120), ("min", 60, 7200), ("h", 3600, 172800)):
        if seconds < limit:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def _cut(text: str) -> str:
    flat = shown(text)
    return flat if len(flat) <= LONGEST else f"{flat[: LONGEST - 3]}..."
