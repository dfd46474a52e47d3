# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""All WAL that backups lead to is read again, a part in each run: each goes on where the last one ended.

A segment has to be whole, and the right one; its records have to have their checksums, where the server's pg_waldump
is there; and its content has to be the one that the catalogue knows, where it does. A catalogue that was rebuilt from
what is rotten knows that, and no better: the records are read in any case.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from ..errors import HostFailed
from ..host import files
from ..repository import backups, chains, damage, inventory, segments, wal, windows
from ..repository.damage import Damage, Reading
from ..repository.inventory import Inventory
from ..repository.segments import Stretch
from ..repository.wal import Run
from . import records, surplus
from .clients import Clients

LOCK = "wal.lock"
USUAL = 1.0
"""Days between two runs of the job, where they are not known."""

Known = Mapping[str, tuple[int, str]]
"""Size and SHA-256 of segments, by their names."""


@dataclass(frozen=True)
class Scrub:
    """What reads the WAL of a generation: ``known`` is what the catalogue knows of it, ``scratch`` a directory that
    it may make. ``theirs`` are segments of a stanza that pgBackRest has found damaged, None where it was not asked:
    what it found before stays."""

    repository: str
    generation: str
    programs: Clients
    scratch: str
    known: Known = field(default_factory=dict)
    theirs: Mapping[str, Damage] | None = None

    @property
    def place(self) -> str:
        """The directory with the note."""
        return backups.folder(self.repository, self.generation)


def needed(held: Inventory) -> tuple[Run, ...]:
    """The segments that are stored as files and lead from a backup to anywhere, in order; those of a stanza are
    pgBackRest's to verify. Pure."""
    wanted: dict[int, list[Run]] = {}
    for kept in chains.complete(held.listing.backups):
        for timeline in windows.timelines(held):
            if windows.leads_to(kept.manifest, timeline, held.histories):
                for run in windows.needed(kept.manifest, timeline, surplus.ENDLESS, held.histories):
                    wanted.setdefault(run.timeline, []).append(run)
    return surplus.parted(_files(held), {timeline: surplus.merged(runs) for timeline, runs in wanted.items()})[0]


def _files(held: Inventory) -> Inventory:
    """The same without the segments that only a stanza has. Pure."""
    return replace(held, runs=surplus.parted(held, surplus.by_timeline(held.stanza_runs))[1])


def is_due(seen: datetime, now: datetime, days: float) -> bool:
    """Whether what was read last at a time is read again, so that it is within some days. Pure."""
    # A day less: what the next run finds would be older. A clock that was set back tells nothing.
    return not timedelta(0) <= now - seen < timedelta(days=days - USUAL)


def share(reading: Reading, days: float, now: datetime) -> float:
    """The part of the WAL that a run reads, so that all of it is read within some days. Pure."""
    since = (now - reading.at).total_seconds() / 86400 if reading.at else USUAL
    # A clock that was set back.
    since = since if since > 0 else USUAL
    # A day less: the segments behind the end of this run wait for the next one.
    return min(1.0, since / max(days - USUAL, USUAL))


def portion(runs: Sequence[Run], after: tuple[int, int], part: float) -> tuple[tuple[Run, ...], tuple[Run, ...]]:
    """The segments that are read now, those behind a timeline and a number and then, from the beginning, those up to
    it: as two parts of so many segments together as are a part of all. Pure."""
    left = math.ceil(sum(run.last - run.first + 1 for run in runs) * part)
    behind = [
        _from(run, after[1] + 1) if run.timeline == after[0] else run for run in runs if run.timeline >= after[0]
    ]
    before = [_to(run, after[1]) if run.timeline == after[0] else run for run in runs if run.timeline <= after[0]]
    first, left = _limited(behind, left)
    return first, _limited(before, left)[0]


def _from(run: Run, first: int) -> Run:
    return replace(run, first=max(run.first, first))


def _to(run: Run, last: int) -> Run:
    return replace(run, last=min(run.last, last))


def _limited(runs: Iterable[Run], left: int) -> tuple[tuple[Run, ...], int]:
    """The first so many segments of runs, of which some may be empty; and how many more could be."""
    found = []
    for run in runs:
        count = min(left, run.last - run.first + 1)
        if count > 0:
            found.append(replace(run, last=run.first + count - 1))
            left -= count
    return tuple(found), left


def scrub(run: Scrub, days: float, now: datetime, everything: bool = False) -> dict[str, Any]:
    """Read the part of a generation's WAL that is due, or ``everything``, and what was damaged before.

    Returns ``read`` (the number of segments) and ``damaged`` (the reasons, by the names of segments, of this run and
    of those before it). Raises Busy if another run does, and HostFailed.
    """
    if not os.path.isdir(run.place):
        return {"read": 0, "damaged": {}}
    with files.exclusive(os.path.join(run.place, LOCK), 0):
        return _scrub(run, days, now, everything)


