# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which dumps of a database are kept, and why. Pure."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from datetime import datetime, timedelta

from ..repository.dumps import Dumped, Stored
from ..repository.manifests import written
from .dump_options import Dumps
from .retention import AGE, LAST, MINIMUM, PIN, READ


@dataclass(frozen=True)
class DumpPlan:
    """What expires of a database's dumps, the oldest first, and what stays: each with the words of its reasons.
    ``skipped`` is why nothing expires, '' where it may."""

    removed: tuple[Stored, ...] = ()
    kept: tuple[tuple[Stored, tuple[str, ...]], ...] = ()
    skipped: str = ""


def plan(held: Dumped, declared: Dumps, now: datetime, there: bool, reading: Set[str] = frozenset()) -> DumpPlan:
    """What expires of a database's dumps, at ``now`` with a time zone. ``there``: the database exists, or is
    declared: its last good dump stays. ``reading`` are the names of dumps that are being read."""
    good = [one for one in held.dumps if not one.problems]
    words: dict[str, set[str]] = {one.name: set() for one in held.dumps}
    for one in held.dumps:
        if now - one.dump.completed_at <= timedelta(days=declared.days):
            words[one.name].add(AGE)
        if one.name in reading:
            words[one.name].add(READ)
        if one.pin is not None:
            words[one.name].add(PIN)
    if there:
        for one in good[-declared.minimum :] if declared.minimum else ():
            words[one.name].add(MINIMUM)
        for one in (*good[-1:], *held.dumps[-1:]):
            words[one.name].add(LAST)
    skipped = _obstacle(held, now, there)
    kept = tuple((one, tuple(sorted(words[one.name]))) for one in held.dumps if skipped or words[one.name])
    removed = tuple(one for one in held.dumps if not skipped and not words[one.name])
    return DumpPlan(removed, kept, skipped)


def _obstacle(held: Dumped, now: datetime, there: bool) -> str:
    """Why nothing may expire, '' if it may."""
    if there and held.failed:
        return "The newest dump was not completed: it failed, or is still being taken."
    newest = max((one.dump.completed_at for one in held.dumps), default=now)
    if now < newest:
        return (
            f"The clock says {written(now)}, but a dump was completed at {written(newest)}: the clock is wrong, or "
            "was when that dump was taken."
        )
    return ""
