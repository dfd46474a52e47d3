# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which backup a recovery starts from, on which line of the WAL, and whether it can reach its target at all.

PostgreSQL says that a target is not reached when all the WAL has been replayed, perhaps after hours. All of it can be
known before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import NoReturn

from ..errors import HostFailed, InvalidInput
from ..repository import chains, wal, windows
from ..repository.backups import Kept
from ..repository.inventory import Inventory
from . import commits, targets
from . import line as lines
from .commits import Reader, Record, Unknown
from .line import Line
from .targets import Target

Readers = Callable[[Line], AbstractContextManager[Reader]]


@dataclass(frozen=True)
class Reach:
    """What can be recovered from a backup on a line: with the WAL of the segments ``first`` to ``last``."""

    line: Line
    kept: Kept
    first: int
    last: int

    @property
    def end(self) -> int:
        """The byte at which its WAL ends."""
        return (self.last + 1) * self.line.segment_bytes


@dataclass(frozen=True)
class Choice:
    """The backup, with those below it, the full one first; the line and its segments; ``lsn`` is the byte of the
    record that a name or a transaction is at, None for other targets. ``newest`` is the last end of a transaction in
    the WAL, None if that is not known."""

    chain: tuple[Kept, ...]
    reach: Reach
    lsn: int | None = None
    newest: Record | None = None
    warnings: tuple[str, ...] = ()


def choose(found: Inventory, target: Target, reader: Readers) -> Choice:
    """The best backup for a target: the newest one from which it can be reached.

    Raises HostFailed and InvalidInput, with the nearest targets that can be reached.
    """
    known = reaches(found)
    if not known:
        raise HostFailed(f"Nothing in generation {found.generation} can be restored: {_why(found)}")
    line, warnings = _line(known, target, reader)
    here = [reach for reach in known if reach.line.timeline == line.timeline]
    with reader(line) as reading:
        chosen = _Search(found, target, here, reading).answer()
    others = [*chosen.warnings, *warnings, *_hurt(found)]
    return replace(chosen, warnings=tuple(others))


def _hurt(found: Inventory) -> list[str]:
    """What is wrong with backups that are not taken for that reason."""
    damaged = [f"Backup {name}: {why}" for name, why in found.listing.damaged.items()]
    noted = [kept for kept in found.listing.backups if kept.problems]
    return damaged + [f"Backup {kept.name}, by its last verification: {'; '.join(kept.problems)}" for kept in noted]


