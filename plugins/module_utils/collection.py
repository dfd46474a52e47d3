# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One collection: run the collectors that are due on the source, and deliver their rounds to the sink."""

from __future__ import annotations

import contextlib
import datetime
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import delivery
from .collectors import OWN, Collector, Round, adjusted, due, rounds, wrapped
from .configuration import Configuration
from .errors import PgOpsError, QueryFailed
from .layout import Layout
from .server import Session, connect
from .spool import Spool
from .target import Target

ORIGIN = """
SELECT concat_ws(' ', to_char(pg_postmaster_start_time(), 'YYYYMMDDHH24MISSUS'),
                 to_char((SELECT max(d.stats_reset) FROM pg_stat_database AS d), 'YYYYMMDDHH24MISSUS'),
                 to_char((SELECT b.stats_reset FROM pg_stat_bgwriter AS b), 'YYYYMMDDHH24MISSUS'),
                 (SELECT c.timeline_id FROM pg_control_checkpoint() AS c))
"""
"""What counters count from: the server's start, the last reset of statistics, the timeline.

A crash discards all statistics without a restart of the postmaster; since PostgreSQL 15 only those of the cluster,
such as the background writer's, then get a new time of reset.
"""

DATABASES = """
SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate AND datconnlimit <> -2 ORDER BY random()
"""
"""Templates are left out: CREATE DATABASE waits for, and then fails on, anybody who is connected to one. So are those
whose DROP was interrupted (-2). At random, so that where time is short no database is always among those left out."""

BATCH = 100
"""Rounds that are delivered in one transaction, each by a statement of its own: 20 seconds on a line of 200 ms."""


@dataclass
class Budget:
    """The time that a collection may take, in seconds of the monotonic clock. SIGTERM ends it at once."""

    until: float
    ended: bool = False

    def left(self) -> float:
        """Seconds."""
        return 0.0 if self.ended else max(0.0, self.until - time.monotonic())

    @contextlib.contextmanager
    def heeded(self) -> Iterator[None]:
        """Let SIGTERM interrupt what waits for a server: systemd sends it to a job that takes too long, or when the
        host shuts down, and what was measured until then is worth keeping.

        Raises QueryFailed.
        """
        before = signal.signal(signal.SIGTERM, self._end)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def _end(self, _signal: int, _frame: object) -> None:
        self.ended = True
        raise QueryFailed("ended by SIGTERM")


@dataclass
class Tally:
    """What happened in one collection; ``last`` is when a run of each collector started, in Unix time."""

    started: float
    rounds: list[Round] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    durations: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)

    @property
    def samples(self) -> int:
        """Values of all rounds."""
        return sum(len(found.values) for found in self.rounds)


def source_target(configuration: Configuration) -> Target:
    """The local server, by its socket, in the ops database, which a standby has as well."""
    return Target(
        host=configuration.socket_directory,
        port=str(configuration.port),
        user=configuration.role,
        database=configuration.database,
        application_name="pgops collect",
        lock_timeout=0.1,
    )


def collect(
    configuration: Configuration, layout: Layout, found: Sequence[Collector], last: Mapping[str, float]
) -> dict[str, Any]:
    """Run what is due, deliver it, and say what happened: samples, collectors, errors, last, sink and how many
    rounds were delivered or spooled.

    Raises PgOpsError where the source cannot be reached.
    """
    tally = Tally(time.time(), last=dict(last))
    budget = Budget(time.monotonic() + configuration.time_budget)
    waiting = Spool(f"{layout.state}/spool.jsonl", configuration.spool_bytes)
    waiting.prepare()
    with connect(source_target(configuration)) as source:
        origin = source.value(ORIGIN)
        identity = delivery.Source(source.value(delivery.SYSTEM_IDENTIFIER), source.in_recovery)
        chosen = [
            collector
            for collector in adjusted(found, configuration.collectors)
            if collector.applies(source.major, source.in_recovery)
            and due(collector, tally.started, last.get(collector.name))
        ]
        run(source, chosen, tally, origin, budget)
        tally.rounds += own_rounds(tally, origin, waiting.dropped())
        metrics = {collector.name: collector.metrics for collector in [*found, OWN]}
        parcel = delivery.Parcel(configuration, identity, metrics)
        result = deliver(parcel, layout, source, tally, waiting, budget)
    return {**result, "samples": tally.samples, "collectors": len(chosen), "errors": tally.errors, "last": tally.last}


