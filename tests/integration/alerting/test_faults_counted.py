# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shipped rules on what is counted over minutes fire by their faults, and resolve once these minutes are over: one
course of half an hour for all of them, with real collections, on a server whose clock the test sets ahead."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import psycopg
import pytest
from ahead import SETTINGS, Ahead
from deploying import configured, deploy
from majors import make_server
from quick import Fired, declare, fired
from waiting import until

from pgops.statements import job as statements

COLLECTORS = ("checkpoints", "checksums", "database_activity", "slots")
OWN = {
    "checkpoint_timeout": "1h",
    "deadlock_timeout": "10ms",
    "pg_stat_statements.max": "100",
    "shared_buffers": "4MB",
    "shared_preload_libraries": "pg_stat_statements",
}
EXTENSION = "CREATE EXTENSION pg_stat_statements WITH SCHEMA public; GRANT USAGE ON SCHEMA public TO pgops"
FILLED = "CREATE TABLE filled AS SELECT g, repeat('x', 1000) AS x FROM generate_series(1, 40000) AS g"
SORTED = "SET work_mem = '64kB'; SELECT count(*) FROM (SELECT DISTINCT generate_series(1, 200000)) AS d"
USUAL = "CREATE TABLE usual AS SELECT g, repeat('x', 1000) AS x FROM generate_series(1, 1000) AS g"


@dataclass(frozen=True)
class Fault:
    """What a rule fires for: which series, at which severities, for at least and at most how many minutes after its
    fault has ended."""

    labels: Mapping[str, str]
    severities: tuple[str, ...]
    least: float
    most: float


SHOP = {"database": "shop"}
FAULTS = {
    "deadlocks": Fault(SHOP, ("warning",), 5, 5),
    "cache_hit_ratio": Fault(SHOP, ("warning",), 0, 5),
    "temp_bytes": Fault(SHOP, ("critical", "warning"), 5, 5),
    "rollbacks": Fault(SHOP, ("warning",), 0, 5),
    # Its last value is of two and a half minutes later at most, and is looked at for five.
    "slot_inactive": Fault({"slot": "unused"}, ("critical", "warning"), 2.5, 7.5),
    "checksum_failures": Fault(SHOP, ("critical",), 15, 15),
    # What evicts others' statements may itself be evicted for some minutes.
    "statements_evicted": Fault({}, ("warning",), 15, 25),
    "checkpoints_requested": Fault({}, ("warning",), 30, 30),
}
LOOKS = (1, 2, 3, 2, 4, 4, 9, 6)
"""Minutes that pass before each look: 31 in all."""


@dataclass(frozen=True)
class Look:
    """What fires at some time, ``since`` and ``until`` minutes after the faults."""

    since: float
    until: float
    firing: Fired


class Shop:
    """A server on which all of it goes wrong at once, and its agent."""

    def __init__(self, ahead: Ahead) -> None:
        self.ahead, self.server = ahead, ahead.server
        deploy(self.server)
        self.server.value(EXTENSION, "pgops")
        self.server.value("CREATE DATABASE shop")
        declare(self.server, {"temp_bytes": 1.0}, capabilities=["statements"])
        self.run(USUAL, "CREATE TABLE one ()", "CREATE TABLE other ()")

    def run(self, *some: str, times: int = 1) -> None:
        """Statements in the database shop."""
        with self.server.connect("shop") as session:
            for one in some * times:
                session.execute(one.encode())

    def works(self) -> None:
        """What a healthy shop does: it reads what is in memory, and commits."""
        self.run("SELECT count(x) FROM usual", times=110)

    def measure(self) -> Fired:
        """What the agent does, and what fires by it."""
        self.ahead.measure(*COLLECTORS)
        assert statements.collect(*configured(self.server, self.ahead.state))["errors"] == []
        return fired(self.server)

    def damage(self) -> None:
        """A block that is not as it was written."""
        self.run("CREATE TABLE damaged AS SELECT generate_series(1, 1000) AS a")
        path = self.server.data_dir / str(self.server.value("SELECT pg_relation_filepath('damaged')", "shop"))
        self.server.stop()
        with path.open("r+b") as file:
            file.seek(8192 + 4000)
            file.write(b"damage")
        self.server.start()

    def fail(self) -> None:
        """All of the faults that are counted."""
        for _number in range(5):
            self.deadlock()
        for _number in range(3):
            self.run("DROP TABLE IF EXISTS filled", FILLED, "SELECT sum(g) FROM filled")
        self.run(*SORTED.split("; "))
        self.run("BEGIN", "SELECT 1", "ROLLBACK", times=200)
        self.run("CHECKPOINT", times=4)
        with contextlib.suppress(psycopg.errors.DataCorrupted):
            self.run("SELECT count(*) FROM damaged")
        self.run(*(f"SELECT 1 AS a{number}, {'1 + ' * number}1" for number in range(150)))

    def deadlock(self) -> None:
        """Two sessions, of which one is ended by the server."""
        first = psycopg.pq.PGconn.connect(self.server.dsn("shop").encode())
        try:
            with self.server.connect("shop") as second:
                first.exec_(b"BEGIN; LOCK TABLE one")
                second.execute("BEGIN")
                second.execute("LOCK TABLE other")
                first.send_query(b"LOCK TABLE other")
                with contextlib.suppress(psycopg.errors.DeadlockDetected):
                    second.execute("LOCK TABLE one")
        finally:
            first.finish()


def of(found: Fired, name: str) -> tuple[str, ...]:
    """At which severities a rule fires, for the series that its fault is about."""
    wanted = FAULTS[name].labels.items()
    return tuple(sorted({severity for rule, severity, labels in found if rule == name and wanted <= labels.items()}))


def by_rule(found: Fired) -> dict[str, tuple[str, ...]]:
    return {name: of(found, name) for name in FAULTS}


@pytest.fixture(name="course", scope="module")
def _course(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Look]]:
    """The faults, and what fires while minutes go on without them."""
    server = make_server(18, settings={**SETTINGS, **OWN})
    with pytest.MonkeyPatch.context() as patch:
        try:
            yield _looks(Shop(Ahead.of(server, tmp_path_factory.mktemp("agent"), patch)))
        finally:
            server.delete()


def _looks(shop: Shop) -> list[Look]:
    ahead = shop.ahead
    shop.damage()
    shop.run("SELECT pg_create_physical_replication_slot('unused')")
    before = by_rule(shop.measure())
    assert {name for name, severities in before.items() if severities} == {"slot_inactive"}
    began = ahead.clock()
    shop.fail()
    all_of_it = {name: fault.severities for name, fault in FAULTS.items()}
    until(lambda: by_rule(shop.measure()), "firing", all_of_it)
    ended = ahead.clock()
    shop.run("SELECT pg_drop_replication_slot('unused')", "DROP TABLE damaged")
    looks = []
    for minutes in LOOKS:
        ahead.later(minutes)
        shop.works()
        since = ahead.clock() - ended
        found = shop.measure()
        looks.append(Look(since / 60, (ahead.clock() - began) / 60, found))
    return looks


@pytest.mark.parametrize("name", FAULTS)
def test_a_rule_fires_for_the_minutes_that_it_looks_at_and_then_no_longer(course: list[Look], name: str) -> None:
    fault = FAULTS[name]
    for look in course:
        if look.until < fault.least:
            assert of(look.firing, name) == fault.severities, look.until
        if look.since > fault.most:
            assert of(look.firing, name) == (), look.since
    assert course[-1].since > fault.most
