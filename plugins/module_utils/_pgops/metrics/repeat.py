# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The job `collect` with --repeat, which runs for the whole minute: neither cron nor a systemd timer with a random
delay can start it more often, so it runs collectors with shorter intervals itself.

Sessions stay open meanwhile: a new one costs the server about 7 ms of processor time, three quick collectors in an
existing one 2.5 ms, and it needs 3.5 MB. A session that could not be had again, since the server has no connection
left, is kept for another minute, and another: what measures the connections must not need one.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ..errors import LoginRefused, PgOpsError, QueryFailed
from ..instance import endpoints
from ..instance.configuration import Configuration
from ..instance.layout import Layout
from ..instance.sink import OFF, Node, Sink, opened
from ..server.session import Session, connect
from .collect import Budget, Visit, entered, everything, repeated
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
LIMIT = 58.0
"""Seconds of each minute after which the run ends itself, whatever it waits for."""
RETRY = 10.0
"""Seconds from a refused session to the next attempt."""
LONGEST = 600.0
"""Seconds for which a run may go on with a session that could not be had again; the job's time limit is a minute
more."""

NEARLY_FULL = """
SELECT 10 * count(*) >= 9 * (
    current_setting('max_connections')::integer - current_setting('superuser_reserved_connections')::integer
    - coalesce(current_setting('reserved_connections', true)::integer, 0))
FROM pg_stat_activity AS a WHERE a.backend_type = 'client backend'
"""
"""Whether it is worth while to ask for another session, which costs more than this."""


Told = Callable[[float, int], None]
"""What is told of each minute after which a run goes on: the seconds that it took, and the number of errors."""


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
            self._source = entered(self.configuration, self.layout)
        return self._source

    def last(self) -> bool:
        """Whether the session with the source could not be had again: nearly all connections of the server are taken,
        and it refuses another.

        Raises PgOpsError.
        """
        if self._source is None or not self._source.value(NEARLY_FULL):
            return False
        try:
            connect(endpoints.agent(self.configuration, "collect")).close()
        except LoginRefused:
            return True
        return False

    def forgive(self) -> None:
        """Try the sink again."""
        self._failure = None

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


@dataclass
class Repetition:
    """One run of the job. No pass starts later than ``seconds`` after the minute ``began``, and no other minute after
    ``last_minute``, in seconds of the monotonic clock; ``coming`` are the Unix times at which collectors are due
    next, by their names. ``limited``: a minute is ended after LIMIT. ``alone``: the server lets no other session
    in. ``done`` is the number of results of former minutes."""

    configuration: Configuration
    layout: Layout
    found: Sequence[Collector]
    memory: Memory
    seconds: float
    sessions: Sessions
    began: float
    last_minute: float
    limited: bool = False
    tell: Told | None = None
    ended: bool = False
    alone: bool = False
    done: int = 0
    budget: Budget = field(default_factory=lambda: Budget(0))
    own: Sequence[Collector] = ()
    coming: dict[str, float] = field(default_factory=dict)
    results: list[dict[str, Any]] = field(default_factory=list)
    refusals: list[str] = field(default_factory=list)

    @property
    def until(self) -> float:
        """When the last pass of the minute may start."""
        return self.began + self.seconds

    @property
    def over(self) -> bool:
        """Whether SIGTERM has ended it."""
        return self.ended or self.budget.ended

    def end(self, _signal: int, _frame: object) -> None:
        """Record SIGTERM; waiting for a server is interrupted by Budget.interruptible() instead."""
        self.ended = self.budget.ended = True

    def first(self) -> None:
        """Collect all that is due, as soon as the source lets the agent in.

        Raises PgOpsError if the source cannot be reached, or refuses it for the whole minute.
        """
        self._limit()
        while not self._entered():
            with self.budget.interruptible():
                time.sleep(RETRY)
        self._everything()

    def _entered(self) -> bool:
        try:
            with self.memory.held(writes=False), self.budget.interruptible():
                self.sessions.source()
        except LoginRefused as error:
            # Every attempt is a line in the server's log, and only a free connection can be there a little later.
            if not error.full or time.monotonic() + RETRY > self.until:
                raise
            self.refusals.append(str(error))
            return False
        return True

    def _everything(self) -> None:
        with self.memory.held() as runs:
            self._begin(options(self.configuration).time_budget)
            visit = self._visit()
            self.results.append(everything(visit, runs, self.budget))
            self._look_ahead(runs)

    def rest(self) -> None:
        """Collect again for the rest of the minute."""
        while self.wait():
            self.next()

    def next(self) -> None:
        """Collect what is due again; an error affects only this pass."""
        with self._by_itself(), self.memory.held(writes=False) as runs:
            self._repeat(runs)
            self._look_ahead(runs)

    def stays(self) -> bool:
        """Whether to go on for another minute, since the next run would not be let in."""
        if self.over or self.began + MINUTE > self.last_minute:
            return False
        try:
            with self.budget.interruptible():
                self.alone = self.sessions.last()
        except PgOpsError:
            return False
        return self.alone

    def another(self) -> None:
        """Begin another minute, with all that is due; an error affects only this pass."""
        if self.tell:
            self.tell(time.monotonic() - self.began, sum(len(one["errors"]) for one in self.results[self.done :]))
        self.done = len(self.results)
        self.began += MINUTE
        with contextlib.suppress(QueryFailed), self.budget.interruptible():
            time.sleep(max(0.0, self.began - time.monotonic()))
        if not self.over:
            self._limit()
            self.sessions.forgive()
            with self._by_itself():
                self._everything()

    def _limit(self) -> None:
        """End the run as SIGTERM does if it takes longer than its minute, as where a process of the server hangs."""
        if self.limited:
            signal.setitimer(signal.ITIMER_REAL, LIMIT)

    @contextlib.contextmanager
    def _by_itself(self) -> Iterator[None]:
        try:
            yield
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
        visit = Visit(
            self.configuration, self.layout, self.found, source, sink=self.sessions.sink, refused=self.alone
        )
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
        return not self.over


