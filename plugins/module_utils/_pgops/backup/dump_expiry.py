# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What expires of the dumps in a repository, decided from its directory and the names of the databases that there
are."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta, timezone
from typing import Any

from ..errors import Busy, HostFailed, PgOpsError
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..repository import archiver, backups, dumps, generations, manifests, removed
from ..repository.dumps import Dumped
from ..server.session import connect
from . import databases, dump_options, dump_retention, record_dumps, source
from .dump_options import Dumps
from .dump_retention import DumpPlan
from .options import options, repository


def expire(configuration: Configuration, dry_run: bool, now: datetime | None = None) -> dict[str, Any]:
    """Expire dumps in all generations of the repository, as the server's user; with ``dry_run`` only say what would.

    Returns ``dumps_removed`` and ``dumps_retained`` (lists, as dumps.told has them, the latter with ``reasons``),
    ``warnings`` (also why nothing of a database expires) and ``errors``.

    Raises PgOpsError if the repository cannot be read, or the server not be asked for its databases.
    """
    where, declared = repository(configuration), dump_options.parse(options(configuration).dumps)
    names = generations.present(where)
    result: dict[str, Any] = {"dumps_removed": [], "dumps_retained": [], "warnings": [], "errors": []}
    if not any(os.path.isdir(dumps.folder(where, name)) for name in names):
        return result
    own, there = _there(configuration, declared)
    for name in names:
        run = Expiry(where, name, declared, now or datetime.now(timezone.utc), there if name == own else None)
        try:
            run.plan(result) if dry_run else run.apply(result)
        except Busy as error:  # who takes dumps expires others then
            result["warnings"].append(str(error))
        except PgOpsError as error:
            result["errors"].append(f"{name}: {error}")
    if not dry_run:
        gone = [one["id"] for one in result["dumps_removed"]]
        until = {one["id"]: _until(one, declared) for one in result["dumps_retained"]}
        result["warnings"] += record_dumps.expired(configuration, gone, until)
    return result


def _until(told: Mapping[str, Any], declared: Dumps) -> datetime:
    return manifests.read_time(told["completed_at"]) + timedelta(days=declared.days)


def _there(configuration: Configuration, declared: Dumps) -> tuple[str, frozenset[str]]:
    """The server's generation, and the keys of the databases that it has, or that are declared."""
    with connect(endpoints.backed_up(configuration)) as session:
        generation = source.read(session).generation
        present = {one.key for one in databases.present(session)}
    return generation, frozenset(present | {dumps.key(os.fsencode(name)) for name in declared.named})


class Expiry:
    """An expiry in a generation. ``there`` are the keys of databases that exist; of a generation of the past, None:
    all of its count as such."""

    def __init__(
        self, where: str, generation: str, declared: Dumps, now: datetime, there: Collection[str] | None
    ) -> None:
        self.where, self.generation, self.declared, self.now, self.there = where, generation, declared, now, there
        self.place = dumps.folder(where, generation)

    def _planned(self) -> Iterator[tuple[Dumped, DumpPlan]]:
        for dumped in dumps.databases(self.where, self.generation):
            names = [one.name for one in dumped.dumps]
            reading = {name for name in names if backups.being_read(dumped.place, name)}
            there = self.there is None or dumped.key in self.there
            yield dumped, dump_retention.plan(dumped, self.declared, self.now, there, reading)

    def plan(self, result: dict[str, Any]) -> None:
        """Add what would expire. Raises HostFailed."""
        for dumped, planned in self._planned():
            result["dumps_removed"] += [self._told(one) for one in planned.removed]
            self._note(result, dumped, planned)

    def apply(self, result: dict[str, Any]) -> None:
        """Expire, and add what has. Raises Busy if dumps are being taken or expired, and HostFailed."""
        if not os.path.isdir(self.place):
            return
        try:
            archiver.check_identity(self.where, self.generation)
        except archiver.Failure as error:
            raise HostFailed(f"{error}.") from error
        with dumps.alone(self.place):
            for dumped, planned in self._planned():
                for name in dumped.unfinished:
                    backups.discard(os.path.join(dumped.place, name))
                for one in planned.removed:
                    removed.note(dumped.place, [one.dump.id])
                    # False where somebody has just begun to read it: the next run removes it.
                    if backups.remove(dumped.place, one.name):
                        result["dumps_removed"].append(self._told(one))
                self._note(result, dumped, planned)

    def _told(self, one: dumps.Stored) -> dict[str, Any]:
        return {**dumps.told(self.where, self.generation, one), "generation": self.generation}

    def _note(self, result: dict[str, Any], dumped: Dumped, planned: DumpPlan) -> None:
        result["dumps_retained"] += [{**self._told(one), "reasons": list(words)} for one, words in planned.kept]
        name = dumps.shown(dumped.key)
        if planned.skipped:
            result["warnings"].append(f"No dump of database {name} expires: {planned.skipped}")
        result["warnings"] += [f"dump {one} of database {name}: {why}" for one, why in dumped.damaged.items()]
