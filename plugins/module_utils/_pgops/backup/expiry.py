# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What expires in a repository: backups, and then the WAL that nobody needs without them.

The directory alone decides: its manifests, and the names of its WAL files. A run that is killed anywhere leaves
backups that are whole, or gone, and perhaps WAL that the next run deletes.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from itertools import groupby
from typing import Any

from ..errors import PgOpsError
from ..host import files
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..repository import archiver, backups, chains, generations, inventory, removed, wal, windows
from ..repository import stanza as stanzas
from ..repository.backups import Kept
from ..repository.inventory import Inventory
from ..repository.manifests import FULL, written
from ..repository.stanza import LAYOUT, Stanza
from ..repository.windows import Window
from . import floors as stanza_floors
from . import retention as keeping
from . import surplus
from .adopting import adopt
from .options import options, repository
from .retention import Retained, Retention


@dataclass(frozen=True)
class Expired:
    """A backup that expires, and the reason, as a sentence."""

    kept: Kept
    reason: str


@dataclass(frozen=True)
class ExpiryPlan:
    """What expires: backups in the order of their removal, none before what stands on it, and then the files ``wal``,
    by name. ``kept`` is what stays and why; ``floors`` the byte from which on all WAL of a timeline is kept.
    ``before`` and ``after`` are the recovery windows. ``skipped`` is why nothing expires, '' where it may; ``notes``
    is what else has to be known. ``fulls`` is how many of its newest full backups a stanza of pgBackRest keeps with
    all WAL that follows, 0 for all."""

    removed: tuple[Expired, ...]
    kept: tuple[Retained, ...]
    floors: Mapping[int, int]
    wal: tuple[str, ...]
    before: tuple[Window, ...]
    after: tuple[Window, ...]
    skipped: str = ""
    notes: tuple[str, ...] = ()
    fulls: int = 0


def plan(
    held: Inventory, retention: Retention, now: datetime, reading: Set[str] = frozenset(), failed: str = ""
) -> ExpiryPlan:
    """What expires by a retention, at ``now`` with a time zone. Pure.

    ``reading`` are the names of backups that are being read: they stay, with all WAL that leads from them to
    anywhere. ``failed`` is why the newest attempt of a backup has failed, '' if it has not.
    """
    before = windows.windows(held, held.listing.backups)
    retained = keeping.retained(held, retention, now, reading)
    fulls, needed = stanza_floors.floor(held, retained, surplus.needs(held, retained))
    floors = surplus.floors(needed, held.segment_bytes)
    skipped = _obstacle(held, now, failed)
    if skipped:
        return ExpiryPlan((), _with_all(held, retained), floors, (), before, before, skipped, _notes(held))
    staying = {one.kept.manifest.id for one in retained}
    gone = [kept for kept in held.listing.backups if kept.manifest.id not in staying]
    removed = tuple(Expired(kept, _reason(kept, retention)) for kept in chains.dependants_first(gone))
    left, dropped = surplus.parted(held, needed)
    listing = replace(held.listing, backups=tuple(one.kept for one in retained))
    after = windows.windows(replace(held, runs=left, listing=listing), listing.backups)
    names = surplus.names(held, dropped, needed)
    return ExpiryPlan(removed, retained, floors, names, before, after, notes=_notes(held), fulls=fulls)


def _obstacle(held: Inventory, now: datetime, failed: str) -> str:
    """Why nothing may expire, '' if it may."""
    listing = held.listing
    if listing.damaged:
        name, reason = min(listing.damaged.items())
        more = f" (and {len(listing.damaged) - 1} more)" if len(listing.damaged) > 1 else ""
        return f"Nobody knows what backup {name}{more} needs. {reason}"
    if failed:
        return failed
    if not listing.backups:
        return "There is no backup: all WAL is kept."
    newest = max(kept.manifest.completed_at for kept in listing.backups)
    if now < newest:
        return (
            f"The clock says {written(now)}, but a backup was completed at {written(newest)}: the clock is wrong, or "
            "was when that backup was taken."
        )
    if not keeping.usable(held):
        return "None of the backups can be restored: there is WAL missing, or what they stand on."
    return ""


def _with_all(held: Inventory, retained: Sequence[Retained]) -> tuple[Retained, ...]:
    """All backups, those that would expire without a reason."""
    known = {one.kept.manifest.id: one for one in retained}
    return tuple(known.get(kept.manifest.id, Retained(kept, frozenset())) for kept in held.listing.backups)


def _reason(kept: Kept, retention: Retention) -> str:
    kind = "full ones" if kept.manifest.kind == FULL else "others than full ones"
    return f"It is older than {retention.days(kept.manifest):g} days, for which {kind} are kept."


