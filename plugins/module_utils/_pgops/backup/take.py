# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A backup is taken: checked before anything is copied, verified, with all its WAL in the repository, on disk, and
only then published. Whatever fails or is killed before leaves nothing that counts as a backup."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..errors import Conflict, HostFailed, InvalidInput, PgOpsError
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..repository import backups, chains, segments
from ..repository.attempts import Attempt
from ..repository.backups import Kept, Listing
from ..repository.manifests import Manifest
from ..repository.segments import Stretch
from ..server.session import Session, connect
from . import choice, contents, engines, environment, hooks, record, records, source
from .adopting import adopt
from .choice import Choice, Summaries
from .clients import Clients
from .engine import Copied, Engine, Order
from .forecast import Forecast, Reserve, duration, forecast, wal_rate
from .options import Options, options, repository
from .pgbackrest import PgBackRest
from .source import Backlog, Source

PATIENCE = 300.0
"""Seconds to wait for another run that takes or expires backups."""
WAL_PATIENCE = 900.0
"""Seconds without a newly archived segment after which the WAL of a backup is given up."""
LOOKING = 0.5
"""Seconds between two looks for WAL in the repository."""
SUMMARIZED = "SELECT s.summarized_tli AS tli, s.summarized_lsn::text AS lsn FROM pg_get_wal_summarizer_state() AS s"
SUMMARIES = "SELECT s.tli, s.start_lsn::text, s.end_lsn::text FROM pg_available_wal_summaries() AS s"
RECOVERING = "SELECT pg_is_in_recovery()"

NO_RESERVE = Reserve(0)

Tell = Callable[[Mapping[str, Any]], None]
"""Takes what is to be known before the copying begins."""


@dataclass(frozen=True)
class Run:
    """One backup to be taken: where, of what, and by what. ``lock`` is the descriptor that keeps other runs out, and
    ``reserve`` the room that is left for WAL."""

    configuration: Configuration
    declared: Options
    session: Session
    source: Source
    programs: Clients | None
    engine: Engine
    place: str
    lock: int = -1
    reserve: Reserve = NO_RESERVE

    @property
    def repository(self) -> str:
        """The cluster's repository."""
        return self.configuration.repository


def take(
    configuration: Configuration,
    layout: Layout,
    kind: str = choice.AUTO,
    requested: str = "",
    tell: Tell = lambda _known: None,
) -> dict[str, Any]:
    """Take a backup of the instance as the server's user, of a kind of manifests.KINDS or as it is due (choice.AUTO);
    what was taken. ``requested`` is the UUID that it gets, '' for a new one.

    Raises PgOpsError; then nothing is left of it, or what the next run removes.
    """
    del layout  # of other engines
    with _opened(configuration) as run:
        if isinstance(run, str):
            return {"skipped": run, "errors": []}
        place = backups.prepared(run.repository, run.source.generation)
        with backups.alone(place, PATIENCE) as lock:
            swept = backups.sweep(place)
            if isinstance(run.engine, PgBackRest):
                adopt(run.repository, run.engine.stanza)
            done = _take(dataclasses.replace(run, lock=lock), kind, _identifier(requested), tell)
        return {**done, "swept": list(swept)}


def foreseen(configuration: Configuration, kind: str = choice.AUTO) -> dict[str, Any]:
    """What `take` would do: what it tells before it copies. Nothing is written.

    Raises PgOpsError for what would keep a backup from being taken.
    """
    with _opened(configuration) as run:
        if isinstance(run, str):
            return {"skipped": run, "errors": []}
        listing = _own(run)
        chosen = _choose(run, kind, listing, datetime.now(timezone.utc))
        source.check_archiving(run.session, run.configuration, run.source, run.engine.archives)
        return {**_before(run, chosen, listing)[0], "backup": None, "name": None, "errors": []}


