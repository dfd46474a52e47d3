# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups are verified again: all their files, and that the WAL is there which they need. Nothing is removed: what is
found is noted beside the backup, and no further backup adds to a damaged one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..errors import HostFailed, InvalidInput, PgOpsError
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..repository import archiver, backups, chains, segments
from ..repository.backups import Kept, Listing
from ..repository.segments import Stretch
from ..server.session import connect
from . import clients, contents, records, source
from .clients import Clients
from .engine import Engine
from .native import Native
from .options import options, repository

SCRATCH = "wal.verify"
MOST = 20
"""Problems of a backup that are told."""


@dataclass(frozen=True)
class Verification:
    """What verifies the backups of a generation of a repository; ``scratch`` is a directory that it may make."""

    repository: str
    generation: str
    engine: Engine
    programs: Clients
    scratch: str

    @property
    def place(self) -> str:
        """The directory of the backups."""
        return backups.folder(self.repository, self.generation)


def verify(configuration: Configuration, layout: Layout, names: Sequence[str] = ()) -> dict[str, Any]:
    """Verify backups again as the server's user, all of the server's generation or those of some names: the number of
    those that are as they should be, what is wrong with others by their names, and ``errors``.

    Raises PgOpsError if the repository or the server cannot be reached, InvalidInput for a name that is not there.
    """
    declared, where = options(configuration), repository(configuration)
    with connect(endpoints.backed_up(configuration)) as session:
        skipped = source.elsewhere(declared.source, configuration.node, session.in_recovery)
        if skipped:
            return {"skipped": skipped, "errors": []}
        found = source.read(session)
    try:
        archiver.check_identity(where, found.generation)
    except archiver.Failure as error:
        raise HostFailed(f"{error}.") from error
    programs = clients.found(declared.bin_directory, found.bin_directory, found.major)
    engine = Native(declared, programs, endpoints.backup(configuration))
    scratch = os.path.join(layout.keeping, SCRATCH)
    return _verified(Verification(where, found.generation, engine, programs, scratch), names)


def _verified(run: Verification, names: Sequence[str]) -> dict[str, Any]:
    listing = backups.listed(run.place)
    known = {kept.name for kept in listing.backups} | set(listing.damaged)
    unknown = sorted(set(names) - known)
    if unknown:
        raise InvalidInput(f"There is no backup {unknown[0]} in {run.place}.")
    # Those that others add to come first: damage of theirs is that of the others too.
    wanted = [kept for kept in listing.backups if not names or kept.name in names]
    damaged = {name: [why] for name, why in listing.damaged.items() if not names or name in names}
    errors: list[str] = []
    verified = 0
    for kept in wanted:
        try:
            problems = _problems(run, kept, listing, {*damaged, *_noted(listing, wanted)})
        except PgOpsError as error:
            if os.path.isdir(os.path.join(run.place, kept.name)):
                errors.append(f"{kept.name} cannot be verified: {error}")
            continue
        if problems:
            damaged[kept.name] = problems
        verified += not problems
    errors += [f"backup {name} is damaged: {'; '.join(found)}" for name, found in sorted(damaged.items())]
    return {"verified": verified, "damaged": damaged, "errors": errors}


def _noted(listing: Listing, wanted: Sequence[Kept]) -> set[str]:
    """The names of backups that are not verified now and were found damaged before."""
    return {kept.name for kept in listing.backups if kept.problems and kept not in wanted}


def _problems(run: Verification, kept: Kept, listing: Listing, damaged: Set[str]) -> list[str]:
    """What is wrong with a backup, which is noted beside it; ``damaged`` are others by their names.

    Raises PgOpsError if it cannot be found out.
    """
    with backups.reading(run.place, [kept.name]):
        path = os.path.join(run.place, kept.name)
        try:
            found = run.engine.problems(path, kept.manifest)
        except InvalidInput as error:
            found = [error.message]
        found += [*_configuration(path, kept), *_parents(kept, listing, damaged), *_wal(run, kept)]
        found = found[:MOST]
        backups.note_checked(run.place, kept.name, found, datetime.now(timezone.utc))
    return found


def _configuration(path: str, kept: Kept) -> Iterator[str]:
    """What is wrong with the copies of configuration files."""
    for one in kept.manifest.environment.get("configuration", ()):
        copy = os.path.join(path, one["file"])
        if not os.path.isfile(copy):
            yield f"{one['file']} is missing"
        elif contents.digest(copy) != one["sha256"]:
            yield f"{one['file']} has another checksum"


def _parents(kept: Kept, listing: Listing, damaged: Set[str]) -> Iterator[str]:
    line = chains.chain(kept, listing.by_id())
    if line is None:
        yield "a backup that it adds to is not in the repository, or its manifest is damaged"
        return
    yield from (f"it adds to {one.name}, which is damaged" for one in line[:-1] if one.name in damaged)


def _wal(run: Verification, kept: Kept) -> Iterator[str]:
    """What is wrong with the WAL that a backup needs."""
    made = kept.manifest
    where = (run.repository, run.generation, made.timeline)
    stretch = Stretch(*where, made.start_lsn, made.stop_lsn, made.segment_bytes)
    absent, damaged = segments.absent(stretch), list(segments.damaged(stretch))
    yield from (f"WAL segment {name} is missing" for name in absent)
    yield from damaged
    if not absent and not damaged:
        broken = records.broken(stretch, run.programs, run.scratch)
        if broken:
            yield broken