def _notes(held: Inventory) -> tuple[str, ...]:
    """What is wrong with history files."""
    lacking = [
        f"{timeline:08X}.history is not there: the WAL of timeline {timeline} is kept as long as backups of older "
        "timelines are."
        for timeline in surplus.unknown(held)
        if timeline not in held.damaged
    ]
    return (*(reason for _timeline, reason in sorted(held.damaged.items())), *lacking)


# --- carried out


@dataclass(frozen=True)
class Outcome:
    """What has expired in a generation: ``swept`` are the names of directories that killed runs had left, ``wal`` is
    the number of WAL files that were deleted. ``plan`` is what was left to do at the end: nothing, but after a dry
    run."""

    generation: str
    plan: ExpiryPlan
    removed: tuple[Expired, ...] = ()
    wal: int = 0
    swept: tuple[str, ...] = ()
    before: tuple[Window, ...] = ()


UNFINISHED = "The newest backup was not completed: it failed, or is still being taken."


@dataclass
class Expiry:
    """An expiry in a generation of a repository, by its server's user. ``failed`` as in `plan`; ``reading`` are the
    backups that were found to be read: they stay in this run."""

    repository: str
    generation: str
    retention: Retention
    now: datetime
    failed: str = ""

    def __post_init__(self) -> None:
        self.place = backups.folder(self.repository, self.generation)
        self.wal = os.path.join(self.repository, self.generation, "wal")
        self.reading: set[str] = set()
        self.removed: list[Expired] = []
        self.deleted = 0
        self.stanza = stanzas.of(self.repository, self.generation)

    def planned(self) -> ExpiryPlan:
        """What is to be done, by what is there now. Raises HostFailed."""
        held = inventory.read(self.repository, self.generation)
        names = [kept.name for kept in held.listing.backups]
        self.reading |= {name for name in names if backups.being_read(self.place, name)}
        failed = self.failed or (UNFINISHED if backups.failed(self.place) else "")
        return plan(held, self.retention, self.now, self.reading, failed)

    def apply(self) -> Outcome:
        """Do it.

        Raises Busy if backups are being taken or expired, and HostFailed.
        """
        if not os.path.isdir(self.place):
            nothing = self.planned()
            return Outcome(self.generation, nothing, before=nothing.before)
        with backups.alone(self.place):
            swept = backups.sweep(self.place)
            if self.stanza:
                adopt(self.repository, self.stanza)
            before = self.planned().before
            planned = self._without_backups()
            while not self._without_wal(planned):
                planned = self._without_backups()
            if not planned.skipped:
                self._without_directories()
            return Outcome(self.generation, self.planned(), tuple(self.removed), self.deleted, swept, before)

    def _without_backups(self) -> ExpiryPlan:
        """Remove the backups that expire; what is to be done then. Who began to read one, or pinned it, changes the
        plan."""
        planned = self.planned()
        while planned.removed:
            for expired in planned.removed:
                removed.note(self.place, [expired.kept.manifest.id])
                if not backups.remove(self.place, expired.kept.name, partial(self._gone, expired.kept)):
                    self.reading.add(expired.kept.name)
                    break
                self.removed.append(expired)
            planned = self.planned()
        return planned

    def _gone(self, kept: Kept) -> None:
        """A backup no longer counts: have pgBackRest remove what it has of it. Raises HostFailed."""
        label = self.stanza.label(kept.manifest.id) if self.stanza and kept.manifest.layout == LAYOUT else None
        if self.stanza and label:
            self.stanza.expire(label)

    def _without_wal(self, planned: ExpiryPlan) -> bool:
        """Delete WAL; False if somebody began to read a backup that could do with less before.

        While WAL is deleted, nobody begins to read such a one: the restore might have seen the WAL just before.
        """
        limited = [one.kept.name for one in planned.kept if one.limited]
        for directory, names in groupby(planned.wal, key=lambda name: name[:16]):
            with backups.unread(self.place, limited) as busy:
                if busy:
                    self.reading.update(busy)
                    return False
                self._delete(directory, frozenset(names))
        if self.stanza and planned.fulls:
            with backups.unread(self.place, limited) as busy:
                if busy:
                    self.reading.update(busy)
                    return False
                self._expire_stanza(self.stanza.anew(), planned)
        return True

    def _expire_stanza(self, stanza: Stanza, planned: ExpiryPlan) -> None:
        """Have pgBackRest remove the WAL that expires. Raises HostFailed."""
        going = sorted(set(planned.wal) & set(stanza.wal()))
        if not going:
            return
        size = inventory.segment_bytes(self.repository, self.generation)
        removed.note(self.place, runs=wal.runs(stanzas.segments(going, size)))
        stanza.expire_wal(planned.fulls)
        self.deleted += len(set(going) - set(stanza.wal()))

    def _runs(self, stored: Sequence[str]) -> tuple[wal.Run, ...]:
        """The segments among names of stored files."""
        size = inventory.segment_bytes(self.repository, self.generation)
        places = [wal.place(wal.parted(name)[0], size) for name in stored]
        return wal.runs((one.timeline, one.segment) for one in places if one and one.segment is not None)

    def _delete(self, directory: str, names: Set[str]) -> None:
        """Delete WAL files in one of their directories. Raises HostFailed."""
        path = os.path.join(self.wal, directory)
        try:
            archiver.sweep(path)
            going = sorted(name for name in os.listdir(path) if wal.parted(name)[0] in names)
            removed.note(self.place, runs=self._runs(going))
            for name in going:
                os.unlink(os.path.join(path, name))
                self.deleted += 1
            files.sync(path)
        except FileNotFoundError:
            pass
        except OSError as error:
            raise files.failure(error, f"WAL cannot be deleted from {path}") from error

    def _without_directories(self) -> None:
        """Remove directories of WAL that are empty, but for the newest, which an archiver may just have made for what
        comes now. Raises HostFailed."""
        try:
            for name in inventory.directories(self.wal)[:-1]:
                path = os.path.join(self.wal, name)
                if not os.listdir(path):
                    os.rmdir(path)
            files.sync(self.wal)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise files.failure(error, f"{self.wal} cannot be cleared of empty directories") from error