@contextlib.contextmanager
def _opened(configuration: Configuration) -> Iterator[Run | str]:
    """A backup that can be taken once its lock is held; or why this node's is not taken.

    Raises PgOpsError for what forbids it.
    """
    declared, where = options(configuration), repository(configuration)
    for hook in (declared.hook_before, declared.hook_after):
        hooks.check(hook)
    with connect(endpoints.backed_up(configuration)) as session:
        skipped = source.elsewhere(declared.source, configuration.node, session.in_recovery)
        if skipped:
            yield skipped
            return
        found = source.read(session)
        programs, engine = engines.engine(configuration, declared, found)
        place = backups.folder(where, found.generation)
        yield Run(configuration, declared, session, found, programs, engine, place)


def _own(run: Run) -> Listing:
    """The backups of the engine: to others it adds none, and they tell nothing of its times."""
    found = backups.listed(run.place)
    return dataclasses.replace(found, backups=tuple(kept for kept in found.backups if run.engine.suits(kept)))


def _identifier(requested: str) -> str:
    """The UUID of a new backup. Raises InvalidInput."""
    try:
        return str(uuid.UUID(requested)) if requested else str(uuid.uuid4())
    except ValueError as error:
        raise InvalidInput(f"{requested!r} is no UUID.") from error


def _take(run: Run, kind: str, identifier: str, tell: Tell) -> dict[str, Any]:
    listing = _own(run)
    if identifier in listing.by_id():
        raise Conflict(f"There is a backup {identifier} already.", "Request another one.")
    now = datetime.now(timezone.utc)
    chosen = _choose(run, kind, listing, now)
    name = f"{now:%Y%m%dT%H%M%SZ}-{chosen.kind}-{identifier[:8]}"
    attempt = Attempt(identifier, chosen.kind, run.configuration.node, name, chosen.why, now)
    with _told(run, attempt) as warnings:
        # Whatever keeps it from being taken from here on, nothing expires until one is.
        backups.attempt(run.place, name)
        source.check_archiving(run.session, run.configuration, run.source, run.engine.archives)
        known, reserve = _before(run, chosen, listing)
        run = dataclasses.replace(run, reserve=reserve)
        tell(known)
        hooks.run(run.declared.hook_before, "before", run.configuration.cluster, chosen.kind)
        result, path = "failed", ""
        errors: list[str] = []
        try:
            with _chain_kept(run, chosen, listing), backups.begun(run.place, name) as path:
                made = _made(run, chosen, identifier, now, path)
                backups.publish(path, made, settled=not run.declared.hook_after)
            result = "completed"
        finally:
            errors += hooks.after(run.declared.hook_after, run.configuration.cluster, chosen.kind, result, path)
        if not errors:
            backups.settle(run.place)
    warnings += record.finished(run.configuration, run.source.generation, Kept(name, made))
    seconds = (made.completed_at - made.started_at).total_seconds()
    return {
        **known,
        "backup": made.id,
        "name": name,
        "stored_bytes": made.stored_bytes,
        "data_bytes": made.data_bytes,
        "seconds": round(seconds, 1),
        "warnings": [*made.environment.get("warnings", []), *warnings],
        "errors": errors,
    }


def _choose(run: Run, kind: str, listing: Listing, now: datetime) -> Choice:
    """Which backup is taken. Raises PgOpsError if the engine cannot."""
    there = choice.There(listing, backups.failed(run.place), _summaries(run))
    chosen = choice.chosen(kind, run.declared, run.source, there, now)
    run.engine.check(run.source, chosen.kind)
    return chosen


@contextlib.contextmanager
def _told(run: Run, attempt: Attempt) -> Iterator[list[str]]:
    """Have the ops database know that a backup is taken, and if it fails; the warnings where that is not possible."""
    warnings = record.started(run.configuration, run.source.generation, attempt)
    try:
        yield warnings
    except (PgOpsError, OSError) as error:
        record.failed(run.configuration, run.source.generation, attempt, str(error))
        raise