COUNTED = ("samples", "collectors", "delivered", "spooled", "dropped")
"""The keys of results that are numbers to be added up."""


def coming(collector: Collector, now: float, last: float | None) -> float:
    """When a collector is to run next, in Unix time: an interval after its last run, which is in the next slot of the
    clock. A collector that missed its time, or could not run just now, waits for an interval."""
    then = now if last is None else last + collector.interval
    return then if now < then <= now + collector.interval else now + collector.interval


def collect(
    configuration: Configuration,
    layout: Layout,
    found: Sequence[Collector],
    memory: Memory,
    seconds: float = STAY,
    limited: bool = False,
    tell: Told | None = None,
) -> dict[str, Any]:
    """Run what is due, and for so many seconds what becomes due again of collectors with an interval below a minute;
    returns at once if there are none. A server without a free connection is asked again in these seconds, and one
    that would refuse the next run is collected from for other minutes. ``limited``: a minute is ended after LIMIT.
    ``tell`` hears of each minute that is over, but for the last.

    The result of collect.collect() for all passes together, and ``passes``.

    Raises PgOpsError if the first pass cannot reach the source; in later ones that is an error of the pass.
    """
    began = time.monotonic()
    sessions = Sessions(configuration, layout)
    made = Repetition(configuration, layout, found, memory, seconds, sessions, began, began + LONGEST, limited, tell)
    with _ended_by(made):
        try:
            made.first()
            made.rest()
            while made.stays():
                made.another()
                made.rest()
            made.last()
        finally:
            sessions.close()
    result = together(made.results)
    errors = [*_counted(made.refusals), *result["errors"], *dict.fromkeys(memory.errors)]
    return {**result, "errors": errors}


@contextlib.contextmanager
def _ended_by(made: Repetition) -> Iterator[None]:
    """Have SIGTERM, and the end of the time that a minute may take, end a run."""
    signals = {signal.SIGTERM: made.end, signal.SIGALRM: _terminate}
    before = {number: signal.signal(number, handler) for number, handler in signals.items()}
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)


def _terminate(_signal: int, _frame: object) -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def together(results: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One result of all passes: numbers are added up, and a repeated error is listed once."""
    sums = {key: sum(one[key] for one in results) for key in COUNTED}
    errors = _counted([error for one in results for error in one["errors"]])
    sink = [one["sink"] for one in results if "sink" in one][-1]
    return {**results[0], **sums, "sink": sink, "errors": errors, "passes": len(results)}


def _counted(errors: Sequence[str]) -> list[str]:
    """Each error once, with the number of times."""
    times = {error: errors.count(error) for error in dict.fromkeys(errors)}
    return [error if count == 1 else f"{error} ({count} times)" for error, count in times.items()]
