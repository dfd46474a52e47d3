# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From when to when a cluster can be recovered, and which WAL that takes. Pure.

Bytes of the WAL are numbers: `wal.lsn` writes them as PostgreSQL does. A target is a timeline and a byte on the line
that leads to it.

Source of the rules: PostgreSQL, src/backend/access/transam/xlogrecovery.c (XLogFileReadAnyTLI, and the check that the
target's history has the backup in it) and timeline.c.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby

from ..errors import InvalidInput
from . import chains, wal
from .backups import Kept
from .inventory import Inventory
from .manifests import Manifest
from .wal import Ancestor, Run

DAMAGED_HISTORY, NO_BACKUP, INCOMPLETE_CHAIN = "damaged_history", "no_backup", "incomplete_chain"
MISSING_WAL, ANOTHER_TIMELINE = "missing_wal", "another_timeline"

Histories = Mapping[int, Sequence[Ancestor]]


@dataclass(frozen=True)
class Piece:
    """The part of a line that is WAL of one timeline: from the byte ``start`` to before ``end``, None for no end."""

    timeline: int
    start: int
    end: int | None


@dataclass(frozen=True)
class Span:
    """The segments that replay along a line reads from one timeline, by their numbers; ``last`` None for no end."""

    timeline: int
    first: int
    last: int | None


@dataclass(frozen=True)
class Reach:
    """How far replay from a backup can get: to before ``byte``, where the segment ``missing`` is the first that is
    not there. ``byte`` is None if the backup is of no use for the timeline, for the ``reason`` MISSING_WAL or
    ANOTHER_TIMELINE."""

    byte: int | None
    missing: str = ""
    reason: str = ""


@dataclass(frozen=True)
class Window:
    """A part of the line that leads to a timeline in which each moment can be restored: from ``since``, the end of
    the oldest of its ``backups`` (their UUIDs, in the order of the WAL), at ``since_time`` by the clock of then, to
    before ``until``, where the segment ``missing`` is not there: a gap, or what is still to come."""

    timeline: int
    since: int
    since_time: datetime
    until: int
    missing: str
    backups: tuple[str, ...]


def ancestors(timeline: int, histories: Histories) -> tuple[Ancestor, ...] | None:
    """The timelines from which one comes, the oldest first: by its history file, or that of one which comes from it;
    None if neither is there."""
    if timeline in histories:
        return tuple(histories[timeline])
    for _descendant, named in sorted(histories.items()):
        for number, ancestor in enumerate(named):
            if ancestor.timeline == timeline:
                return tuple(named[:number])
    return () if timeline == 1 else None


def line(timeline: int, histories: Histories) -> tuple[Piece, ...]:
    """The WAL that leads to the end of a timeline, the oldest first. If nobody knows where the timeline comes from,
    it is a line by itself."""
    pieces: list[Piece] = []
    start = 0
    for ancestor in ancestors(timeline, histories) or ():
        pieces.append(Piece(ancestor.timeline, start, ancestor.end))
        start = ancestor.end
    return (*pieces, Piece(timeline, start, None))


def spans(timeline: int, histories: Histories, segment_bytes: int) -> tuple[Span, ...]:
    """The segments that a replay along the line to a timeline reads, in its order.

    That in which a timeline branched off is whole on the new one only, where PostgreSQL looks for it first; of
    several that branched off in it, on the newest.
    """
    pieces = line(timeline, histories)
    firsts = [piece.start // segment_bytes for piece in pieces]
    lasts = [first - 1 for first in firsts[1:]]
    found = [Span(piece.timeline, first, last) for piece, first, last in zip(pieces, firsts, [*lasts, None])]
    return tuple(span for span in found if span.last is None or span.first <= span.last)


def leads_to(manifest: Manifest, timeline: int, histories: Histories) -> bool:
    """Whether a backup was taken on the line that leads to a timeline, before that left the backup's."""
    if manifest.timeline == timeline:
        return True
    on_the_way = (one for one in ancestors(timeline, histories) or () if one.timeline == manifest.timeline)
    return any(manifest.stop_lsn <= one.end for one in on_the_way)


def needed(manifest: Manifest, timeline: int, byte: int, histories: Histories) -> tuple[Run, ...]:
    """The segments that the restore of a backup to before a byte on the line of a timeline replays, in that order; at
    least those that make the backup consistent.

    Raises InvalidInput if the backup does not lead to the timeline.
    """
    if not leads_to(manifest, timeline, histories):
        raise InvalidInput(
            f"Backup {manifest.id} was taken on timeline {manifest.timeline} at {wal.lsn(manifest.stop_lsn)}, which "
            f"is not in the history of timeline {timeline}.",
            "Choose a backup from before that timeline branched off, or another timeline.",
        )
    size = manifest.segment_bytes
    first, last = manifest.start_lsn // size, (max(byte, manifest.stop_lsn) - 1) // size
    found = (
        Run(span.timeline, max(first, span.first), last if span.last is None else min(last, span.last))
        for span in spans(timeline, histories, size)
    )
    return tuple(run for run in found if run.first <= run.last)


def own(manifest: Manifest) -> tuple[Run, ...]:
    """The segments from a backup's start to its stop, which it needs to be consistent."""
    size = manifest.segment_bytes
    return (Run(manifest.timeline, manifest.start_lsn // size, (manifest.stop_lsn - 1) // size),)


def segments(manifest: Manifest, timeline: int, byte: int, histories: Histories) -> tuple[str, ...]:
    """The names of the segments of `needed`."""
    return tuple(
        wal.name(run.timeline, number, manifest.segment_bytes)
        for run in needed(manifest, timeline, byte, histories)
        for number in range(run.first, run.last + 1)
    )


def reachable(manifest: Manifest, timeline: int, inventory: Inventory) -> Reach:
    """How far replay from a backup gets on the line of a timeline."""
    if not leads_to(manifest, timeline, inventory.histories):
        return Reach(None, reason=ANOTHER_TIMELINE)
    size = inventory.segment_bytes
    on, number = _first_missing(manifest.start_lsn // size, timeline, inventory)
    missing = wal.name(on, number, size)
    if number * size < manifest.stop_lsn:
        return Reach(None, missing, MISSING_WAL)
    return Reach(number * size, missing)


def _first_missing(number: int, timeline: int, inventory: Inventory) -> tuple[int, int]:
    """The timeline and the number of the first segment from ``number`` on that is not there."""
    for span in spans(timeline, inventory.histories, inventory.segment_bytes):
        if span.last is not None and span.last < number:
            continue
        number = _end_of_run(span.timeline, number, inventory.runs)
        if span.last is None or number <= span.last:
            return span.timeline, number
        number = span.last + 1
    raise AssertionError("the last span has no end")


def _end_of_run(timeline: int, number: int, runs: Sequence[Run]) -> int:
    """The number after the last segment of the run which a segment is in; its own if it is not there."""
    at = bisect_right(runs, Run(timeline, number, 1 << 63)) - 1
    if at >= 0 and runs[at].timeline == timeline and runs[at].first <= number <= runs[at].last:
        return runs[at].last + 1
    return number


def timelines(inventory: Inventory) -> tuple[int, ...]:
    """The timelines of which a generation has anything."""
    return tuple(
        sorted(
            {run.timeline for run in inventory.runs}
            | set(inventory.histories)
            | set(inventory.damaged)
            | {kept.manifest.timeline for kept in inventory.listing.backups}
        )
    )


def windows(inventory: Inventory, backups: Iterable[Kept]) -> tuple[Window, ...]:
    """All windows by the timelines that they lead to, oldest first: more than one of a timeline where there are gaps.

    Those of a timeline begin on its ancestors where there are backups: they say from when on it can be restored.
    Backups whose chains are not whole do not count.
    """
    usable = chains.complete(backups)
    return tuple(
        window
        for timeline in timelines(inventory)
        if timeline not in inventory.damaged
        for window in _of_timeline(timeline, inventory, usable)
    )


def _of_timeline(timeline: int, inventory: Inventory, usable: Sequence[Kept]) -> Iterable[Window]:
    ordered = sorted(usable, key=lambda kept: kept.manifest.position)
    reached = [(reachable(kept.manifest, timeline, inventory), kept.manifest) for kept in ordered]
    useful = [(reach, manifest) for reach, manifest in reached if reach.byte is not None]
    for (byte, missing), group in groupby(useful, key=lambda one: (one[0].byte, one[0].missing)):
        manifests = [manifest for _reach, manifest in group]
        oldest = manifests[0]
        if byte is not None:
            ids = tuple(manifest.id for manifest in manifests)
            yield Window(timeline, oldest.stop_lsn, oldest.completed_at, byte, missing, ids)


def prevented(inventory: Inventory, backups: Iterable[Kept]) -> dict[int, str]:
    """Why a timeline has no window, for each that has none: DAMAGED_HISTORY, NO_BACKUP (however healthy its WAL is),
    INCOMPLETE_CHAIN or MISSING_WAL."""
    given = tuple(backups)
    usable = chains.complete(given)
    having = {window.timeline for window in windows(inventory, given)}
    return {
        timeline: _reason(timeline, inventory, given, usable)
        for timeline in timelines(inventory)
        if timeline not in having
    }


def _reason(timeline: int, inventory: Inventory, given: Sequence[Kept], usable: Sequence[Kept]) -> str:
    if timeline in inventory.damaged:
        return DAMAGED_HISTORY
    if any(leads_to(kept.manifest, timeline, inventory.histories) for kept in usable):
        return MISSING_WAL
    if any(leads_to(kept.manifest, timeline, inventory.histories) for kept in given):
        return INCOMPLETE_CHAIN
    return NO_BACKUP


def base(inventory: Inventory, backups: Iterable[Kept], timeline: int, byte: int) -> Kept | None:
    """The newest backup from which replay gets to a byte on the line of a timeline: it had ended by then. None if
    there is none."""
    if timeline in inventory.damaged:
        return None
    ordered = sorted(chains.complete(backups), key=lambda kept: kept.manifest.position)
    for kept in reversed(ordered):
        reach = reachable(kept.manifest, timeline, inventory)
        if kept.manifest.stop_lsn <= byte and reach.byte is not None and byte <= reach.byte:
            return kept
    return None
