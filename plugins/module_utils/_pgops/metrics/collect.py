# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One collection: run the collectors that are due on the source, and deliver their rounds to the sink."""

from __future__ import annotations

import contextlib
import random
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from ..errors import PgOpsError, QueryFailed
from ..instance import endpoints, places, records
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..instance.records import Record
from ..instance.sink import OFF, Node, Sink, node, opened
from ..server import databases, disks, encoding, ownership, tablespaces
from ..server.databases import Database
from ..server.session import Session, connect
from . import delivery, latest, refused
from .collectors import INSPECTION, JOBS, LOGIN, MOST_ROWS, OWN, Collector, adjusted, due, metrics, placed, wrapped
from .history import Cost, Runs, key, name_of
from .options import options
from .pace import Pace, paced
from .rounds import Round, Sample, iso, packed, place, told_apart
from .spool import Spool

ORIGIN = """
SELECT concat_ws(' ',
    (SELECT to_char(min(a.backend_start), 'YYYY-MM-DD"T"HH24:MI:SS.USOF') FROM pg_stat_activity AS a
     WHERE a.backend_type = 'checkpointer'),
    (SELECT to_char(least(b.stats_reset, c.stats_reset, w.stats_reset), 'YYYY-MM-DD"T"HH24:MI:SS.USOF')
     FROM pg_stat_bgwriter AS b, pg_stat_archiver AS c, pg_stat_wal AS w))
"""
"""Time of the server's last start, including after a crash, and the time since which it has its oldest statistics.

Both change if the statistics are lost: a crash discards all of them, a clean restart none, and a reset restarts no
server.
"""

Places = list[tuple[Database, list[Collector]]]
"""Databases, each with the collectors that are to run in it."""

SLICE = 1.0
"""Seconds that each database may take, however many there are: those left out come first the next time."""

BATCH = 100
"""Rounds that are delivered in one transaction, each by its own statement: 20 seconds at a latency of 200 ms."""


