# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups of all generations are verified again, and the WAL. Nothing is removed: what is found is noted in the
repository, and no further backup adds to a damaged one.

It takes the repository and the configuration only. The server says where its programs are, and the ops database which
checksums the WAL had; without them less is known, and that is told.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..errors import Busy, HostFailed, InvalidInput, PgOpsError
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..repository import backups, catalogue, chains, damage, generations, inventory, segments
from ..repository.backups import Kept, Listing
from ..repository.damage import Damage
from ..repository.segments import Stretch
from ..repository.stanza import LAYOUT
from ..server.session import connect
from . import contents, engines, records, scrub, source
from .clients import Clients
from .engine import Engine
from .options import Options, options, repository
from .pgbackrest import PgBackRest, wal_problems
from .scrub import Scrub

SCRATCH = "wal.verify"
MOST = 20
"""Problems of a backup that are told."""


@dataclass(frozen=True)
class Verification:
    """What verifies the backups of a generation of a repository; ``scratch`` is a directory that it may make."""

    repository: str
    generation: str
    engines: Sequence[Engine]
    programs: Clients
    scratch: str

    @property
    def place(self) -> str:
        """The directory of the backups."""
        return backups.folder(self.repository, self.generation)


@dataclass(frozen=True)
class Asked:
    """What is verified at ``now``: the backups of some ``names``, all for none; or only what is ``due``."""

    names: Sequence[str]
    due: bool
    now: datetime
    days: float

    def wants(self, kept: Kept) -> bool:
        """Whether a backup is verified. A damaged one is, since it may have been mended."""
        if self.names:
            return kept.name in self.names
        seen = kept.checked_at or kept.manifest.completed_at
        return not self.due or bool(kept.problems) or scrub.is_due(seen, self.now, self.days)


def verify(
    configuration: Configuration, layout: Layout, names: Sequence[str] = (), due: bool = False
) -> dict[str, Any]:
    """Verify all backups and the WAL again as the server's user, or the backups of some ``names``; or what is
    ``due``, so that all of it has been within the declared days.

    Returns ``verified`` (the number of backups that are as they should be), ``damaged`` (what is wrong with others,
    by their names), ``wal_verified`` (the number of segments that were read), ``wal_damaged`` (the reasons by their
    names), ``errors`` and ``warnings``: what cannot be found out now.

    Raises PgOpsError if the repository cannot be read, InvalidInput for a name that is not there.
    """
    declared, where = options(configuration), repository(configuration)
    warnings: list[str] = []
    beside, skipped = _server(configuration, declared, warnings)
    if skipped:
        return {"skipped": skipped, "errors": []}
    asked = Asked(names, due, datetime.now(timezone.utc), declared.verify_days)
    total: dict[str, Any] = {"verified": 0, "damaged": {}, "wal_verified": 0, "wal_damaged": {}, "errors": []}
    runs = []
    for name in generations.present(where):
        try:
            runs.append(_verification(configuration, layout, declared, beside, name))
        except PgOpsError as error:
            total["errors"].append(f"{name} cannot be verified: {error}")
    _check_names(runs, names, where)
    for run in runs:
        _add(total, _verified(run, asked))
        if not names:
            _add(total, _scrubbed(run, configuration, asked, bool(beside), warnings))
    return {**total, "warnings": warnings}


def _server(configuration: Configuration, declared: Options, warnings: list[str]) -> tuple[str, str]:
    """The directory of the server's programs, '' where it cannot be asked; and why this node verifies nothing."""
    try:
        with connect(endpoints.backed_up(configuration)) as session:
            skipped = source.elsewhere(declared.source, configuration.node, session.in_recovery)
            return ("", skipped) if skipped else (source.read(session).bin_directory, "")
    except PgOpsError as error:
        warnings.append(f"The server cannot be asked; WAL is not compared with the catalogue's checksums: {error}")
        return "", source.elsewhere(declared.source, configuration.node, in_recovery=False)


def _verification(
    configuration: Configuration, layout: Layout, declared: Options, beside: str, generation: str
) -> Verification:
    programs, every = engines.readers(configuration, declared, beside, generation)
    return Verification(repository(configuration), generation, every, programs, os.path.join(layout.keeping, SCRATCH))


def _check_names(runs: Sequence[Verification], names: Sequence[str], where: str) -> None:
    listings = [backups.listed(run.place) for run in runs] if names else []
    known = {name for found in listings for name in (*(kept.name for kept in found.backups), *found.damaged)}
    unknown = sorted(set(names) - known)
    if unknown:
        raise InvalidInput(f"There is no backup {unknown[0]} in {where}.")


