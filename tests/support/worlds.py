# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Lives of clusters that never were: what they wrote, backed up, archived and lost, over promotions and recoveries.

WAL is counted in quarters of segments here, so that timelines branch off within segments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import keeping
from hypothesis import strategies as st

from pgops.repository import archiver, backups, wal
from pgops.repository.backups import Kept, Listing
from pgops.repository.inventory import Inventory
from pgops.repository.manifests import DIFFERENTIAL, FULL, INCREMENTAL

SEGMENT = 1 << 20
QUARTER = SEGMENT // 4
Act = tuple[str, int, int]


@dataclass
class World:
    """A cluster: by timeline, to which quarter it was written, and the one from which it came with the quarter at
    which it branched off; its backups, and the segments that never arrived."""

    ends: dict[int, int] = field(default_factory=lambda: {1: 4})
    origins: dict[int, tuple[int, int]] = field(default_factory=dict)
    backups: list[Kept] = field(default_factory=list)
    lost: set[tuple[int, int]] = field(default_factory=set)
    now: datetime = keeping.MIDNIGHT
    current: int = 1

    def live(self, acts: Sequence[Act]) -> World:
        """Do some things, one after the other: what, and two numbers that say how."""
        for what, one, other in acts:
            getattr(self, what)(one, other)
        return self

    def write(self, quarters: int, hours: int) -> None:
        """Write WAL."""
        self.ends[self.current] += quarters
        self.now += timedelta(hours=hours)

    def backup(self, kind: int, hours: int) -> None:
        """Take a backup; a full one where there is no other on this timeline."""
        own = [kept.manifest for kept in self.backups if kept.manifest.timeline == self.current]
        full = [manifest for manifest in own if manifest.kind == FULL]
        what = (FULL, INCREMENTAL, DIFFERENTIAL)[kind % 3] if full else FULL
        parent = {FULL: "", INCREMENTAL: own[-1].id if own else "", DIFFERENTIAL: full[-1].id if full else ""}[what]
        start = self.ends[self.current]
        self.write(1 + kind % 5, hours)
        number = len(self.backups)
        manifest = keeping.manifest(
            id=f"id{number}",
            kind=what,
            parent=parent,
            segment_bytes=SEGMENT,
            timeline=self.current,
            start_lsn=start * QUARTER + 40,
            stop_lsn=self.ends[self.current] * QUARTER,
            started_at=self.now,
            completed_at=self.now,
        )
        self.backups.append(Kept(f"name{number}", manifest))

    def branch(self, timeline: int, quarter: int) -> int:
        """Begin a timeline, whose number is the next one, somewhere on another."""
        known = sorted(self.ends)
        parent = known[timeline % len(known)]
        begin = self.origins.get(parent, (0, 0))[1]
        at = begin + quarter % (self.ends[parent] - begin + 1)
        new = known[-1] + 1
        self.origins[new], self.ends[new] = (parent, at), at + 1
        return new

    def promote(self, _one: int, _other: int) -> None:
        """Go on with a standby that had all WAL."""
        new = max(self.ends) + 1
        self.origins[new] = (self.current, self.ends[self.current])
        self.ends[new] = self.ends[self.current] + 1
        self.current = new

    def recover(self, timeline: int, quarter: int) -> None:
        """Go back to a moment of the past, and on from there."""
        self.current = self.branch(timeline, quarter)

    def stray(self, timeline: int, quarter: int) -> None:
        """A copy of the past is promoted for a moment, and writes."""
        self.ends[self.branch(timeline, quarter)] += 3

    def lose(self, timeline: int, number: int) -> None:
        """A segment never arrives."""
        known = sorted(self.ends)
        chosen = known[timeline % len(known)]
        self.lost.add((chosen, number % (self.ends[chosen] // 4 + 1)))

    def wake(self, hours: int, _other: int) -> None:
        """The clock was wrong, and goes back."""
        self.now -= timedelta(hours=hours)

    def owner(self, timeline: int, quarter: int) -> int:
        """Whose WAL a quarter is on the line that leads to a timeline."""
        while timeline in self.origins and quarter < self.origins[timeline][1]:
            timeline = self.origins[timeline][0]
        return timeline

    def content(self, timeline: int, number: int) -> tuple[int, ...]:
        """What a timeline's segment holds: whose WAL each of its quarters is."""
        return tuple(self.owner(timeline, quarter) for quarter in range(4 * number, 4 * number + 4))

    def archived(self) -> set[tuple[int, int]]:
        """The segments in the repository, by timeline and number."""
        whole = {
            (timeline, number)
            for timeline, end in self.ends.items()
            for number in range(self.origins.get(timeline, (0, 0))[1] // 4, end // 4)
        }
        return whole - self.lost

    def history(self, timeline: int) -> tuple[wal.Ancestor, ...]:
        """What a timeline's history file names."""
        if timeline not in self.origins:
            return ()
        parent, quarter = self.origins[timeline]
        return (*self.history(parent), wal.Ancestor(parent, quarter * QUARTER))

    def inventory(self) -> Inventory:
        """What the repository has."""
        listing = Listing(tuple(sorted(self.backups, key=lambda kept: kept.manifest.position)))
        histories = {timeline: self.history(timeline) for timeline in self.origins}
        return Inventory(keeping.GENERATION, SEGMENT, wal.runs(self.archived()), histories, listing)

    def store(self, repository: Path) -> None:
        """Make a repository of it."""
        place = keeping.generation(repository)
        generation = repository / keeping.GENERATION
        (generation / archiver.IDENTITY).write_text(f'{{"wal_segment_size": {SEGMENT}}}')
        names = [wal.name(timeline, number, SEGMENT) for timeline, number in self.archived()]
        texts = {f"{timeline:08X}.history": self.history(timeline) for timeline in self.origins}
        (generation / "wal").mkdir()
        for name in (*names, *texts):
            path = Path(archiver.place(str(repository), keeping.GENERATION, name))
            path.parent.mkdir(exist_ok=True)
            lines = (f"{one.timeline}\t{wal.lsn(one.end)}\twhy\n" for one in texts.get(name, ()))
            path.write_text("".join(lines))
        for kept in self.backups:
            with backups.begun(place, kept.name) as path_of_backup:
                Path(path_of_backup, backups.DATA).mkdir()
                Path(path_of_backup, backups.DATA, "file").write_text(kept.name)
                backups.publish(path_of_backup, kept.manifest)


def acts(kinds: Sequence[str], most: int = 30) -> st.SearchStrategy[list[Act]]:
    """What a cluster does in its life: three bytes an act, which are drawn much faster than what they stand for."""

    def told(drawn: bytes) -> list[Act]:
        return [
            (kinds[what % len(kinds)], one % 41, other % 201)
            for what, one, other in zip(drawn[0::3], drawn[1::3], drawn[2::3])
        ]

    lengths = st.integers(0, most)
    return lengths.flatmap(lambda length: st.binary(min_size=3 * length, max_size=3 * length)).map(told)


def numbers(runs: Sequence[wal.Run]) -> Iterator[tuple[int, int]]:
    """The segments of runs, by timeline and number."""
    return ((run.timeline, number) for run in runs for number in range(run.first, run.last + 1))