def expire(
    configuration: Configuration, _layout: Layout, dry_run: bool, failed: str = "", now: datetime | None = None
) -> dict[str, Any]:
    """Expire backups and WAL in all generations of the repository; with ``dry_run`` only say what would. ``failed``
    as in `plan`; what has become of the newest attempt in the repository itself is known there.

    Returns ``removed`` (a list: backup, generation, name, kind, stored_bytes, completed_at, reason), ``wal_removed``
    (files), ``kept`` (backups), ``retained`` (a list: backup, generation, name, reasons), ``window_before`` and
    ``window_after`` (lists: generation, timeline, since, since_time, until, backups), ``floors`` (a list: generation,
    timeline, lsn), ``skipped`` (why nothing expires, a list), ``swept`` (names), ``notes`` and ``errors`` (of single
    generations).

    Raises PgOpsError if the repository cannot be read, or none of its generations.
    """
    retention = keeping.parse(options(configuration).retention)
    outcomes: list[Outcome] = []
    errors: list[PgOpsError] = []
    for name in generations.present(repository(configuration)):
        run = Expiry(configuration.repository, name, retention, now or datetime.now(timezone.utc), failed)
        try:
            outcomes.append(_imagined(run) if dry_run else run.apply())
        except PgOpsError as error:
            errors.append(error)
    if not outcomes:
        raise errors[0]
    return {**_result(outcomes), "errors": [str(error) for error in errors]}


def _imagined(run: Expiry) -> Outcome:
    """What an expiry would do."""
    planned = run.planned()
    swept = backups.listed(run.place).unfinished
    return Outcome(run.generation, planned, planned.removed, len(planned.wal), swept, planned.before)


def _result(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    plans = [(outcome.generation, outcome.plan) for outcome in outcomes]
    return {
        "removed": [
            {
                **_backup(outcome.generation, expired.kept),
                "stored_bytes": expired.kept.manifest.stored_bytes,
                "completed_at": written(expired.kept.manifest.completed_at),
                "reason": expired.reason,
            }
            for outcome in outcomes
            for expired in outcome.removed
        ],
        "wal_removed": sum(outcome.wal for outcome in outcomes),
        "kept": sum(len(planned.kept) for _name, planned in plans),
        "retained": [
            {**_backup(name, one.kept), "reasons": list(one.words)} for name, planned in plans for one in planned.kept
        ],
        "window_before": [line for outcome in outcomes for line in _windows(outcome.generation, outcome.before)],
        "window_after": [line for name, planned in plans for line in _windows(name, planned.after)],
        "floors": [
            {"generation": name, "timeline": timeline, "lsn": wal.lsn(byte)}
            for name, planned in plans
            for timeline, byte in sorted(planned.floors.items())
        ],
        "skipped": [f"{name}: {planned.skipped}" for name, planned in plans if planned.skipped],
        "swept": [name for outcome in outcomes for name in outcome.swept],
        "notes": [f"{name}: {note}" for name, planned in plans for note in planned.notes],
    }


def _backup(generation: str, kept: Kept) -> dict[str, Any]:
    return {"backup": kept.manifest.id, "generation": generation, "name": kept.name, "kind": kept.manifest.kind}


def _windows(generation: str, found: Iterable[Window]) -> list[dict[str, Any]]:
    return [
        {
            "generation": generation,
            "timeline": window.timeline,
            "since": wal.lsn(window.since),
            "since_time": written(window.since_time),
            "until": wal.lsn(window.until),
            "backups": len(window.backups),
        }
        for window in found
    ]