def reaches(found: Inventory) -> tuple[Reach, ...]:
    """What each whole backup can be recovered to, on every line that it is on; by line, then in the order of the WAL.

    A backup that lacks WAL of its own time, or that its last verification found damaged, cannot be used at all.
    """
    sound = chains.complete(kept for kept in found.listing.backups if not kept.problems)
    known = []
    for timeline in windows.timelines(found):
        if timeline in found.damaged:
            continue
        line = lines.to(timeline, found.histories, found.segment_bytes)
        for kept in sound:
            reach = windows.reachable(kept.manifest, timeline, found)
            if reach.byte is not None:
                last = reach.byte // found.segment_bytes - 1
                known.append(Reach(line, kept, kept.manifest.start_lsn // found.segment_bytes, last))
    return tuple(sorted(known, key=lambda reach: (reach.line.timeline, reach.kept.manifest.stop_lsn)))


def _why(found: Inventory) -> str:
    listing = found.listing
    if _hurt(found):
        return "; ".join(_hurt(found))
    if not listing.backups:
        return "it has no backup, and WAL alone cannot be restored."
    if not chains.complete(listing.backups):
        return "the full backup that the others stand on is missing."
    return "each of its backups lacks WAL from its own time."


# --- the line


def _line(known: Sequence[Reach], target: Target, reader: Readers) -> tuple[Line, tuple[str, ...]]:
    """The line to recover on: the one that is asked for, or where the cluster last worked.

    A promotion of a copy adds a timeline with a higher number, and a recovery one that ends earlier: neither says
    where the cluster is. The newest transaction does.
    """
    every = {reach.line.timeline: reach for reach in known}
    if target.timeline:
        if target.timeline not in every:
            raise InvalidInput(
                f"Timeline {target.timeline} cannot be reached from any backup.",
                f"Those that can: {', '.join(map(str, every))}.",
            )
        return every[target.timeline].line, ()
    tips = {one: reach for one, reach in every.items() if not _continued(reach, every.values())}
    if len(tips) == 1:
        return next(iter(tips.values())).line, ()
    ages = {one: _newest_time(reach, reader) for one, reach in tips.items()}
    chosen = max(tips, key=lambda one: (ages[one], one))
    told = ", ".join(f"{one} (last commit {ages[one] or 'unknown'})" for one in tips)
    warning = f"The WAL has several ends, on the timelines {told}. Timeline {chosen} is taken; or name another one."
    return tips[chosen].line, (warning,)


def _continued(reach: Reach, others: Iterable[Reach]) -> bool:
    """Whether another line has all that this one has."""
    left = [other.line.leaves(reach.line.timeline) for other in others]
    # The segment in which another one branched off is complete there, and only there.
    return any(end is not None and reach.last <= end // reach.line.segment_bytes for end in left)


def _newest_time(reach: Reach, reader: Readers) -> str:
    with reader(reach.line) as reading:
        try:
            found = commits.newest(reading, reach.first, reach.last)
        except (Unknown, HostFailed):
            return ""
    return targets.written(found.time) if found and found.time else ""


# --- the backup


@dataclass(frozen=True)
class _Search:
    """The search of a backup on one line; ``known`` is not empty, and in the order of the WAL."""

    found: Inventory
    target: Target
    known: Sequence[Reach]
    reader: Reader

    def answer(self) -> Choice:
        """Raises HostFailed with what can be reached."""
        searches = {
            targets.LATEST: self._latest,
            targets.IMMEDIATE: lambda: self._chosen(self.known[-1]),
            targets.LSN: self._lsn,
            targets.NAME: self._name,
            targets.XID: self._xid,
            targets.TIME: self._time,
        }
        return searches[self.target.kind]()

    @property
    def furthest(self) -> Reach:
        """The reach that ends last, from the newest backup."""
        return max(self.known, key=lambda reach: (reach.last, reach.kept.manifest.stop_lsn))

    def _chosen(self, reach: Reach, lsn: int | None = None, *warnings: str, newest: Record | None = None) -> Choice:
        known = {kept.manifest.id: kept for kept in self.found.listing.backups}
        return Choice(chains.chain(reach.kept, known) or (), reach, lsn, newest, warnings)

    def _latest(self) -> Choice:
        reach = self.furthest
        end = max((run.last for run in self.found.runs if run.timeline == reach.line.timeline), default=reach.last)
        if reach.last < end:
            missing = reach.line.name(reach.last + 1)
            self._refuse(f"The newest moment cannot be reached: the WAL segment {missing} is missing.")
        return self._chosen(reach, newest=self._newest(reach))

    def _newest(self, reach: Reach) -> Record | None:
        try:
            return commits.newest(self.reader, reach.first, reach.last)
        except (Unknown, HostFailed):
            return None

    def _at(self, byte: int, what: str) -> Reach:
        """The newest backup that was complete before a byte, and whose WAL reaches it."""
        fitting = [one for one in self.known if one.kept.manifest.stop_lsn <= byte < one.end]
        if not fitting:
            self._refuse(f"{what} cannot be reached.")
        return fitting[-1]

    def _lsn(self) -> Choice:
        byte = self.target.lsn or 0
        reach = self._at(byte, f"LSN {wal.lsn(byte)}")
        if byte // reach.line.segment_bytes == reach.last and not self._goes_on(byte):
            self._refuse(f"LSN {wal.lsn(byte)} cannot be reached: no WAL is archived from there on.")
        return self._chosen(reach, newest=self._newest(reach))

    def _goes_on(self, byte: int) -> bool:
        """Whether there is a record at a byte or after it; so it is said where that cannot be found out."""
        try:
            return self.reader.goes_on(byte)
        except HostFailed:
            return True

    def _name(self) -> Choice:
        name, reach = self.target.name, self.furthest
        first = min(one.first for one in self.known if one.last == reach.last)
        try:
            points = commits.restore_points(self.reader, name, first, reach.last)
        except Unknown:
            return self._chosen(reach, None, f"The restore point {name!r} was not found within {commits.BUDGET:g} s.")
        if not points:
            self._refuse(f"There is no restore point {name!r} in the WAL.")
        chosen = self._at(points[0].lsn, f"The restore point {name!r} at LSN {wal.lsn(points[0].lsn)}")
        self._refuse_others(chosen, points)
        return self._chosen(chosen, points[0].lsn)

    def _refuse_others(self, reach: Reach, points: Sequence[Record]) -> None:
        """PostgreSQL stops at the first restore point of a name."""
        size = reach.line.segment_bytes
        try:
            older = commits.restore_points(self.reader, self.target.name, reach.first, points[0].lsn // size - 1)
        except Unknown:
            return
        if older or len(points) > 1:
            places = ", ".join(wal.lsn(point.lsn) for point in [*older, *points])
            raise InvalidInput(
                f"There are several restore points {self.target.name!r}, at the LSNs {places}.",
                "Name the one that is meant by its LSN.",
            )

    def _xid(self) -> Choice:
        xid, reach = self.target.xid or 0, self.furthest
        first = min(one.first for one in self.known if one.last == reach.last)
        try:
            found = commits.transaction(self.reader, xid, first, reach.last)
        except Unknown:
            return self._chosen(reach, None, f"Transaction {xid} was not found within {commits.BUDGET:g} s.")
        if found is None:
            self._refuse(f"The end of transaction {xid} is not in the WAL.")
        what = f"The end of transaction {xid} at LSN {wal.lsn(found.lsn)}"
        return self._chosen(self._at(found.lsn, what), found.lsn)

    def _time(self) -> Choice:
        newest_first = reversed(range(len(self.known)))
        complete = next((number for number in newest_first if self._was_complete(self.known[number])), -1)
        before = self.known[: complete + 1]
        if not before:
            self._refuse(f"{self.target} is before the end of the first backup.")
        reach = max(before, key=lambda one: (one.last, one.kept.manifest.stop_lsn))
        try:
            newest = commits.newest(self.reader, reach.first, reach.last)
        except (Unknown, HostFailed) as error:
            why = str(error) or f"no commit was found within {commits.BUDGET:g} s"
            return self._chosen(reach, None, f"Whether the WAL goes on after {self.target} is not known: {why}.")
        if newest is None or not self._after(newest):
            last = f"the last commit is of {targets.written(newest.time)}" if newest and newest.time else "none"
            self._refuse(f"{self.target} cannot be reached: no commit after it is archived, {last}.")
        return self._chosen(reach, newest=newest)

    def _after(self, record: Record) -> bool:
        """Whether a recovery to the time stops at a record, or before it."""
        when, wanted = record.time, self.target.time
        if when is None or wanted is None:
            return False
        return when > wanted or (when == wanted and not self.target.inclusive)

    def _was_complete(self, reach: Reach) -> bool:
        """Whether a backup was complete before the target's time. What the WAL says counts, and the clock only where
        no transaction ended during the backup."""
        made = reach.kept.manifest
        last = (made.stop_lsn - 1) // made.segment_bytes
        try:
            record = commits.newest(self.reader, reach.first, last, before=made.stop_lsn)
        except (Unknown, HostFailed):
            record = None
        if record is not None and record.lsn >= made.start_lsn:
            return not self._after(record)
        return self.target.time is not None and made.completed_at <= self.target.time

    def _refuse(self, what: str) -> NoReturn:
        """Raises InvalidInput with what can be reached instead."""
        raise InvalidInput(what, self._nearest())

    def _nearest(self) -> str:
        """What can be reached on the line, in words."""
        first, last = self.known[0], self.furthest
        newest = self._newest(last)
        commit = f", the last commit {targets.written(newest.time)}" if newest and newest.time else ""
        since = targets.written(first.kept.manifest.completed_at)
        return (
            f"On timeline {first.line.timeline} these can be reached: from {since} "
            f"(LSN {wal.lsn(first.kept.manifest.stop_lsn)}, backup {first.kept.name}) to the end of the WAL "
            f"(before LSN {wal.lsn(last.end)}{commit}), or latest."
        )
