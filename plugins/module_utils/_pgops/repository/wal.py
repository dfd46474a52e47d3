# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names, places and timelines of WAL files. Pure.

Source: PostgreSQL, src/include/access/xlog_internal.h; src/backend/access/transam/timeline.c for history files.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .archiver import ENDINGS, kind

BYTES = 1 << 32
"""WAL that the middle part of a segment's name stands for."""


@dataclass(frozen=True)
class Place:
    """Where the WAL of a file starts: its timeline, and the byte in the WAL. ``segment`` is the number of the
    segment, None if the file is not a complete segment."""

    timeline: int
    lsn: int
    segment: int | None


@dataclass(frozen=True, order=True)
class Run:
    """Segments of one timeline in unbroken order, from number ``first`` to ``last``."""

    timeline: int
    first: int
    last: int


@dataclass(frozen=True)
class Ancestor:
    """A timeline from which another branched off, and the byte at which it did."""

    timeline: int
    end: int


def place(name: str, segment_bytes: int) -> Place | None:
    """Where a file of pg_wal starts; None for a history file, which has no place."""
    what = kind(name)
    if what in ("", "history"):
        return None
    timeline, high, low = (int(name[start : start + 8], 16) for start in (0, 8, 16))
    number = high * (BYTES // segment_bytes) + low
    offset = int(name.split(".")[1], 16) if what == "backup" else 0
    return Place(timeline, number * segment_bytes + offset, number if what == "segment" else None)


def parted(stored: str) -> tuple[str, str]:
    """The name of a WAL file, and the ending of its compression, of a stored file's name."""
    for ending in filter(None, ENDINGS.values()):
        if stored.endswith(ending):
            return stored[: -len(ending)], ending
    return stored, ""


def runs(segments: Iterable[tuple[int, int]]) -> tuple[Run, ...]:
    """The runs that segments make, each of which is its timeline and its number."""
    found: list[Run] = []
    start: tuple[int, int] | None = None
    before = (0, 0)
    for here in sorted(set(segments)):
        if start is None or here != (before[0], before[1] + 1):
            if start is not None:
                found.append(Run(*start, before[1]))
            start = here
        before = here
    if start is not None:
        found.append(Run(*start, before[1]))
    return tuple(found)


def name(timeline: int, segment: int, segment_bytes: int) -> str:
    """The name of a segment."""
    high, low = divmod(segment, BYTES // segment_bytes)
    return f"{timeline:08X}{high:08X}{low:08X}"


def lsn(byte: int) -> str:
    """A byte of the WAL as PostgreSQL writes it, 16/B374D848."""
    return f"{byte >> 32:X}/{byte & 0xFFFFFFFF:X}"


def ancestry(history: str) -> tuple[Ancestor, ...]:
    """The timelines that a history file names, the oldest first; other lines are skipped."""
    found = []
    for line in history.split("\n"):
        words = line.partition("#")[0].split()
        if len(words) >= 2 and words[0].isdigit() and "/" in words[1]:
            high, low = words[1].split("/")
            found.append(Ancestor(int(words[0]), (int(high, 16) << 32) + int(low, 16)))
    return tuple(found)


def continuous(
    runs: Iterable[Run], timeline: int, ancestors: Sequence[Ancestor], segment_bytes: int
) -> tuple[Run, ...]:
    """The segments that lead without a gap to the newest segment of a timeline, the newest run first.

    The segment in which a timeline branched off is complete on the new one only, and starts with the old one's WAL.
    """
    known = list(runs)
    line = [timeline, *[ancestor.timeline for ancestor in reversed(ancestors)]]
    begins = [*[ancestor.end // segment_bytes for ancestor in reversed(ancestors)], None]
    chain: list[Run] = []
    covered: int | None = None  # from this segment on nothing is missing
    for here, begin in zip(line, begins):
        run = _reaching(known, here, covered)
        if run is not None:
            chain.append(run)
            covered = run.first
        elif covered is None:
            covered = begin
        if begin is None or covered != begin:
            break
    return tuple(chain)


def _reaching(runs: Sequence[Run], timeline: int, end: int | None) -> Run | None:
    """The run of a timeline that reaches a segment, as far as that; or its newest."""
    if end is None:
        return max((run for run in runs if run.timeline == timeline), default=None)
    reaching = (run for run in runs if run.timeline == timeline and run.first < end <= run.last + 1)
    return next((Run(timeline, run.first, end - 1) for run in reaching), None)


def gaps(runs: Iterable[Run], timeline: int, ancestors: Sequence[Ancestor], segment_bytes: int) -> tuple[Run, ...]:
    """The missing segments between the oldest and the newest: within each timeline, and where one that leads to
    ``timeline`` branched off.

    A timeline without any segment from before the next one is not missing: archiving may have started later.
    """
    by_timeline: dict[int, list[Run]] = {}
    for run in sorted(runs):
        by_timeline.setdefault(run.timeline, []).append(run)
    found = [
        Run(here.timeline, here.last + 1, there.first - 1)
        for known in by_timeline.values()
        for here, there in zip(known, known[1:])
    ]
    children = [*[ancestor.timeline for ancestor in ancestors[1:]], timeline]
    for ancestor, child in zip(ancestors, children):
        turn = ancestor.end // segment_bytes
        older = [run for run in by_timeline.get(ancestor.timeline, ()) if run.first < turn]
        younger = by_timeline.get(child, [])
        if not older or not younger:
            continue
        if max(run.last for run in older) < turn - 1:
            found.append(Run(ancestor.timeline, max(run.last for run in older) + 1, turn - 1))
        if younger[0].first > turn:
            found.append(Run(child, turn, younger[0].first - 1))
    return tuple(sorted(set(found)))