def _summaries(run: Run) -> Summaries:
    """The server's summaries of WAL, where there are any."""
    if run.source.summarize_wal != "on":
        return choice.NO_SUMMARIES
    # Before the summaries, so that those cannot be older than what it says.
    state = run.session.rows(SUMMARIZED)[0]
    reached = contents.byte(state["lsn"]) if state["lsn"] else 0
    return Summaries(run.session.rows(SUMMARIES), int(state["tli"] or 0), reached)


def _before(run: Run, chosen: Choice, listing: Listing) -> tuple[dict[str, Any], Reserve]:
    """What is to be known before the copying begins: how large it will be and how long it will take, and how much WAL
    waits before that of the backup; and the room that is left for WAL.

    Raises HostFailed if there is too little room.
    """
    manifests = [kept.manifest for kept in listing.backups]
    compression, rate = run.declared.compression, run.declared.max_rate_mb
    expected: Forecast = forecast(chosen.kind, compression, run.source.bytes, rate, manifests)
    reserve = _reserve(run, expected, manifests)
    for_wal = reserve.at(time.monotonic())
    if run.engine.room:
        source.check_room(run.engine.room, expected.stored_bytes, for_wal)
    waiting = source.backlog(run.session) if not run.source.in_recovery else Backlog(0, 0.0)
    known = {
        "kind": chosen.kind,
        "parent": chosen.parent.manifest.id if chosen.parent else "",
        "why": chosen.why,
        "expected_bytes": expected.stored_bytes,
        "expected_seconds": round(expected.seconds, 1) if expected.seconds is not None else None,
        "wal_waiting": waiting.segments,
        "wal_waiting_seconds": round(waiting.seconds, 1) if waiting.seconds is not None else None,
        "wal_reserve_bytes": for_wal,
    }
    return known, reserve


def _reserve(run: Run, expected: Forecast, before: Sequence[Manifest]) -> Reserve:
    """The room for the WAL that will be archived while the backup is taken."""
    floor = source.RESERVE * run.source.segment_bytes
    if not run.engine.room:
        return Reserve(floor)
    written = int(run.session.value(source.WRITTEN) or 0)
    rate = wal_rate(run.source.timeline, written, datetime.now(timezone.utc), before)
    share = run.engine.wal_share(run.source, run.repository)
    return Reserve(floor, rate * share, time.monotonic() + duration(expected, run.source.bytes))


@contextlib.contextmanager
def _chain_kept(run: Run, chosen: Choice, listing: Listing) -> Iterator[None]:
    """Keep the backups that the new one adds to."""
    line = chains.chain(chosen.parent, listing.by_id()) if chosen.parent else ()
    with backups.reading(run.place, [kept.name for kept in line or ()]):
        yield


def _made(run: Run, chosen: Choice, identifier: str, began: datetime, path: str) -> Manifest:
    """The manifest of a backup that has been copied into a directory, with all its WAL in the repository."""
    around = environment.read(run.session, run.configuration, run.source, path)
    parent = os.path.join(run.place, chosen.parent.name) if chosen.parent else ""
    known: dict[str, Any] = {
        "id": identifier,
        "cluster": run.configuration.cluster,
        "node": run.configuration.node,
        "server_version": run.source.version,
        "parent": chosen.parent.manifest.id if chosen.parent else "",
        "environment": around.facts,
    }
    spaces = [dataclasses.asdict(one) for one in run.source.tablespaces]
    noted = {**known, "compression": run.declared.compression, "tablespaces": spaces}
    copied = run.engine.copy(run.source, Order(chosen.kind, path, parent, run.lock, _look(run), noted))
    _check_timeline(chosen, copied)
    if run.programs is not None:  # pgBackRest waits for its WAL itself
        _wait_for_wal(run, run.programs, _stretch(run, copied), path)
    return Manifest(
        kind=chosen.kind,
        system_identifier=run.source.system_identifier,
        segment_bytes=run.source.segment_bytes,
        started_at=began,
        completed_at=datetime.now(timezone.utc),
        from_standby=run.source.in_recovery,
        tablespaces=run.source.tablespaces,
        **known,
        **dataclasses.asdict(copied),
    )


