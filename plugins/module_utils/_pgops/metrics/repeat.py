# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The job `collect` with --repeat, which runs for the whole minute: neither cron nor a systemd timer with a random
delay can start it more often, so it runs collectors with shorter intervals itself.

Sessions stay open meanwhile: a new one costs the server about 7 ms of processor time, three quick collectors in an
existing one 2.5 ms, and it needs 3.5 MB.
"""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import PgOpsError, QueryFailed
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..instance.sink import OFF, Node, Sink, opened
from ..server.session import Session, connect
from .collect import Budget, Visit, everything, repeated
from .collectors import Collector, due
from .history import Memory, Runs
from .options import options
from .pace import paced

MINUTE = 60
"""Seconds between two runs of the job: collectors with a shorter interval are repeated."""
STAY = 56.0
"""Seconds from its start in which a pass may start: the next run starts after a minute, or a second less, since
systemd shifts a timer within its AccuracySec."""
GRACE = 1.0
"""Minimum duration of the last pass, in seconds."""


@dataclass
class Sessions:
    """The sessions with the source and the sink, which stay open from one pass to the next."""

    configuration: Configuration
    layout: Layout
    _source: Session | None = None
    _sink: Sink | None = None
    _sink_closes: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    _failure: PgOpsError | None = None

    def source(self) -> Session:
        """A session with the source: the open one, unless it ended or the role of the server has changed.

        Raises PgOpsError.
        """
        if self._source is not None and not _as_before(self._source):
            self.close()
        if self._source is None:
            self._source = _without_idle_timeout(connect(endpoints.agent(self.configuration, "collect")))
        return self._source

    @contextlib.contextmanager
    def sink(
        self, configuration: Configuration, layout: Layout, source: Session, node: Node, durability: str = OFF
    ) -> Iterator[Sink]:
        """The sink, as sink.opened() opens it. Once it fails, it is not tried any more in this run.

        Raises PgOpsError.
        """
        if self._failure is not None:
            raise self._failure
        if self._sink is not None and not (self._sink.node == node and _as_before(self._sink.session)):
            self._close_sink()
        try:
            if self._sink is None:
                way = opened(configuration, layout, source, node, durability)
                self._sink = self._sink_closes.enter_context(way)
                _without_idle_timeout(self._sink.session)
            yield self._sink
        except PgOpsError as error:
            self._failure = error
            self._close_sink()
            raise

    def _close_sink(self) -> None:
        self._sink = None
        self._sink_closes.close()

    def close(self) -> None:
        """End the sessions."""
        self._close_sink()
        self._failure = None
        if self._source is not None:
            self._source.close()
            self._source = None


def _as_before(session: Session) -> bool:
    try:
        return bool(session.value("SELECT pg_is_in_recovery()")) == session.in_recovery
    except QueryFailed:
        return False


def _without_idle_timeout(session: Session) -> Session:
    """The session, set so that the server does not end it when idle."""
    session.execute("SET idle_session_timeout = 0")
    return session


@dataclass
class Repetition:
    """One run of the job. No pass starts after ``until``, in seconds of the monotonic clock; ``coming`` are the Unix
    times at which collectors are due next, by their names."""

    configuration: Configuration
    layout: Layout
    found: Sequence[Collector]
    memory: Memory
    until: float
    sessions: Sessions
    ended: bool = False
    budget: Budget = field(default_factory=lambda: Budget(0))
    own: Sequence[Collector] = ()
    coming: dict[str, float] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)

    def end(self, _signal: int, _frame: object) -> None:
        """Record SIGTERM; waiting for a server is interrupted by Budget.interruptible() instead."""
        self.ended = self.budget.ended = True

    def first(self) -> None:
        """Collect all that is due.

        Raises PgOpsError if the source cannot be reached.
        """
        with self.memory.held() as runs:
            self._begin(options(self.configuration).time_budget)
            visit = self._visit()
            self.results.append(everything(visit, runs, self.budget))
            self._look_ahead(runs)

    def next(self) -> None:
        """Collect what is due again; an error affects only this pass."""
        try:
            with self.memory.held(writes=False) as runs:
                self._repeat(runs)
                self._look_ahead(runs)
        except PgOpsError as error:
            self._fail(error)
            self.coming = {name: max(moment, time.time() + 1) for name, moment in self.coming.items()}

    def last(self) -> None:
        """Store what the next run needs to know of all passes: too much to be written in each of them."""
        if len(self.results) > 1:
            try:
                with self.memory.held():
                    pass
            except PgOpsError as error:
                self._fail(error)

    def _repeat(self, runs: Runs) -> None:
        try:
            self._begin(min(options(self.configuration).time_budget, self.until + GRACE - time.monotonic()))
            visit = self._visit()
            chosen = self._due(runs)
            if chosen:
                self.results.append(repeated(visit, runs, self.budget, chosen))
        except PgOpsError as error:
            runs.note({}, {one.name: 1 for one in self._due(runs)})
            self._fail(error)

    def _due(self, runs: Runs) -> list[Collector]:
        often = {one.name for one in self._often(runs) if due(one, time.time(), runs.last.get(one.name))}
        return [one for one in map(paced(self.own, runs).of, self.own) if one.name in often]

    def _often(self, runs: Runs) -> list[Collector]:
        """The collectors to be repeated, slowed down if necessary, as they run where they run most often."""
        return [one for one in map(paced(self.own, runs).quickest, self.own) if one.interval < MINUTE]

    def _visit(self) -> Visit:
        with self.budget.interruptible():
            source = self.sessions.source()
        visit = Visit(self.configuration, self.layout, self.found, source, sink=self.sessions.sink)
        self.own = visit.collectors()
        return visit

    def _begin(self, seconds: float) -> None:
        """Set the time limit of a pass; none is left after SIGTERM."""
        self.budget = Budget(time.monotonic() + seconds, self.ended)

    def _look_ahead(self, runs: Runs) -> None:
        now = time.time()
        self.ended = self.ended or self.budget.ended
        self.coming = {one.name: coming(one, now, runs.last.get(one.name)) for one in self._often(runs)}

    def _fail(self, error: Exception) -> None:
        nothing = dict.fromkeys(COUNTED, 0)
        self.results.append({**nothing, "errors": [str(error)]})

    def wait(self) -> bool:
        """Wait until something is due again; false if that is not before the end."""
        if not self.coming or time.monotonic() + min(self.coming.values()) - time.time() >= self.until:
            return False
        with contextlib.suppress(QueryFailed), self.budget.interruptible():
            if not self.ended:
                time.sleep(max(0.0, min(self.coming.values()) - time.time()))
        return not (self.ended or self.budget.ended)


COUNTED = ("samples", "collectors", "delivered", "spooled", "dropped")
"""The keys of results that are numbers to be added up."""


def coming(collector: Collector, now: float, last: float | None) -> float:
    """When a collector is to run next, in Unix time: an interval after its last run, which is in the next slot of the
    clock. A collector that missed its time, or could not run just now, waits for an interval."""
    then = now if last is None else last + collector.interval
    return then if now < then <= now + collector.interval else now + collector.interval


def collect(
    configuration: Configuration, layout: Layout, found: Sequence[Collector], memory: Memory, seconds: float = STAY
) -> dict[str, Any]:
    """Run what is due, and for so many seconds what becomes due again of collectors with an interval below a minute;
    returns at once if there are none. The result of collect.collect() for all passes together, and ``passes``.

    Raises PgOpsError if the first pass cannot reach the source; in later ones that is an error of the pass.
    """
    until = time.monotonic() + seconds
    sessions = Sessions(configuration, layout)
    made = Repetition(configuration, layout, found, memory, until, sessions)
    before = signal.signal(signal.SIGTERM, made.end)
    try:
        made.first()
        while made.wait():
            made.next()
        made.last()
    finally:
        signal.signal(signal.SIGTERM, before)
        sessions.close()
    result = together(made.results)
    return {**result, "errors": [*result["errors"], *dict.fromkeys(memory.errors)]}


def together(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One result of all passes: numbers are added up, and a repeated error is listed once."""
    sums = {key: sum(one[key] for one in results) for key in COUNTED}
    errors = [error for one in results for error in one["errors"]]
    times = {error: errors.count(error) for error in dict.fromkeys(errors)}
    listed = [error if count == 1 else f"{error} ({count} times)" for error, count in times.items()]
    sink = [one["sink"] for one in results if "sink" in one][-1]
    return {**results[0], **sums, "sink": sink, "errors": listed, "passes": len(results)}