def deliver(
    parcel: delivery.Parcel, layout: Layout, source: Session, tally: Tally, waiting: Spool, budget: Budget
) -> dict[str, Any]:
    """Deliver what is new and what waited, or keep it for later.

    What is new goes first, so that samples are fresh however long the backlog is; that goes on until the time is up,
    for one batch at least, so that it shrinks in every run. A round delivered twice is stored once.
    """
    new, older = tally.rounds, _waiting(waiting, tally)
    done, place = 0, "spool"
    try:
        with budget.heeded(), delivery.sink(parcel.configuration, layout, source) as session:
            delivery.check_cluster(session, parcel.source.system_identifier)
            for batch in [*_batches(new), *_batches(older)]:
                if budget.ended or (done > len(new) and not budget.left()):
                    break
                for lost, reason in delivery.deliver(session, parcel, batch):
                    tally.errors.append(f"{len(lost.values)} samples of {lost.collector} lost: {reason}")
                    waiting.count_dropped(len(lost.values))
                done += len(batch)
                place = "local" if session is source else "primary"
    except PgOpsError as error:
        tally.errors.append(f"not delivered, kept for later: {error}")
    left = older[max(0, done - len(new)) :]
    if len(left) < len(older):
        waiting.keep(left)
    kept, dropped = _kept(waiting, tally, new[done:])
    return {"sink": place, "delivered": done, "spooled": len(left) + kept, "dropped": dropped}


def _batches(found: Sequence[Round]) -> list[Sequence[Round]]:
    return [found[start : start + BATCH] for start in range(0, len(found), BATCH)]


def _waiting(waiting: Spool, tally: Tally) -> list[Round]:
    try:
        return waiting.rounds()
    except OSError as error:
        tally.errors.append(f"the backlog is left for later: {waiting.path} cannot be read: {error.strerror}")
        return []


def _kept(waiting: Spool, tally: Tally, found: Sequence[Round]) -> tuple[int, int]:
    """Keep rounds for later: how many were kept, and how many samples found no room and are lost."""
    try:
        return waiting.append(found)
    except OSError as error:
        lost = sum(len(one.values) for one in found)
        tally.errors.append(f"{lost} samples lost: {waiting.path} cannot be written: {error.strerror}")
        waiting.count_dropped(lost)
        return 0, lost


def run(source: Session, chosen: Sequence[Collector], tally: Tally, origin: str, budget: Budget) -> None:
    """Run collectors, those of scope database in every database that lets us in, until the time is up."""
    try:
        with budget.heeded():
            for collector in chosen:
                if collector.scope == "instance":
                    measure(source, collector, tally, origin, budget)
            inside = [collector for collector in chosen if collector.scope == "database"]
            names = [row["datname"] for row in source.rows(DATABASES)] if inside else []
            for place, name in enumerate(names):
                if not budget.left():
                    left = len(names) - place
                    _fail(tally, inside, f"the time is up: {left} databases are left out", left)
                    break
                _run_inside(source, name, inside, tally, origin, budget)
    except PgOpsError as error:
        _fail(tally, [one for one in chosen if one.name not in tally.durations], str(error))


def _run_inside(
    source: Session, name: str, chosen: Sequence[Collector], tally: Tally, origin: str, budget: Budget
) -> None:
    try:
        with contextlib.ExitStack() as stack:
            same = name == source.database
            session = source if same else stack.enter_context(connect(replace(source.target, database=name)))
            for collector in chosen:
                measure(session, collector, tally, origin, budget)
    except PgOpsError as error:
        _fail(tally, chosen, str(error))


def measure(session: Session, collector: Collector, tally: Tally, origin: str, budget: Budget) -> None:
    """Run one collector in one database, read only and under a time limit; it fails for itself alone."""
    started = time.time()
    seconds = min(collector.timeout, budget.left())
    tally.last[collector.name] = tally.started
    try:
        if not seconds:
            raise QueryFailed("left out, the time is up")
        with session.transaction():
            session.execute("SET TRANSACTION READ ONLY")
            limit = str(max(1, round(seconds * 1000)))
            session.value("SELECT set_config('statement_timeout', %s, true)", [limit])
            rows = session.documents(wrapped(collector.query))
        tally.rounds += rounds(collector, rows, iso(started), origin)
    except (PgOpsError, ValueError, TypeError, ArithmeticError) as error:
        _fail(tally, [collector], f"{collector.name} in {session.database}: {error}")
    spent = (time.time() - started) * 1000
    tally.durations[collector.name] = tally.durations.get(collector.name, 0.0) + spent


def _fail(tally: Tally, failed: Sequence[Collector], message: str, databases: int = 1) -> None:
    tally.errors.append(message)
    for collector in failed:
        tally.failures[collector.name] = tally.failures.get(collector.name, 0) + databases


def own_rounds(tally: Tally, origin: str, dropped: int) -> list[Round]:
    """The collection's own cost and errors, as rounds."""
    rows: list[dict[str, Any]] = [
        {
            "collector": name,
            "collector_duration_ms": tally.durations.get(name, 0.0),
            "collector_errors": tally.failures.get(name, 0),
        }
        for name in sorted({*tally.durations, *tally.failures})
    ]
    return rounds(OWN, [*rows, {"samples_dropped": dropped}], iso(time.time()), origin)


def iso(moment: float) -> str:
    """A Unix time as ISO 8601 in UTC."""
    return datetime.datetime.fromtimestamp(moment, datetime.timezone.utc).isoformat()
