# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a generation of a repository holds: backups, WAL and history files, read from its directory alone. All as the
server's user.

Names and the contents of small files decide; times, owners and inodes do not, so that a copy is as good. The files
of the WAL are neither opened nor looked at one by one: with hundreds of thousands of them that would take minutes on
a file server. Those that a verification found damaged are left out (`damage`).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from ..errors import HostFailed
from ..host import files
from . import archiver, backups, damage, wal
from . import stanza as stanzas
from .archiver import HEXADECIMAL
from .backups import Kept, Listing
from .stanza import Stanza

LARGEST_HISTORY = 1 << 20
"""Bytes of the longest history file that is read: some 20,000 promotions."""
ENDINGS = frozenset(archiver.ENDINGS.values())
SMALLEST, LARGEST = 1 << 20, 1 << 30
"""Bytes of a segment (initdb --wal-segsize)."""


@dataclass(frozen=True)
class Inventory:
    """What is in a generation. ``segment_bytes`` is the size of its segments, ``runs`` are those that are there, in
    order; ``histories`` the timelines that each one's history file names. ``others`` are the names of partial
    segments and of backup history files, ``damaged`` the timelines whose history files cannot be read, with the
    reason. ``rotten`` are segments that are there and not among the runs, since they are known to be damaged: their
    names, with the reasons. ``stanza_runs`` are those of the segments that only a stanza of pgBackRest
    has, and ``stanza_alone`` whether that has no other generation."""

    generation: str
    segment_bytes: int
    runs: tuple[wal.Run, ...]
    histories: Mapping[int, tuple[wal.Ancestor, ...]]
    listing: Listing
    others: tuple[str, ...] = ()
    damaged: Mapping[int, str] = field(default_factory=dict)
    rotten: Mapping[str, str] = field(default_factory=dict)
    stanza_runs: tuple[wal.Run, ...] = ()
    stanza_alone: bool = True

    def newest(self, timeline: int) -> int | None:
        """The number of the last segment of a timeline that is stored, in whichever state; None if none is."""
        damaged = (wal.place(name, self.segment_bytes) for name in self.rotten)
        found = [run.last for run in self.runs if run.timeline == timeline]
        found += [one.segment for one in damaged if one and one.timeline == timeline and one.segment is not None]
        return max(found, default=None)

    def lack(self, segment: str) -> str:
        """What is the matter with a segment that cannot be replayed, in a word."""
        return "damaged" if segment in self.rotten else "missing"

    def without(self, names: Iterable[str]) -> Inventory:
        """The same without some segments, such as those that are known to be damaged."""
        bad = {
            (place.timeline, place.segment)
            for name in names
            for place in [wal.place(name, self.segment_bytes)]
            if place is not None and place.segment is not None
        }
        if not bad:
            return self
        left = ((run.timeline, number) for run in self.runs for number in range(run.first, run.last + 1))
        return replace(self, runs=wal.runs(segment for segment in left if segment not in bad))


def read(repository: str, generation: str) -> Inventory:
    """What is in a generation of a repository, without the segments that are known to be damaged.

    Raises HostFailed, also where this is no generation: is its file system mounted?
    """
    found = stored(repository, generation)
    rotten = damage.still(repository, generation, damage.read(backups.folder(repository, generation)))
    return replace(found.without(rotten), rotten=rotten)


def stored(repository: str, generation: str) -> Inventory:
    """The same with all segments that are stored, in whichever state.

    Backups come first: what they need is there before they are. A backup of another cluster, and the copy of one that
    is there, are among the damaged of the listing.

    Raises HostFailed, also where this is no generation: is its file system mounted?
    """
    size = segment_bytes(repository, generation)
    listing = own(backups.listed(backups.folder(repository, generation)), generation, size)
    stanza = stanzas.of(repository, generation)
    listing = _there(listing, stanza) if stanza else listing
    folder = os.path.join(repository, generation, "wal")
    segments: list[tuple[int, int]] = []
    others: list[str] = []
    try:
        for directory in directories(folder):
            found, rest = _segments(folder, directory, size)
            segments += found
            others += rest
        histories, damaged = _histories(folder)
    except OSError as error:
        raise files.failure(error, f"{folder} cannot be read") from error
    if stanza is None:
        return Inventory(generation, size, wal.runs(segments), histories, listing, tuple(sorted(others)), damaged)
    names = stanza.wal()
    among_stanza = stanzas.segments(names, size)
    others += [name for name in names if archiver.kind(name) in ("partial", "backup") and name not in others]
    _add_histories(stanza, histories, damaged)
    return Inventory(
        generation,
        size,
        wal.runs({*segments, *among_stanza}),
        histories,
        listing,
        tuple(sorted(others)),
        damaged,
        stanza_runs=wal.runs({*among_stanza} - {*segments}),
        stanza_alone=stanza.alone,
    )


