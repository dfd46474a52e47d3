# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which WAL a stanza of pgBackRest keeps, whose expiry knows one floor only: a full backup. Pure.

Source: pgBackRest, "Archive Retention" (repo-retention-archive): all WAL from so many of the newest full backups on,
and of each older backup what it needs itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..repository import windows
from ..repository.inventory import Inventory
from ..repository.manifests import FULL
from ..repository.stanza import LAYOUT
from ..repository.wal import Run
from . import surplus
from .retention import Retained
from .surplus import ENDLESS, Needs


def floor(held: Inventory, retained: Sequence[Retained], needed: Needs) -> tuple[int, Needs]:
    """After how many of the newest full backups WAL may go, and all that is needed then; 0 where none may go, as
    nothing that pgBackRest can be told keeps enough."""
    if not held.stanza_runs:
        return 0, needed
    made = (one.kept.manifest for one in retained)
    own = sorted((one for one in made if one.layout == LAYOUT), key=lambda one: one.position)
    fulls = [one for one in own if one.kind == FULL and held.stanza_alone]
    for number in range(1, len(fulls) + 1):
        first = fulls[-number]
        runs = [run for one in own for run in windows.own(one)]
        keeps = _from(held, first.timeline, first.start_lsn)
        for run in runs:
            keeps.setdefault(run.timeline, []).append(run)
        if all(_within(run, keeps.get(run.timeline, ())) for run in _there(held, needed)):
            return number, surplus.joined(needed, keeps)
    return 0, surplus.joined(needed, {run.timeline: [Run(run.timeline, 0, ENDLESS)] for run in held.stanza_runs})


def _from(held: Inventory, timeline: int, start: int) -> dict[int, list[Run]]:
    """All WAL from a place on: pgBackRest compares the names of segments, which begin with the timeline."""
    later = {run.timeline for run in held.stanza_runs if run.timeline > timeline}
    found = {one: [Run(one, 0, ENDLESS)] for one in later}
    return {**found, timeline: [Run(timeline, start // held.segment_bytes, ENDLESS)]}


def _there(held: Inventory, needed: Needs) -> Iterator[Run]:
    """The segments of the stanza that are needed."""
    for run in held.stanza_runs:
        for other in needed.get(run.timeline, ()):
            first, last = max(run.first, other.first), min(run.last, other.last)
            if first <= last:
                yield Run(run.timeline, first, last)


def _within(run: Run, kept: Sequence[Run]) -> bool:
    """Whether runs, put together, have all of another."""
    return any(one.first <= run.first and run.last <= one.last for one in surplus.merged(kept))