@dataclass
class Budget:
    """The time that a collection may take, in seconds of the monotonic clock. SIGTERM ends it at once."""

    until: float
    ended: bool = False

    def left(self) -> float:
        """Seconds."""
        return 0.0 if self.ended else max(0.0, self.until - time.monotonic())

    def turn(self, of: int) -> Callable[[], float]:
        """What is left of the turn of one of so many, in seconds: of an equal share of the time that is left now."""
        until = time.monotonic() + max(SLICE, self.left() / of)
        return lambda: min(self.left(), max(0.0, until - time.monotonic()))

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """Let SIGTERM interrupt waiting for a server: systemd sends it to a job that takes too long, or when the host
        shuts down. Samples measured until then are kept.

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
    """What happens in one collection, and what is known of previous ones.

    ``started`` is Unix time, ``retention`` days by metric, ``seconds`` what each collector took, by history.key();
    ``measured`` holds samples by their place, with the time when the first was taken; ``directories`` are those of
    the server.
    """

    started: float
    origin: str
    runs: Runs
    host: disks.Host
    retention: Mapping[str, int] = field(default_factory=dict)
    measured: dict[str, tuple[float, list[Sample]]] = field(default_factory=dict)
    newest: list[latest.Run] = field(default_factory=list)
    directories: Sequence[Mapping[str, Any]] = ()
    errors: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: dict[str, int] = field(default_factory=dict)

    def add(
        self, collector: Collector, inside: Database | None, at: float, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        """Add the rows that a collector measured in a database, None for the instance.

        Raises ValueError, TypeError or ArithmeticError for invalid values, and then adds nothing.
        """
        database = inside.shown if inside else ""
        found, repeated = told_apart(collector, rows, self.retention, inside.oid if inside else None)
        for sample in found:
            where = place(collector.interval, database, sample.keep_days)
            self.measured.setdefault(where, (at, []))[1].append(sample)
        pairs = [(sample.series, sample.value) for sample in found]
        self.newest.append(latest.Run(collector.name, database, collector.interval, at, pairs))
        if repeated:
            lost = f"{len(repeated)} series were left out, as several rows have them: {repeated[0]}"
            self.fail([collector], f"{collector.name}{f' in {database}' if database else ''}: {lost}")

    def fail(self, failed: Iterable[Collector], message: str) -> None:
        """Record an error, and the collectors it belongs to, each once for every database in which it failed."""
        if message not in self.errors:
            self.errors.append(message)
        for collector in failed:
            self.failures[collector.name] = self.failures.get(collector.name, 0) + 1

    def leave_out(self, places: Places) -> None:
        """Record that the time limit was reached before some databases, with their collectors."""
        self.runs.left_out.update(database.shown for database, _some in places)
        left = [collector for _database, some in places for collector in some]
        self.fail(left, f"time limit reached: {len(places)} databases were left out")

    @property
    def ran(self) -> int:
        """How many collectors ran, or failed."""
        return len({*map(name_of, self.seconds), *self.failures})

    def rounds(self) -> list[Round]:
        """All that was measured."""
        return [
            made
            for where, (at, found) in self.measured.items()
            for made in packed(where, found, iso(at), self.origin, self.runs.shapes)
        ]


class Opener(Protocol):
    """What opens the sink for a source, as sink.opened() does."""

    def __call__(
        self, configuration: Configuration, layout: Layout, source: Session, node: Node, durability: str = OFF
    ) -> contextlib.AbstractContextManager[Sink]:
        """The sink, open until the context ends."""


@dataclass(frozen=True)
class Visit:
    """What a collection works with: ``found`` are all collectors, of which it runs those with its rights. ``sink``
    replaces sink.opened() if the sink stays open for the next collection. ``refused``: the server lets no other
    session of the agent in."""

    configuration: Configuration
    layout: Layout
    found: Sequence[Collector]
    source: Session
    inspects: bool = False
    sink: Opener = opened
    refused: bool = False

    @property
    def rights(self) -> tuple[str, ...]:
        """The rights of this collection: over the network, the server's host is not visible."""
        if self.inspects:
            return ("all_data",)
        return ("monitor",) if self.configuration.host else ("monitor", "host")

    @property
    def spool(self) -> Spool:
        """The rounds that wait for delivery."""
        return spool(self.configuration, self.layout.keeping if self.inspects else self.layout.state)

    def tally(self, runs: Runs) -> Tally:
        """A new record of this collection."""
        known = self.configuration
        host = disks.Host(f"{self.layout.state}/disks.lock", known.repository, known.real_paths)
        return Tally(time.time(), self.source.value(ORIGIN), runs, host, options(known).retention)

    def collectors(self) -> list[Collector]:
        """Those that are for this server, at the intervals of the configuration.

        Raises InvalidInput for an invalid configuration.
        """
        return [
            one
            for one in adjusted(self.found, options(self.configuration).collectors)
            if one.rights in self.rights and one.applies(self.source.major, self.source.in_recovery)
        ]


def spool(configuration: Configuration, folder: str) -> Spool:
    """The rounds that wait for delivery, in one of the instance's directories."""
    return Spool(f"{folder}/spool.jsonl", options(configuration).spool_bytes)


def entered(configuration: Configuration, layout: Layout) -> Session:
    """A session of the agent's with its server; if the server refuses it, that is measured.

    Raises PgOpsError.
    """
    with refused.noted(layout, spool(configuration, layout.state), time.time()):
        return connect(endpoints.agent(configuration, "collect"))


def inspect(configuration: Configuration, layout: Layout, found: Sequence[Collector], runs: Runs) -> dict[str, Any]:
    """Like collect(), for the collectors that need to read all data; on a standby there is nothing to do.

    Raises PgOpsError if the source cannot be reached.
    """
    with connect(endpoints.reader(configuration, "inspect")) as source:
        ownership.refuse_foreign(source)
        if source.in_recovery:
            return {"skipped": "standby: inspect runs on the primary", "errors": []}
        visit = Visit(configuration, layout, found, source, inspects=True)
        return everything(visit, runs, Budget(time.monotonic() + options(configuration).time_budget))