def _scrub(run: Scrub, days: float, now: datetime, everything: bool) -> dict[str, Any]:
    held, reading = inventory.stored(run.repository, run.generation), damage.read(run.place)
    size, wanted = held.segment_bytes, needed(held)
    again = _runs(reading.damaged, _files(held))
    theirs = run.theirs if run.theirs is not None else _theirs(run, reading, held)
    run = replace(run, known={name: one for name, one in run.known.items() if one[1] != reading.bad.get(name)})
    damaged = {name: one for name, one in reading.damaged.items() if name in _names(again, size)}  # others are gone
    for batch in _batches(again, size):
        _read(run, batch, size, damaged)
    part = 1.0 if everything else share(reading, days, now)
    behind, before = portion(wanted, _place(reading.after, size), part)
    count = 0
    for batch in _batches((*behind, *before), size):
        _read(run, batch, size, damaged)
        count += batch.last - batch.first + 1
        last = wal.name(batch.timeline, batch.last, size)
        complete = now if _ends(batch, wanted) else reading.complete_at
        reading = replace(reading, after=last, complete_at=complete).finding({**damaged, **theirs})
        damage.note(run.place, reading)
    found = {**damaged, **theirs}
    damage.note(run.place, replace(reading, at=now).finding(found))
    return {"read": count, "damaged": {name: one.reason for name, one in sorted(found.items())}}


def _theirs(run: Scrub, reading: Reading, held: Inventory) -> dict[str, Damage]:
    """What was found damaged, and is in a stanza as it was. Raises HostFailed."""
    names = _names(_runs(reading.damaged, replace(held, runs=held.stanza_runs)), held.segment_bytes)
    noted = {name: reading.damaged[name] for name in names}
    still = damage.still(run.repository, run.generation, replace(reading, damaged=noted))
    return {name: one for name, one in noted.items() if name in still}


def _names(runs: Iterable[Run], size: int) -> list[str]:
    return [wal.name(run.timeline, number, size) for run in runs for number in range(run.first, run.last + 1)]


def _place(after: str, size: int) -> tuple[int, int]:
    """Timeline and number of a segment, of none before all others."""
    place = wal.place(after, size) if after else None
    return (place.timeline, place.segment or 0) if place else (0, 0)


def _ends(batch: Run, wanted: Sequence[Run]) -> bool:
    """Whether a part reaches the end of the WAL."""
    return (batch.timeline, batch.last) == (wanted[-1].timeline, wanted[-1].last)


def _runs(names: Iterable[str], held: Inventory) -> tuple[Run, ...]:
    """Those segments of some names that are stored."""
    places = [wal.place(name, held.segment_bytes) for name in names]
    numbers = [(one.timeline, one.segment) for one in places if one is not None and one.segment is not None]
    return wal.runs(
        one for one in numbers if any(run.timeline == one[0] and run.first <= one[1] <= run.last for run in held.runs)
    )


def _batches(runs: Iterable[Run], size: int) -> Iterator[Run]:
    """Parts of runs that are read at once."""
    count = max(1, records.AT_ONCE // size)
    for run in runs:
        for first in range(run.first, run.last + 1, count):
            yield Run(run.timeline, first, min(first + count - 1, run.last))


def _read(run: Scrub, batch: Run, size: int, damaged: dict[str, Damage]) -> None:
    """Read segments, and note what is wrong with them. Raises HostFailed if that cannot be found out."""
    whole = _stretch(run, batch, size)
    found = {number: _wrong(whole, number) for number in whole.numbers}
    sound = wal.runs((batch.timeline, number) for number, reason in found.items() if not reason)
    for part in sound:
        try:
            found.update(_records(run, part, size))
        except HostFailed:
            if all(whole.stored(number) for number in range(part.first, part.last + 1)):
                raise
    for number, reason in found.items():
        _judge(run, whole, number, reason, damaged)


def _wrong(whole: Stretch, number: int) -> str:
    """Why a segment is not the one that it should be. Raises HostFailed if that cannot be found out."""
    try:
        return segments.wrong(whole, number)
    except HostFailed as error:
        stored = whole.stored(number)
        if stored is None:  # it has been removed meanwhile
            return ""
        if segments.digest(stored[0]):  # what unpacks it is not there
            raise
        return f"cannot be read: {error}"


def _stretch(run: Scrub, batch: Run, size: int) -> Stretch:
    where = (run.repository, run.generation, batch.timeline)
    return Stretch(*where, batch.first * size, (batch.last + 1) * size, size)


def _records(run: Scrub, part: Run, size: int) -> dict[int, str]:
    """What is wrong with the records of segments, by their numbers."""
    all_of_it = records.broken(_stretch(run, part, size), run.programs, run.scratch, beyond=True)
    if not all_of_it:
        return {}
    found: dict[int, str] = {}
    for number in range(part.first, part.last + 1):
        one = _stretch(run, Run(part.timeline, number, number), size)
        said = records.broken(one, run.programs, run.scratch, beyond=True)
        found[number] = f"has a damaged record, which begins in it: {said}" if said else ""
    if not any(found.values()):  # where it is cannot be told
        found[part.first] = f"or one behind it has a damaged record: {all_of_it}"
    return found


def _judge(run: Scrub, whole: Stretch, number: int, reason: str, damaged: dict[str, Damage]) -> None:
    """Note a segment as damaged, or as sound."""
    name = whole.name(number)
    stored = whole.stored(number)
    if stored is None:
        damaged.pop(name, None)
        return
    content = segments.digest(stored[0])
    before = damaged.get(name)
    # The catalogue may know a damaged content by now.
    size, expected = (before.expected_bytes, before.expected) if before else run.known.get(name, (0, ""))
    # A copy of another size is of another compression, or of another level of it.
    if not reason and expected and content != expected and os.path.getsize(stored[0]) == size:
        reason = "is not what it was when it was catalogued: its checksum is another one"
    if reason or not content:
        good = "" if expected == content else expected
        damaged[name] = Damage(reason or "cannot be read", content, good, size)
    else:
        damaged.pop(name, None)


def names(held: Inventory) -> list[str]:
    """The names of the segments that a run may read. Pure."""
    return _names(needed(held), held.segment_bytes)