def _check_timeline(chosen: Choice, copied: Copied) -> None:
    """Raises Conflict where the server's timeline is no longer that of the backup, or of the one that it adds to."""
    parent = chosen.parent.manifest.timeline if chosen.parent else copied.timeline
    if copied.timeline != parent:
        raise Conflict(
            f"The server changed its timeline from {parent} to {copied.timeline}.", "Take a full backup instead."
        )


def _look(run: Run) -> Callable[[], None]:
    """What is looked at each second while a server is copied: room in the repository, the source, and its archiver at
    the end, when the server waits for it without limit."""
    progress = _Progress()

    def look() -> None:
        reserve = run.reserve.at(time.monotonic())
        if run.engine.room and source.room(run.engine.room) < reserve:
            raise HostFailed(
                f"Less than {reserve // 1_000_000} MB are left on the file system of {run.engine.room}: the backup "
                "was given up, so that archiving can go on.",
                "Make room, or compress backups (pgops_backup_compression).",
            )
        if run.source.in_recovery:
            _check_standby(run)
        elif any(row["phase"] == source.WAITING_FOR_WAL for row in run.session.rows(source.PHASE)):
            archiver = run.session.rows(source.ARCHIVER)[0]
            if progress.stalled(archiver["archived_count"], WAL_PATIENCE):
                raise source.failing(archiver)

    return look


def _check_standby(run: Run) -> None:
    if not run.session.value(RECOVERING):
        raise Conflict(
            f"{run.configuration.node} was promoted while it was backed up as a standby: the backup is of two "
            "timelines, and was discarded.",
            "Take it again.",
        )


class _Progress:
    """Whether something goes on."""

    def __init__(self) -> None:
        self.seen: Any = None
        self.since = time.monotonic()

    def stalled(self, now: Any, patience: float) -> bool:
        """Whether what is seen is the same for so many seconds."""
        if now != self.seen:
            self.seen, self.since = now, time.monotonic()
        return time.monotonic() > self.since + patience


def _stretch(run: Run, copied: Copied) -> Stretch:
    where = (run.repository, run.source.generation, copied.timeline)
    return Stretch(*where, copied.start_lsn, copied.stop_lsn, run.source.segment_bytes)


def _wait_for_wal(run: Run, programs: Clients, stretch: Stretch, path: str) -> None:
    """Wait until all WAL of a backup is in the repository, as long as more of it arrives.

    Raises HostFailed if it does not come, or is damaged.
    """
    progress, look = _Progress(), _look(run)
    # A standby cannot have its primary end a segment: that comes with archive_timeout at the latest.
    patience = WAL_PATIENCE + (run.source.archive_timeout if run.source.in_recovery else 0)
    while missing := segments.absent(stretch):
        # Others are archived before them.
        newest = segments.newest(run.repository, run.source.generation, stretch.timeline, stretch.segment_bytes)
        look()
        # What comes behind them does not bring them.
        if progress.stalled((len(missing), min(newest or 0, stretch.numbers[-1])), patience):
            raise HostFailed(
                f"{len(missing)} segments of the backup's WAL did not arrive in {run.repository} within "
                f"{patience:g} seconds, the first of them {missing[0]}.",
                "The log of the server that archives (the primary) shows the error of the archiver.",
            )
        time.sleep(LOOKING)
    damaged = next(segments.damaged(stretch), "") or records.broken(stretch, programs, os.path.join(path, "scratch"))
    if damaged:
        raise HostFailed(
            f"WAL of the backup is damaged: {damaged}.", "Find out what else writes into the repository."
        )