def collect(configuration: Configuration, layout: Layout, found: Sequence[Collector], runs: Runs) -> dict[str, Any]:
    """Run what is due, and deliver it. Returns samples, collectors, errors, which collectors are slowed down, sink,
    and how many rounds were delivered or spooled. ``runs`` is what the next collection needs to know.

    Raises PgOpsError if the source cannot be reached.
    """
    with entered(configuration, layout) as source:
        visit = Visit(configuration, layout, found, source)
        return everything(visit, runs, Budget(time.monotonic() + options(configuration).time_budget))


def everything(visit: Visit, runs: Runs, budget: Budget) -> dict[str, Any]:
    """Run all that is due, and deliver it with its costs and the rounds in the spool; the result of collect()."""
    waiting = visit.spool
    waiting.prepare()
    with budget.interruptible():
        tally = visit.tally(runs)
    own = visit.collectors()
    pace = paced(own, runs)
    # Inside databases each has its own time.
    chosen = [
        one
        for one in map(pace.of, own)
        if one.scope == "database" or due(one, tally.started, runs.last.get(one.name))
    ]
    intervals = {OWN.interval, INSPECTION.interval}.union(*map(pace.intervals, own))
    runs.forget_others(intervals, {0, *tally.retention.values()})
    runs.started = tally.started
    later = {one.name: pace.longest(one) for one in own if pace.longest(one) > one.interval}
    run(visit.source, chosen, tally, budget)
    runs.note(tally.seconds, tally.failures)
    if tally.directories:
        places.note(visit.layout, tally.directories)
    lost = None if visit.inspects else waiting.dropped()
    differing = _differing(visit, own, pace)
    tally.add(INSPECTION if visit.inspects else OWN, None, time.time(), own_rows(runs.reported(), differing, lost))
    if not visit.inspects:
        tally.add(LOGIN, None, time.time(), [{refused.REFUSED: float(visit.refused)}])
        if recorded := records.known(visit.layout):
            tally.add(JOBS, None, time.time(), job_rows(recorded, time.time()))
    # The agent reads the values of the server's user, in a directory that is closed to others.
    _remember(tally, *((visit.layout.inspected, 0o644) if visit.inspects else (visit.layout.latest,)))
    result = _delivered(visit, tally, budget, _waiting(waiting, tally))
    return {**result, "collectors": tally.ran, "slowed": later}


def _differing(visit: Visit, own: Sequence[Collector], pace: Pace) -> dict[str, int]:
    """The intervals of collectors, in seconds, where their files have others."""
    shipped = {one.name: one.interval for one in visit.found}
    return {one.name: pace.longest(one) for one in own if pace.longest(one) != shipped[one.name]}


def repeated(visit: Visit, runs: Runs, budget: Budget, chosen: Sequence[Collector]) -> dict[str, Any]:
    """Run some collectors once more, and deliver what they measure; the next everything() reports what they cost. The
    same result, without the collectors that are slowed down."""
    with budget.interruptible():
        tally = visit.tally(runs)
    run(visit.source, chosen, tally, budget)
    runs.note(tally.seconds, tally.failures)
    _remember(tally, visit.layout.latest_repeated)
    return {**_delivered(visit, tally, budget, []), "collectors": tally.ran}


def _delivered(visit: Visit, tally: Tally, budget: Budget, older: Sequence[Round]) -> dict[str, Any]:
    """Deliver what was measured, and the rounds in the spool; returns the result."""
    new = tally.rounds()
    result = deliver(visit, tally, new, older, budget)
    return {**result, "samples": sum(one.samples for one in new), "errors": tally.errors}


def _remember(tally: Tally, path: str, mode: int = 0o640) -> None:
    """Store the newest values for the export; a full disk only prevents that."""
    try:
        latest.remember(path, tally.newest, tally.started, mode)
    except (PgOpsError, OSError) as error:
        tally.errors.append(f"the newest values cannot be stored for the export: {error}")