def among(
    repository: str, generation: str, runs: Iterable[wal.Run], rotten: Mapping[str, str] | None = None
) -> Inventory:
    """What `read` finds where it is known which segments are there, and which are damaged: without reading the names
    of all of them.

    Raises HostFailed.
    """
    size = segment_bytes(repository, generation)
    listing = own(backups.listed(backups.folder(repository, generation)), generation, size)
    folder = os.path.join(repository, generation, "wal")
    try:
        histories, damaged = _histories(folder)
    except OSError as error:
        raise files.failure(error, f"{folder} cannot be read") from error
    stanza = stanzas.of(repository, generation)
    if stanza:
        listing = _there(listing, stanza)
        _add_histories(stanza, histories, damaged)
    return Inventory(generation, size, tuple(sorted(runs)), histories, listing, (), damaged, rotten or {})


def _there(listing: Listing, stanza: Stanza) -> Listing:
    """A listing in which the backups that a stanza no longer has are damaged."""
    there = {stanzas.identifier(one, stanza.generation) for one in stanza.backups()}
    gone = (f"the stanza {stanza.name} no longer has it",)

    def looked_at(kept: Kept) -> Kept:
        lost = kept.manifest.layout == stanzas.LAYOUT and kept.manifest.id not in there
        return replace(kept, problems=gone) if lost else kept

    return replace(listing, backups=tuple(map(looked_at, listing.backups)))


def _add_histories(stanza: Stanza, histories: dict[int, tuple[wal.Ancestor, ...]], damaged: dict[int, str]) -> None:
    """Add what the history files of a stanza name."""
    for name in stanza.wal():
        timeline = int(name[:8], 16)
        if not name.endswith(".history") or timeline in histories:
            continue
        try:
            histories[timeline] = history(stanza.history(name), timeline)
            damaged.pop(timeline, None)
        except ValueError as error:
            damaged[timeline] = f"{name} cannot be read: {error}."


def _segments(folder: str, directory: str, segment_bytes: int) -> tuple[list[tuple[int, int]], set[str]]:
    """The segments in a directory, by timeline and number, and the names of the other WAL files there. Of 100,000s of
    segments each is looked at only once: only what is none goes the usual way."""
    timeline, high = int(directory[:8], 16), int(directory[8:], 16)
    each = wal.BYTES // segment_bytes
    found: list[tuple[int, int]] = []
    rest: list[str] = []
    for stored in _names(os.path.join(folder, directory)):
        low = stored[16:24]
        if stored[:16] == directory and stored[24:] in ENDINGS and len(low) == 8 and HEXADECIMAL.issuperset(low):
            number = int(low, 16)
            # There is none of a higher number: who wrote that had segments of another size.
            if number < each:
                found.append((timeline, high * each + number))
        else:
            rest.append(stored)
    return found, _wal_names(rest, directory)


def directories(folder: str) -> list[str]:
    """The names of the directories in a generation's WAL, in order: by timeline, then by their place in it.

    Raises OSError.
    """
    return sorted(name for name in _names(folder) if len(name) == 16 and HEXADECIMAL.issuperset(name))


def wal_names(folder: str, directory: str) -> set[str]:
    """The names, without the endings of their compression, of the WAL files in a directory of a generation's WAL;
    '' is the top one, with history files. What does not belong there is left out.

    Raises OSError.
    """
    return _wal_names(_names(os.path.join(folder, directory)), directory)


def _wal_names(stored: Iterable[str], directory: str) -> set[str]:
    found = (wal.parted(name)[0] for name in stored)
    return {
        name
        for name in found
        if archiver.kind(name) and directory == ("" if name.endswith(".history") else name[:16])
    }


