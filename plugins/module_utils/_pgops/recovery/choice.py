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
from difflib import get_close_matches
from typing import NoReturn

from ..errors import HostFailed, InvalidInput
from ..repository import chains, wal, windows
from ..repository.backups import Kept
from ..repository.inventory import Inventory
from . import commits, targets
from . import line as lines
from .commits import Reader, Record, Unfinished
from .line import Line
from .targets import Target

MOST_NAMED = 3
"""Of what there may be many, in a message."""
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
    """The backup, with those below it, the full one first; the line and its segments, of which ``last`` is the last
    that has to be replayed; ``lsn`` is the byte of the record that a name or a transaction is at, None for other
    targets. ``newest`` is the last end of a transaction in the WAL, None if that is not known."""

    chain: tuple[Kept, ...]
    reach: Reach
    last: int
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
    newest = chains.complete(listing.backups)[-1].manifest
    missing = windows.reachable(newest, newest.timeline, found).missing
    told = f": segment {missing} of the newest is {found.lack(missing)}" if missing else ""
    return f"each of its backups lacks WAL from its own time{told}."


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
    """Raises Unfinished."""
    with reader(reach.line) as reading:
        found = commits.newest(reading, reach.first, reach.last)
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
            targets.IMMEDIATE: self._immediate,
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

    def _chosen(
        self,
        reach: Reach,
        last: int,
        lsn: int | None = None,
        newest: Record | None = None,
        warnings: Sequence[str] = (),
    ) -> Choice:
        known = {kept.manifest.id: kept for kept in self.found.listing.backups}
        for segment, why in sorted(self.reader.damaged.items()):
            if reach.first <= segment <= last:
                self._refuse(f"{self.target} cannot be reached from backup {reach.kept.name}: {why}")
        return Choice(chains.chain(reach.kept, known) or (), reach, last, lsn, newest, tuple(warnings))

    def _immediate(self) -> Choice:
        reach = self.known[-1]
        return self._chosen(reach, (reach.kept.manifest.stop_lsn - 1) // reach.line.segment_bytes)

    def _latest(self) -> Choice:
        reach = self.furthest
        if self._gap:
            self._refuse(f"The newest moment cannot be reached: {self._gap}")
        return self._chosen(reach, reach.last, newest=self._newest(reach))

    @property
    def _gap(self) -> str:
        """Why the WAL that is there cannot be replayed to its end, as a sentence; '' if it can."""
        reach = self.furthest
        end = self.found.newest(reach.line.timeline)
        if end is None or end <= reach.last:
            return ""
        name = reach.line.name(reach.last + 1)
        why = self.found.rotten.get(name, "")
        return f"the WAL segment {name} is {self.found.lack(name)}{': ' * bool(why)}{why.rstrip('.')}."

    def _newest(self, reach: Reach) -> Record | None:
        """The last end of a transaction, for people to know; None where it is not among the newest WAL."""
        try:
            return commits.newest(self.reader, reach.first, reach.last, commits.GLANCE)
        except Unfinished:
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
        return self._chosen(reach, byte // reach.line.segment_bytes, newest=self._newest(reach))

    def _goes_on(self, byte: int) -> bool:
        """Whether there is a record at a byte or after it; so it is said where that cannot be found out."""
        try:
            return self.reader.goes_on(byte)
        except HostFailed:
            return True

    def _name(self) -> Choice:
        """PostgreSQL stops at the first restore point of a name: from the backup on there must be no other."""
        name = self.target.name
        seen: list[str] = []
        hits: list[Record] = []
        chosen: Reach | None = None
        for segment, points in commits.restore_points(self.reader, self._first, self.furthest.last):
            seen += [point.name for point in reversed(points)]
            hits = [*(point for point in points if point.name == name), *hits]
            if hits and chosen is None:
                chosen = self._at(hits[-1].lsn, f"The restore point {name!r} at LSN {wal.lsn(hits[-1].lsn)}")
            if chosen is not None and segment <= chosen.first:
                break
        if chosen is None:
            self._refuse(f"There is no restore point {name!r} in the WAL{_like(name, seen)}.{self._unread()}")
        hits = [hit for hit in hits if hit.lsn >= chosen.kept.manifest.start_lsn]
        if len(hits) > 1:
            places = ", ".join(wal.lsn(hit.lsn) for hit in hits)
            raise InvalidInput(
                f"There are several restore points {name!r}, at the LSNs {places}.",
                "Name the one that is meant by its LSN.",
            )
        return self._at_record(chosen, hits[0])

    def _at_record(self, reach: Reach, record: Record) -> Choice:
        return self._chosen(reach, record.lsn // reach.line.segment_bytes, record.lsn)

    def _xid(self) -> Choice:
        xid = self.target.xid or 0
        found = commits.transaction(self.reader, xid, self._first, self.furthest.last)
        if found.end is None:
            near = ", ".join(f"{one.xid} (LSN {wal.lsn(one.lsn)})" for one in found.others)
            nearest = f"; the nearest that ended: {near}" if near else ""
            self._refuse(f"The end of transaction {xid} is not in the WAL{nearest}.{self._unread()}")
        what = f"The end of transaction {xid} at LSN {wal.lsn(found.end.lsn)}"
        return self._at_record(self._at(found.end.lsn, what), found.end)

    @property
    def _first(self) -> int:
        """The first segment that can be replayed at all."""
        return min(one.first for one in self.known)

    def _unread(self) -> str:
        """What a search could not look into, in words."""
        damaged = [why for _segment, why in sorted(self.reader.damaged.items())]
        others = f"; and {len(damaged) - MOST_NAMED} more" if len(damaged) > MOST_NAMED else ""
        return f" These segments could not be read: {'; '.join(damaged[:MOST_NAMED])}{others}" if damaged else ""

    def _time(self) -> Choice:
        """The newest backup before whose end no transaction ended after the time, and after whose end one did: there
        PostgreSQL stops. Clocks are set back, so the last transaction of the WAL alone does not say that."""
        newest = self._newest(self.furthest)
        if newest is not None and newest.time is not None and not self._after(newest):
            self.reader.say(
                f"the last commit is of {targets.written(newest.time)}, which is not after the target; looking "
                "whether an earlier one is, as after a clock was set back"
            )
        return self._after_newest(newest)

    def _after_newest(self, newest: Record | None) -> Choice:
        """The choice where the last commit is known, as far as that can be found quickly."""
        searched: range | None = None
        for reach in filter(self._was_complete, reversed(self.known)):
            made = reach.kept.manifest
            first = made.stop_lsn // made.segment_bytes
            # What follows a newer backup was looked at for that one.
            last = min(reach.last, searched.start) if searched and reach.last < searched.stop else reach.last
            known = self._stopping(newest, first, last, made.stop_lsn)
            if known is not None:
                stop = self._earliest(first, known, made.stop_lsn)
                return self._chosen(reach, stop, None, newest, self._warned(reach))
            searched = range(first, reach.last + 1)
        if searched is None:
            self._refuse(f"{self.target} is before the end of the first backup.")
        last_one = f"the last commit is of {targets.written(newest.time)}" if newest and newest.time else "none"
        what = f"{self.target} cannot be reached: no commit after it is archived, {last_one}."
        return self._refuse(what + self._unread())

    def _stopping(self, newest: Record | None, first: int, last: int, byte: int) -> int | None:
        """One of some segments in which, from a byte on, a transaction ended after the time; None if none has any."""
        size = self.found.segment_bytes
        if newest is not None and newest.lsn >= byte and newest.lsn // size <= last and self._after(newest):
            return newest.lsn // size
        found = commits.any_of(self.reader, first, last, lambda one: one.lsn >= byte and self._after(one))
        return None if found is None else found.lsn // size

    def _earliest(self, first: int, known: int, byte: int) -> int:
        """The same in as early a segment as halving finds: the recovery does not get beyond it."""
        found, end = known, known
        while first < end:
            half = (first + end) // 2
            ahead = (range(number, number + 1) for number in range(half, end))
            ends = self.reader.search(ahead, "Transaction", lambda some: [one for one in some if one.lsn >= byte])
            records = next(filter(None, ends), None)
            if records is None:
                end = half
            elif any(map(self._after, records)):
                found = min(one.lsn for one in records) // self.found.segment_bytes
                end = half
            else:
                first = max(one.lsn for one in records) // self.found.segment_bytes + 1
        return found

    def _warned(self, reach: Reach) -> list[str]:
        """Words about a clock that backups saw going back: a time can have come twice."""
        made, wanted = [one.kept.manifest for one in self.known], self.target.time
        back = [
            f"between the backups {one.completed_at.isoformat()} and {other.completed_at.isoformat()}"
            for one, other in zip(made, made[1:])
            if wanted is not None and other.completed_at < one.completed_at and wanted <= one.completed_at
        ]
        if not back:
            return []
        warning = (
            f"The clock was set back {', '.join(back)}, so {self.target} may have come more than once. Backup "
            f"{reach.kept.name} is taken, and the first commit after the target that follows it. "
            "To be sure, name an LSN."
        )
        return [warning]

    def _after(self, record: Record) -> bool:
        """Whether a recovery to the time stops at a record, or before it."""
        when, wanted = record.time, self.target.time
        if when is None or wanted is None:
            return False
        return when > wanted or (when == wanted and not self.target.inclusive)

    def _was_complete(self, reach: Reach) -> bool:
        """Whether no transaction ended after the target's time before the end of a backup. What the WAL says counts,
        and the clock only where no transaction ended during the backup."""
        made = reach.kept.manifest
        last = (made.stop_lsn - 1) // made.segment_bytes
        during = False

        def pick(records: Sequence[Record]) -> Sequence[Record]:
            inside = [one for one in records if made.start_lsn <= one.lsn < made.stop_lsn]
            return [one for one in inside if self._after(one)][-1:] or inside[-1:]

        for found in self.reader.search(commits.backwards(reach.first, last), "Transaction", pick):
            if any(map(self._after, found)):
                return False
            during = during or bool(found)
        return during or (self.target.time is not None and made.completed_at <= self.target.time)

    def _refuse(self, what: str) -> NoReturn:
        """Raises InvalidInput with what can be reached instead."""
        behind = f" Behind that, {self._gap}" if self._gap and self._gap not in what else ""
        raise InvalidInput(what, f"{self._nearest()}{behind}")

    def _nearest(self) -> str:
        """What can be reached on the line, in words."""
        first, last = self.known[0], self.furthest
        newest = self._newest(last)
        commit = f", the last commit {targets.written(newest.time)}" if newest and newest.time else ""
        since = targets.written(first.kept.manifest.completed_at)
        return (
            f"On timeline {first.line.timeline} these can be reached: from {since} "
            f"(LSN {wal.lsn(first.kept.manifest.stop_lsn)}, backup {first.kept.name}) to the end of the WAL "
            f"(before LSN {wal.lsn(last.end)}{commit}){'' if self._gap else ', or latest'}."
        )


def _like(name: str, seen: Sequence[str]) -> str:
    """Restore points of similar names, or the newest ones, in words. Pure."""
    near = get_close_matches(name, seen, MOST_NAMED) or list(dict.fromkeys(seen))[:MOST_NAMED]
    return f"; there are {', '.join(map(repr, near))}" if near else ""