def deliver(
    visit: Visit, tally: Tally, new: Sequence[Round], older: Sequence[Round], budget: Budget
) -> dict[str, Any]:
    """Deliver new rounds and those in the spool, or store them in the spool.

    New rounds go first, so that samples are fresh however long the backlog is. The backlog follows until the time
    limit, at least one batch, so that it shrinks in every run. A round delivered twice is stored once.
    """
    source, waiting = visit.source, visit.spool
    done, where = 0, "spool"
    known = metrics(visit.found)
    try:
        with budget.interruptible():
            source.revive()
            whose = node(visit.configuration, source)
        with budget.interruptible(), visit.sink(visit.configuration, visit.layout, source, whose, OFF) as sink:
            for batch in [*_batches(new), *_batches(older)]:
                if budget.ended or (done > len(new) and not budget.left()):
                    break
                for lost, reason in delivery.deliver(sink, known, batch):
                    tally.errors.append(f"{lost.samples} samples of {lost.series[0]} lost: {reason}")
                    waiting.count_dropped(lost.samples)
                done += len(batch)
                where = "primary" if source.in_recovery else "local"
    except PgOpsError as error:
        tally.errors.append(f"not delivered; will be retried: {error}")
    left = older[max(0, done - len(new)) :]
    if len(left) < len(older):
        waiting.keep(left)
    kept, dropped = _kept(waiting, tally, new[done:])
    return {"sink": where, "delivered": done, "spooled": len(left) + kept, "dropped": dropped}


def _batches(found: Sequence[Round]) -> list[Sequence[Round]]:
    return [found[start : start + BATCH] for start in range(0, len(found), BATCH)]


def _waiting(waiting: Spool, tally: Tally) -> list[Round]:
    try:
        return waiting.rounds()
    except OSError as error:
        tally.errors.append(f"the spool is not delivered now: {waiting.path} cannot be read: {error.strerror}")
        return []


def _kept(waiting: Spool, tally: Tally, found: Sequence[Round]) -> tuple[int, int]:
    """Store rounds in the spool; returns how many, and how many samples did not fit and are lost."""
    try:
        return waiting.append(found)
    except OSError as error:
        lost = sum(one.samples for one in found)
        tally.errors.append(f"{lost} samples lost: {waiting.path} cannot be written: {error.strerror}")
        waiting.count_dropped(lost)
        return 0, lost


def run(source: Session, chosen: Sequence[Collector], tally: Tally, budget: Budget) -> None:
    """Run collectors, those of scope database in each of their databases that accepts us, until the time limit."""
    expected = chosen
    try:
        with budget.interruptible():
            outside = [collector for collector in chosen if collector.scope == "instance"]
            _leave_out(source, outside, tally, inside=False)
            for collector in outside:
                measure(source, collector, None, tally, budget.left)
            inside = [collector for collector in chosen if collector.scope == "database"]
            places = _places(source, inside, tally) if inside else []
            here = {one.name for _database, some in places for one in some}
            expected = [one for one in chosen if one.scope == "instance" or one.name in here]
            for at, (database, some) in enumerate(places):
                if not budget.left():
                    tally.leave_out(places[at:])
                    break
                _run_inside(source, database, some, tally, budget.turn(len(places) - at))
    except PgOpsError as error:
        done = {name_of(where) for where in tally.seconds}
        tally.fail([one for one in expected if one.name not in done], str(error))


def _places(source: Session, inside: Sequence[Collector], tally: Tally) -> Places:
    """The databases to collect from, each with the collectors that are due there; chance decides between databases
    that are as good as each other."""
    source.revive()
    found = databases.looked_into(source)
    random.shuffle(found)
    known = {database.shown: database for database in found}
    tally.runs.forget(known)
    places = paced(inside, tally.runs).places(list(known), inside, tally.started)
    for collector in inside:
        tally.runs.last[collector.name] = tally.started  # with or without a database: more may be created later
    return [(known[name], some) for name, some in places]


