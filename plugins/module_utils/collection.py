# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One collection: run the collectors that are due on the source, and deliver their rounds to the sink."""

from __future__ import annotations

import contextlib
import datetime
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from . import delivery
from .collectors import Collector, Metric, Round, adjusted, due, rounds, wrapped
from .configuration import Configuration
from .errors import PgOpsError
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

DATABASES = "SELECT datname FROM pg_database WHERE datallowconn AND NOT datistemplate ORDER BY datname"
"""Templates are left out: CREATE DATABASE waits for, and then fails on, anybody who is connected to one."""

BATCH = 500
"""Rounds that are delivered in one transaction."""

OWN = Collector(
    name="agent",
    query="",
    metrics=(
        Metric("collector_duration_ms", "ms", help="Time that a collector took, over all databases."),
        Metric("collector_errors", "count", category="availability", help="Databases where a collector failed."),
        Metric("samples_dropped", "count", "counter", "availability", help="Samples lost, ever, on the node."),
    ),
)
"""What a collection says of itself."""


@dataclass
class Tally:
    """What happened in one collection; ``last`` is when each collector ran, in Unix time."""

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
    started = time.time()
    tally = Tally(last=dict(last))
    waiting = Spool(f"{layout.state}/spool.jsonl", configuration.spool_bytes)
    waiting.prepare()
    with connect(source_target(configuration)) as source:
        origin = source.value(ORIGIN)
        identity = delivery.Source(source.value(delivery.SYSTEM_IDENTIFIER), source.in_recovery)
        chosen = [
            collector
            for collector in adjusted(found, configuration.collectors)
            if collector.applies(source.major, source.in_recovery)
            and due(collector, started, last.get(collector.name))
        ]
        run(source, chosen, tally, origin, started + configuration.time_budget)
        tally.rounds += own_rounds(tally, origin, waiting.dropped())
        metrics = {collector.name: collector.metrics for collector in [*found, OWN]}
        parcel = delivery.Parcel(configuration, identity, metrics)
        result = deliver(parcel, layout, source, tally, waiting, until=started + configuration.time_budget)
    return {**result, "samples": tally.samples, "collectors": len(chosen), "errors": tally.errors, "last": tally.last}


def deliver(
    parcel: delivery.Parcel, layout: Layout, source: Session, tally: Tally, waiting: Spool, until: float
) -> dict[str, Any]:
    """Deliver what is new and what waited, or keep it for later.

    What is new goes first, so that samples are fresh however long the backlog is; that goes on until the time is up,
    for one batch at least, so that it shrinks in every run. A round delivered twice is stored once.
    """
    older = waiting.rounds()
    batches = [tally.rounds, *(older[start : start + BATCH] for start in range(0, len(older), BATCH))]
    done, place = 0, "spool"
    try:
        with delivery.sink(parcel.configuration, layout, source) as session:
            delivery.check_cluster(session, parcel.source.system_identifier)
            place = "local" if session is source else "primary"
            for batch in batches:
                if done > 1 and time.time() > until:
                    break
                for lost, reason in delivery.deliver(session, parcel, batch):
                    tally.errors.append(f"{len(lost.values)} samples of {lost.collector} lost: {reason}")
                    waiting.count_dropped(len(lost.values))
                done += 1
    except PgOpsError as error:
        tally.errors.append(f"not delivered, kept for later: {error}")
    if not done:
        return {"sink": "spool", "delivered": 0, **_kept(waiting, tally)}
    left = [found for batch in batches[done:] for found in batch]
    if older:
        waiting.keep(left)
    return {"sink": place, "delivered": len(tally.rounds) + len(older) - len(left), "spooled": len(left)}


def _kept(waiting: Spool, tally: Tally) -> dict[str, int]:
    """Keep the new rounds for later; what finds no room is lost, and said to be."""
    try:
        return {"spooled": len(tally.rounds), "dropped": waiting.append(tally.rounds)}
    except OSError as error:
        tally.errors.append(f"{tally.samples} samples lost: {waiting.path} cannot be written: {error.strerror}")
        waiting.count_dropped(tally.samples)
        return {"spooled": 0, "dropped": tally.samples}


def run(source: Session, chosen: Sequence[Collector], tally: Tally, origin: str, deadline: float) -> None:
    """Run collectors, those of scope database in every database that lets us in, until the deadline."""
    for collector in chosen:
        if collector.scope == "instance":
            measure(source, collector, tally, origin)
    inside = [collector for collector in chosen if collector.scope == "database"]
    if not inside:
        return
    try:
        names = [row["datname"] for row in source.rows(DATABASES)]
    except PgOpsError as error:
        _fail(tally, inside, f"the databases cannot be listed: {error}")
        return
    for name in names:
        if time.time() > deadline:
            _fail(tally, inside, f"{name}: left out, the time is used up")
        else:
            _run_inside(source, name, inside, tally, origin)


def _run_inside(source: Session, name: str, chosen: Sequence[Collector], tally: Tally, origin: str) -> None:
    try:
        with contextlib.ExitStack() as stack:
            same = name == source.database
            session = source if same else stack.enter_context(connect(replace(source.target, database=name)))
            for collector in chosen:
                measure(session, collector, tally, origin)
    except PgOpsError as error:
        _fail(tally, chosen, str(error))


def measure(session: Session, collector: Collector, tally: Tally, origin: str) -> None:
    """Run one collector in one database, read only and under its own time limit; it fails for itself alone."""
    started = time.time()
    tally.last[collector.name] = max(started, tally.last.get(collector.name, 0.0))
    try:
        with session.transaction():
            session.execute("SET TRANSACTION READ ONLY")
            limit = str(round(collector.timeout * 1000))
            session.value("SELECT set_config('statement_timeout', %s, true)", [limit])
            rows = session.documents(wrapped(collector.query))
        tally.rounds += rounds(collector, rows, iso(started), origin)
    except (PgOpsError, ValueError, TypeError) as error:
        _fail(tally, [collector], f"{collector.name} in {session.database}: {error}")
    spent = (time.time() - started) * 1000
    tally.durations[collector.name] = tally.durations.get(collector.name, 0.0) + spent


def _fail(tally: Tally, failed: Sequence[Collector], message: str) -> None:
    tally.errors.append(message)
    for collector in failed:
        tally.failures[collector.name] = tally.failures.get(collector.name, 0) + 1


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