def _names(folder: str) -> list[str]:
    """What is in a directory; nothing if it does not exist: an expiry has just removed it."""
    try:
        return os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        return []


def segment_bytes(repository: str, generation: str) -> int:
    """The size of a generation's segments. Raises HostFailed."""
    path = os.path.join(repository, generation, archiver.IDENTITY)
    try:
        archiver.check_identity(repository, generation)
        size = json.loads(files.contents(path))["wal_segment_size"]
    except archiver.Failure as error:
        raise HostFailed(f"{error}.") from error
    except OSError as error:
        raise files.failure(error, f"{path} cannot be read") from error
    except (ValueError, KeyError, TypeError) as error:
        raise HostFailed(f"{path} is damaged: {error!r}.", RESTORE) from error
    if not isinstance(size, int) or not SMALLEST <= size <= LARGEST or size & (size - 1):
        raise HostFailed(f"{path} is damaged: wal_segment_size is {size!r}.", RESTORE)
    return size


RESTORE = "Restore the file from a copy of the repository."


def own(listing: Listing, generation: str, size: int) -> Listing:
    """A listing of a generation, with what belongs to another cluster, or is there twice, among the damaged."""
    known: dict[str, str] = {}
    own: list[Kept] = []
    damaged = dict(listing.damaged)
    for kept in sorted(listing.backups, key=lambda kept: kept.name):
        manifest = kept.manifest
        if (manifest.system_identifier, manifest.segment_bytes) != (generation.partition("-")[0], size):
            damaged[kept.name] = (
                f"It is of the system identifier {manifest.system_identifier} with segments of "
                f"{manifest.segment_bytes} bytes, but this is generation {generation}. Move it away."
            )
        elif manifest.id in known:
            damaged[kept.name] = f"It is the same backup as {known[manifest.id]}. Move one of them away."
        else:
            known[manifest.id] = kept.name
            own.append(kept)
    chosen = {kept.name for kept in own}
    return replace(listing, backups=tuple(kept for kept in listing.backups if kept.name in chosen), damaged=damaged)


def _histories(folder: str) -> tuple[dict[int, tuple[wal.Ancestor, ...]], dict[int, str]]:
    """The ancestors that history files name, by the files' timelines; and why others cannot be read."""
    found: dict[int, tuple[wal.Ancestor, ...]] = {}
    damaged: dict[int, str] = {}
    for name in sorted(wal_names(folder, "")):
        timeline = int(name[:8], 16)
        try:
            found[timeline] = history(_content(os.path.join(folder, name)), timeline)
        except (ValueError, OSError, archiver.Failure) as error:
            damaged[timeline] = f"{name} cannot be read: {error}."
    return found, damaged


def _content(path: str) -> str:
    """A stored history file, unpacked. Raises OSError, archiver.Failure and ValueError."""
    present = archiver.stored(path)
    if present is None:
        raise FileNotFoundError(path)
    files.contents(present[0], LARGEST_HISTORY)  # a pipe in its place would be waited for
    return b"".join(_bounded(archiver.unpacked(*present))).decode("utf-8", "replace")


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    total = 0
    for chunk in chunks:
        total += len(chunk)
        if total > LARGEST_HISTORY:
            raise ValueError(f"it has more than {LARGEST_HISTORY} bytes")
        yield chunk


def history(text: str, timeline: int) -> tuple[wal.Ancestor, ...]:
    """The timelines that the history file of a timeline names, the oldest first, by the rules of PostgreSQL
    (src/backend/access/transam/timeline.c).

    Raises ValueError if it cannot be all of the file, or that of this timeline.
    """
    # PostgreSQL ends each line: what does not end so was cut off, perhaps within a number.
    if not text.endswith("\n"):
        raise ValueError("its end is missing")
    lines = [line for line in map(str.strip, text.split("\n")) if line and not line.startswith("#")]
    try:
        found = wal.ancestry(text)
    except ValueError:
        found = ()
    if len(found) != len(lines) or not found:
        raise ValueError("a line is no timeline with the place of its end")
    numbers = [ancestor.timeline for ancestor in found] + [timeline]
    if any(one >= other for one, other in zip(numbers, numbers[1:])):
        raise ValueError("its timelines are not in order")
    if any(one.end > other.end for one, other in zip(found, found[1:])):
        raise ValueError("a timeline ends before the one that it came from")
    return found