def _run_inside(
    source: Session, database: Database, chosen: Sequence[Collector], tally: Tally, left: Callable[[], float]
) -> None:
    tally.runs.left_out.discard(database.shown)
    try:
        with contextlib.ExitStack() as stack:
            same = database.name == source.database
            target = replace(source.target, database=database.name)
            session = source if same else stack.enter_context(connect(target))
            _leave_out(session, chosen, tally, inside=True)
            for collector in chosen:
                measure(session, collector, database, tally, left)
    except PgOpsError as error:
        tally.fail(chosen, f"database {database.shown}: {error}")


def _leave_out(session: Session, chosen: Sequence[Collector], tally: Tally, inside: bool) -> None:
    """Have collectors leave out the tablespaces that cannot be read, each of which is an error of theirs."""
    concerned = [collector for collector in chosen if collector.reads_tablespaces]
    if not concerned:
        return
    try:
        session.revive()
        errors = tablespaces.leave_out(session, inside)
    except PgOpsError as error:
        errors = [f"tablespaces of {encoding.readable(session.database)}: {error}"]
    for message in errors:
        tally.fail(concerned, message)


def measure(
    session: Session, collector: Collector, inside: Database | None, tally: Tally, left: Callable[[], float]
) -> None:
    """Run one collector in the instance, or in one database, read only and with a time limit, what is ``left`` in
    seconds at the most; an error affects only this collector, also one that has ended the session."""
    where, here = inside.shown if inside else "", encoding.readable(session.database)
    if not left():
        tally.fail([collector], f"{collector.name} in {here}: left out: time limit reached")
        tally.runs.left_out.update([where] if where else [])
        return
    started, began = time.time(), time.monotonic()
    tally.runs.last[key(collector.name, where)] = tally.started
    try:
        session.revive()
        with session.transaction():
            session.execute("SET TRANSACTION READ ONLY")
            limit = str(max(1, round(min(collector.timeout, left()) * 1000)))
            session.value("SELECT set_config('statement_timeout', %s, true)", [limit])
            rows = _rows(session, collector, inside)
        if len(rows) > MOST_ROWS:
            rows = rows[:MOST_ROWS]
            tally.fail([collector], f"{collector.name} in {here}: only the first {MOST_ROWS} rows are stored")
        if collector.rights == "host":
            tally.directories = rows
            rows, wrong = disks.measured(tally.host, rows, min(collector.timeout, left()))
            for message in wrong:
                tally.fail([collector], message)
        tally.add(collector, inside, started, rows)
    except (PgOpsError, ValueError, TypeError, ArithmeticError) as error:
        tally.fail([collector], f"{collector.name} in {here}: {error}")
    tally.seconds[key(collector.name, where)] = time.monotonic() - began


def _rows(session: Session, collector: Collector, inside: Database | None) -> list[dict[str, Any]]:
    """What a collector's query returns, with the name of the database that is known from outside."""
    if inside is None:
        return session.documents(wrapped(collector.query))
    rows = session.documents(placed(collector.query))
    return [{**row, "database": inside.name} if row.get("database") is True else row for row in rows]


def own_rows(costs: Mapping[str, Cost], intervals: Mapping[str, int], dropped: int | None) -> list[dict[str, Any]]:
    """The costs and errors of collectors, and their intervals in seconds where their files have others."""
    rows: list[dict[str, Any]] = [
        {
            "collector": name,
            "collector_duration_ms": _milliseconds(costs[name].mean),
            "collector_errors": costs[name].errors,
            "collector_interval_seconds": intervals.get(name),
        }
        for name in sorted(costs)
    ]
    return [*rows, {"samples_dropped": dropped}]


def job_rows(known: Mapping[str, Record], now: float) -> list[dict[str, Any]]:
    """The result of the last run of each job, and how long ago one had no error, at ``now`` (Unix time)."""
    return [
        {
            "job": name,
            "job_duration_ms": record.seconds * 1000,
            "job_errors": record.errors,
            "job_age_seconds": max(0.0, now - record.sound),
        }
        for name, record in sorted(known.items())
    ]


def _milliseconds(seconds: float | None) -> float | None:
    return None if seconds is None else seconds * 1000