def _add(total: dict[str, Any], more: Mapping[str, Any]) -> None:
    """Add the results of a part to those of all."""
    for key, value in more.items():
        total[key] = {**total[key], **value} if isinstance(value, dict) else total[key] + value


def _verified(run: Verification, asked: Asked) -> dict[str, Any]:
    """Verify the backups of a generation."""
    listing = backups.listed(run.place)
    # Those that others add to come first: damage of theirs is that of the others too.
    wanted = [kept for kept in listing.backups if asked.wants(kept)]
    damaged = {name: [why] for name, why in listing.damaged.items() if not asked.names or name in asked.names}
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


def _scrubbed(
    run: Verification, configuration: Configuration, asked: Asked, running: bool, warnings: list[str]
) -> dict[str, Any]:
    """Read the WAL of a generation again."""
    try:
        held = inventory.stored(run.repository, run.generation)
        names = scrub.names(held)
        if names and not records.readable(run.programs, int(run.generation.rpartition("-")[2])):
            warnings.append(f"There is no pg_waldump for the WAL of {run.generation}: its records are not read.")
        known = _checksums(configuration, run.generation, names, warnings) if running and names else {}
        count, theirs, unnamed = _stanza(run, everything=not asked.due)
        one = Scrub(run.repository, run.generation, run.programs, run.scratch, known, theirs)
        done = scrub.scrub(one, asked.days, asked.now, everything=not asked.due)
    except Busy:
        warnings.append(f"Another run is reading the WAL of {run.generation}.")
        return {}
    except PgOpsError as error:
        return {"errors": [f"the WAL of {run.generation} cannot be verified: {error}"]}
    errors = [f"WAL segment {name} of {run.generation} is damaged: {why}" for name, why in done["damaged"].items()]
    if unnamed:
        errors.append(f"{unnamed} WAL segments of {run.generation} are damaged: pgBackRest does not say which")
    return {"wal_verified": done["read"] + count, "wal_damaged": done["damaged"], "errors": errors}


def _stanza(run: Verification, everything: bool) -> tuple[int, dict[str, Damage] | None, int]:
    """How many segments of a stanza pgBackRest has read, the damaged ones, None where it was not asked, and how many
    damaged ones it does not name.

    It reads all of them with any backup, and each of these is due in its turn. Raises HostFailed.
    """
    engine = next((one for one in run.engines if isinstance(one, PgBackRest)), None)
    if engine is None or not (everything or engine.looked):
        return 0, None, 0
    found, stanza = engine.verified(), engine.stanza
    damaged = {name: Damage(why, damage.in_stanza(stanza, name)) for name, why in found.damaged.items()}
    return found.segments, damaged, found.unnamed


def _checksums(
    configuration: Configuration, generation: str, names: Sequence[str], warnings: list[str]
) -> dict[str, tuple[int, str]]:
    """What the catalogue knows of some segments."""
    try:
        with connect(endpoints.superuser(configuration, "verify")) as session:
            return catalogue.checksums(session, generation, names)
    except PgOpsError as error:
        warnings.append(f"The WAL of {generation} is not compared with the checksums of the catalogue: {error}")
        return {}


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
            found = _by_engine(run, path, kept)
        except InvalidInput as error:
            found = [error.message]
        found += [*_configuration(path, kept), *_parents(kept, listing, damaged), *_wal(run, kept)]
        found = found[:MOST]
        backups.note_checked(run.place, kept.name, found, datetime.now(timezone.utc))
    return found


def _by_engine(run: Verification, path: str, kept: Kept) -> list[str]:
    """Raises HostFailed where the engine of a backup is not here."""
    for engine in run.engines:
        if engine.suits(kept):
            return engine.problems(path, kept.manifest)
    raise HostFailed(f"It was taken by {kept.manifest.method}, which is not here.", "Install it, and run site.yml.")


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
    stanza = next((one.stanza for one in run.engines if isinstance(one, PgBackRest)), None)
    if made.layout == LAYOUT and stanza:
        yield from wal_problems(stanza, stretch, run.scratch)
        return
    absent, damaged = segments.absent(stretch), list(segments.damaged(stretch))
    yield from (f"WAL segment {name} is missing" for name in absent)
    yield from damaged
    if not absent and not damaged:
        broken = records.broken(stretch, run.programs, run.scratch)
        if broken:
            yield broken
