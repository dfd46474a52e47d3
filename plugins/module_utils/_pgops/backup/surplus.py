# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which WAL the kept backups need, and which nobody does. Pure.

A floor is for one timeline: below it only what single backups need for themselves is kept. History files always are:
they are small, and without them nobody knows what led to what.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ..repository import wal, windows
from ..repository.inventory import Inventory
from ..repository.wal import Run
from .retention import Retained

ENDLESS = 1 << 62
"""A byte of the WAL, and a segment, that no server reaches."""

Needs = Mapping[int, tuple[Run, ...]]
"""The segments that are kept, by timeline: runs in order and apart from each other."""


def needs(inventory: Inventory, retained: Sequence[Retained]) -> Needs:
    """The segments that backups need: each from its start to its stop, and from there on along the lines that it is
    kept for, without end.

    A timeline of which nobody knows where it comes from may come from any older one. That with the highest number,
    the cluster's own unless it was promoted by mistake, is kept where no backup leads to it.
    """
    found: dict[int, list[Run]] = defaultdict(list)
    sources = [(one.kept.manifest, one.lines(inventory)) for one in retained]
    for manifest, lines in sources:
        for run in windows.own(manifest):
            found[run.timeline].append(run)
        for timeline in lines:
            for run in windows.needed(manifest, timeline, ENDLESS, inventory.histories):
                found[run.timeline].append(run)
    known = windows.timelines(inventory)
    starts = {manifest.timeline for manifest, lines in sources if lines}
    reached = {timeline for _manifest, lines in sources for timeline in lines}
    whole = [timeline for timeline in unknown(inventory) if timeline not in starts or min(starts) < timeline]
    whole += [timeline for timeline in known[-1:] if timeline not in reached]
    for timeline in whole:
        found[timeline].append(Run(timeline, 0, ENDLESS))
    return {timeline: merged(runs) for timeline, runs in sorted(found.items())}


def by_timeline(runs: Iterable[Run]) -> Needs:
    """Runs by their timelines."""
    found: dict[int, list[Run]] = defaultdict(list)
    for run in runs:
        found[run.timeline].append(run)
    return {timeline: merged(some) for timeline, some in sorted(found.items())}


def joined(needed: Needs, others: Mapping[int, Sequence[Run]]) -> Needs:
    """What is needed by either of two."""
    every = sorted({*needed, *others})
    return {one: merged([*needed.get(one, ()), *others.get(one, ())]) for one in every}


def unknown(inventory: Inventory) -> tuple[int, ...]:
    """The timelines of which nobody knows where they come from."""
    known = windows.timelines(inventory)
    return tuple(timeline for timeline in known if windows.ancestors(timeline, inventory.histories) is None)


def floors(needed: Needs, segment_bytes: int) -> dict[int, int]:
    """The byte from which on all WAL of a timeline is kept, for each of which it is."""
    lasts = {timeline: runs[-1] for timeline, runs in needed.items()}
    endless = ENDLESS // segment_bytes - 1
    return {timeline: run.first * segment_bytes for timeline, run in lasts.items() if run.last >= endless}


def parted(inventory: Inventory, needed: Needs) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """The segments that are there: those that are needed, and those that are not."""
    cuts = [cut for run in inventory.runs for cut in _cut(run, needed.get(run.timeline, ()))]
    return tuple(run for run, wanted in cuts if wanted), tuple(run for run, wanted in cuts if not wanted)


def names(inventory: Inventory, gone: Sequence[Run], needed: Needs) -> tuple[str, ...]:
    """The names of the WAL files to delete with surplus segments, the oldest first; partial and damaged segments and
    backup history files go with the segments of their places."""
    size = inventory.segment_bytes
    segments = [wal.name(run.timeline, number, size) for run in gone for number in range(run.first, run.last + 1)]
    others = []
    for name in (*inventory.others, *inventory.rotten):
        place = wal.place(name, size)
        if place is not None and not _holds(needed.get(place.timeline, ()), place.lsn // size):
            others.append(name)
    return tuple(sorted([*segments, *others]))


def _holds(runs: Sequence[Run], number: int) -> bool:
    return any(run.first <= number <= run.last for run in runs)


def merged(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The same segments in runs that are in order and apart from each other."""
    found: list[Run] = []
    for run in sorted(runs):
        if found and run.first <= found[-1].last + 1:
            found[-1] = Run(run.timeline, found[-1].first, max(found[-1].last, run.last))
        else:
            found.append(run)
    return tuple(found)


def _cut(run: Run, needed: Sequence[Run]) -> Iterator[tuple[Run, bool]]:
    """The parts of a run, each with whether it is needed; what is needed is in order and apart."""
    first = run.first
    for other in needed:
        if other.last < first or other.first > run.last:
            continue
        if first < other.first:
            yield Run(run.timeline, first, other.first - 1), False
        yield Run(run.timeline, max(first, other.first), min(run.last, other.last)), True
        first = other.last + 1
    if first <= run.last:
        yield Run(run.timeline, first, run.last), False
