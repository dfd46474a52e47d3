# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which backups are kept, and why. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any

from .. import spelling
from ..errors import InvalidInput
from ..repository import chains, windows
from ..repository.backups import Kept
from ..repository.inventory import Inventory
from ..repository.manifests import FULL, Manifest

AGE, MINIMUM, WINDOW, LAST = "age", "minimum", "window", "last"
READ, PIN, CHAIN = "read", "pin", "chain"
MOST_DAYS = 36500
ALL = 0
"""For a timeline: whichever the backup leads to."""


@dataclass(frozen=True)
class Retention:
    """How long backups are kept: full ones for ``full_days``, others for ``other_days``, with what they stand on;
    the newest ``minimum_full`` full ones, however old; and what it takes to restore each moment of the last
    ``window_days``."""

    full_days: float = 30.0
    other_days: float = 7.0
    minimum_full: int = 2
    window_days: float = 0.0

    def days(self, manifest: Manifest) -> float:
        """For how long a backup is kept by its age."""
        return self.full_days if manifest.kind == FULL else self.other_days


def parse(given: Mapping[str, Any]) -> Retention:
    """The retention that the inventory declares.

    Raises InvalidInput.
    """
    names = [field.name for field in fields(Retention)]
    unknown = spelling.unknown(given, names)
    if unknown:
        raise InvalidInput(f"pgops_backup_retention has no key {unknown}.")
    for name, value in given.items():
        whole = name == "minimum_full"
        number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
        if not number or not 0 <= value <= MOST_DAYS:
            raise InvalidInput(
                f"{name} of pgops_backup_retention is {value!r}.",
                f"It has to be a {'whole ' if whole else ''}number from 0 to {MOST_DAYS}.",
            )
    return Retention(**given)


@dataclass(frozen=True, order=True)
class Claim:
    """A reason to keep a backup, one of the words above. All that could be restored from it until now stays so, on
    ``timeline`` or on ALL; of one that has only the words of STANDALONE, only the state at its own end."""

    word: str
    timeline: int = ALL


STANDALONE = (PIN, CHAIN)


@dataclass(frozen=True)
class Retained:
    """A backup that is kept, and why."""

    kept: Kept
    claims: frozenset[Claim]

    @property
    def words(self) -> tuple[str, ...]:
        """The reasons, as words."""
        return tuple(sorted({claim.word for claim in self.claims}))

    @property
    def limited(self) -> bool:
        """Whether not all that could be restored from it stays so."""
        return all(claim.word in STANDALONE or claim.timeline != ALL for claim in self.claims)

    def lines(self, inventory: Inventory) -> tuple[int, ...]:
        """The timelines that it is to be replayed to."""
        wanted = {claim.timeline for claim in self.claims if claim.word not in STANDALONE}
        return tuple(
            timeline
            for timeline in windows.timelines(inventory)
            if wanted & {timeline, ALL} and windows.leads_to(self.kept.manifest, timeline, inventory.histories)
        )


def retained(
    inventory: Inventory, retention: Retention, now: datetime, reading: Set[str] = frozenset()
) -> tuple[Retained, ...]:
    """The backups that are kept, in the order of the WAL. ``now`` has a time zone, ``reading`` are the names of
    backups that are being read."""
    backups = inventory.listing.backups
    known = inventory.listing.by_id()
    ages = _ages(inventory, now)
    claims = {kept.manifest.id: set(_own(kept, retention, ages, reading)) for kept in backups}
    for timeline, line in _lines(inventory):
        for kept, word in _of_line(line, retention, ages):
            claims[kept.manifest.id].add(Claim(word, timeline))
    if backups:
        claims[backups[-1].manifest.id].add(Claim(LAST))
    for kept in [kept for kept in backups if claims[kept.manifest.id]]:
        for below in chains.lineage(kept, known)[:-1]:
            claims[below.manifest.id].add(Claim(CHAIN))
    found = (Retained(kept, frozenset(claims[kept.manifest.id])) for kept in backups)
    return tuple(one for one in found if one.claims)


def usable(inventory: Inventory) -> tuple[Kept, ...]:
    """The backups that can be restored now: the whole chain is there, nothing of it was found damaged, and the WAL
    that makes them consistent is there."""
    sound = [kept for kept in inventory.listing.backups if not kept.problems]
    return tuple(
        kept
        for kept in chains.complete(sound)
        if kept.manifest.timeline not in inventory.damaged
        and windows.reachable(kept.manifest, kept.manifest.timeline, inventory).byte is not None
    )


def _ages(inventory: Inventory, now: datetime) -> dict[str, timedelta]:
    """How old backups are. None is older than one from before it in the WAL: if its time says so, the clock had been
    set back when it was taken."""
    found: dict[str, timedelta] = {}
    youngest: dict[int, timedelta] = {}
    backups = inventory.listing.backups
    for kept in backups:
        timeline = kept.manifest.timeline
        if timeline not in youngest:
            before = (
                found[other.manifest.id]
                for other in backups
                if other.manifest.timeline < timeline
                and windows.leads_to(other.manifest, timeline, inventory.histories)
            )
            youngest[timeline] = min(before, default=timedelta.max)
        youngest[timeline] = min(youngest[timeline], now - kept.manifest.completed_at)
        found[kept.manifest.id] = youngest[timeline]
    return found


def _own(kept: Kept, retention: Retention, ages: Mapping[str, timedelta], reading: Set[str]) -> Iterator[Claim]:
    """The reasons that a backup has in itself."""
    if ages[kept.manifest.id] <= timedelta(days=retention.days(kept.manifest)):
        yield Claim(AGE)
    if kept.pin is not None:
        yield Claim(PIN)
    if kept.name in reading:
        yield Claim(READ)


def _lines(inventory: Inventory) -> Iterator[tuple[int, Sequence[Kept]]]:
    """What counts and windows are about, each by its timeline: all usable backups, and those that lead to the newest
    timeline, and to that of the newest backup, by the WAL and by the clock.

    The first alone would be wrong after a recovery to before the newest backups, the second after a promotion by
    mistake, and the third if that was backed up too. That a clock is wrong keeps more, and never less.
    """
    found = usable(inventory)
    if not found:
        return
    yield ALL, found
    latest = max(found, key=lambda kept: kept.manifest.completed_at)
    newest = windows.timelines(inventory)[-1]
    for timeline in sorted({newest, found[-1].manifest.timeline, latest.manifest.timeline}):
        yield timeline, [kept for kept in found if windows.leads_to(kept.manifest, timeline, inventory.histories)]


def _of_line(line: Sequence[Kept], retention: Retention, ages: Mapping[str, timedelta]) -> Iterator[tuple[Kept, str]]:
    """The reasons that backups have among others, of which none is newer than the last."""
    fulls = [kept for kept in line if kept.manifest.kind == FULL]
    yield from ((kept, LAST) for kept in line[-1:])
    yield from ((kept, MINIMUM) for kept in fulls[max(0, len(fulls) - retention.minimum_full) :])
    if retention.window_days:
        older = [kept for kept in fulls if ages[kept.manifest.id] >= timedelta(days=retention.window_days)]
        yield from ((kept, WINDOW) for kept in fulls if kept in older[-1:] or kept not in older)
