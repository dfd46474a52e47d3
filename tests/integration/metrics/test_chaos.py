# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Some minutes of everything that happens to servers, in a random order, with a ledger of what really was done.

Afterwards every increase that is stored is what the ledger says, no sample is lost, and no job fails.
"""

from __future__ import annotations

import contextlib
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import disks
import psycopg
import pytest
from binaries import majors
from deploying import STATEMENTS, collect, configured, deploy, inspect, target
from servers import Server
from waiting import until

from pgops.errors import LoginRefused, PgOpsError
from pgops.metrics import partitions
from pgops.metrics.history import Runs
from pgops.server import encoding
from pgops.statements import deploy as statements
from pgops.statements import job as queries

ROUNDS = 150
MOST_RESETS = 40
SETTINGS = {
    "shared_preload_libraries": "pg_stat_statements",
    "compute_query_id": "on",
    "max_connections": "20",
    "autovacuum": "off",
}
STORED = """
SELECT s.database_name, c.ended_at, c.increase
FROM pgops.counter_steps('table_tuples_inserted', now() - interval '1 day', now() + interval '1 hour') AS c
INNER JOIN pgops.series AS s USING (series_id)
WHERE s.database_name NOT IN ('pgops', 'postgres', 'template1')
"""
HOSTILE = (
    *(
        "statement_timeout = 1",
        "lock_timeout = 1",
        "work_mem = '64kB'",
        "enable_hashjoin = off",
        "DateStyle = 'German'",
    ),
    *(
        "default_transaction_read_only = on",
        "search_path = nowhere",
        "client_encoding = 'latin1'",
        "jit_above_cost = 0",
    ),
    *("standard_conforming_strings = off", "extra_float_digits = -15", "idle_in_transaction_session_timeout = 1"),
    *("plan_cache_mode = force_generic_plan", "default_transaction_isolation = serializable"),
)


@dataclass
class Table:
    """A table, which keeps its identity whatever its name is. ``counted`` is how many rows have been inserted since
    its counters were reset, ``seen`` what the last collection saw of that, ``afresh`` whether there was a reset since
    then; ``renamed`` whether it was found under another name then; ``resets`` how many there were: after each it is
    read less often than before, so that some counter falls, by which alone a table's reset can be known."""

    name: str
    counted: int = 0
    seen: int | None = None
    afresh: bool = False
    renamed: bool = False
    resets: int = 0


@dataclass
class Database:
    name: str
    tables: list[Table] = field(default_factory=list)


@dataclass
class Pass:
    """A collection: when it was, and by how much all tables of a database have grown, at least and at most: what was
    renamed meanwhile may have begun anew."""

    since: datetime
    until: datetime
    grown: dict[str, tuple[int, int]]


class World:
    """A server, what was done to it, and what its agent knows."""

    def __init__(self, server: Server, state: Path, small: Path | None, seed: int) -> None:
        self.server, self.state, self.small = server, state, small
        self.draw = random.Random(seed)
        self.runs = Runs()
        self.databases: list[Database] = []
        self.passes: list[Pass] = []
        self.names = iter(range(10**6))
        self.done: list[str] = []

    # what happens

    def insert(self) -> None:
        """Rows come into a table; some of their transactions are rolled back, which the server counts as well."""
        table = self._table()
        rows = self.draw.randrange(1, 200)
        with self.server.connect(self._of(table).name) as session:
            session.execute("BEGIN")
            session.execute(f"INSERT INTO public.{quoted(table.name)} SELECT generate_series(1, {rows})".encode())
            session.execute(self.draw.choice((b"COMMIT", b"ROLLBACK")))
        table.counted += rows

    def make_table(self) -> None:
        database = self.draw.choice(self.databases)
        if len(database.tables) < 20:
            self.new_table(database)

    def new_table(self, database: Database) -> None:
        table = Table(self.draw.choice(("t", "odd name ", 'q"', "é", "\\x")) + str(next(self.names)))
        rows = self.draw.randrange(300)
        with self.server.connect(database.name) as session:
            session.execute(f"CREATE TABLE public.{quoted(table.name)} (n int)".encode())
            session.execute(f"INSERT INTO public.{quoted(table.name)} SELECT generate_series(1, {rows})".encode())
        table.counted = rows
        database.tables.append(table)
        self._scan(database, [table])

    def drop_table(self) -> None:
        table = self._table()
        database = self._of(table)
        if len(database.tables) > 2:
            self._run(f"DROP TABLE public.{quoted(table.name)}", database)
            database.tables.remove(table)

    def replace_table(self) -> None:
        """A table goes, and another one of its name comes."""
        table = self._table()
        database = self._of(table)
        self._run(f"DROP TABLE public.{quoted(table.name)}", database)
        self._run(f"CREATE TABLE public.{quoted(table.name)} (n int)", database)
        database.tables[database.tables.index(table)] = new = Table(table.name)
        self._scan(database, [new])

    def rename_table(self) -> None:
        table = self._table()
        name = f"renamed {next(self.names)}"
        self._run(f"ALTER TABLE public.{quoted(table.name)} RENAME TO {quoted(name)}", self._of(table))
        table.name, table.renamed = name, True

    def swap_tables(self) -> None:
        """Two tables of a database exchange their names."""
        database = self.draw.choice(self.databases)
        one, other = self.draw.sample(database.tables, 2)
        rename = "ALTER TABLE public.{} RENAME TO {}"
        for before, after in ((one.name, "meanwhile"), (other.name, one.name), ("meanwhile", other.name)):
            self._run(rename.format(quoted(before), quoted(after)), database)
        one.name, other.name = other.name, one.name
        one.renamed = other.renamed = True

    def swap_databases(self) -> None:
        """Two databases exchange their names."""
        if len(self.databases) > 1:
            one, other = self.draw.sample(self.databases, 2)
            for before, after in ((one.name, "meanwhile"), (other.name, one.name), ("meanwhile", other.name)):
                self.server.value(f"ALTER DATABASE {quoted(before)} RENAME TO {quoted(after)}")
            one.name, other.name = other.name, one.name
            for table in (*one.tables, *other.tables):
                table.renamed = True

    def make_database(self) -> None:
        if len(self.databases) < 5:
            name = self.draw.choice(("dév", "shop ", 'a"b', "\\xe4")) + str(next(self.names))
            encoding = self.draw.choice(("UTF8", "LATIN1", "SQL_ASCII"))
            self.server.value(f"CREATE DATABASE {quoted(name)} ENCODING '{encoding}' TEMPLATE template0")
            self.databases.append(Database(name))
            for _table in range(2):
                self.new_table(self.databases[-1])

    def drop_database(self) -> None:
        if len(self.databases) > 2:
            gone = self.databases.pop(self.draw.randrange(len(self.databases)))
            self.server.value(f"DROP DATABASE {quoted(gone.name)}")

    def nameless_database(self) -> None:
        """A database whose name is no text comes or goes."""
        with self.server.connect("latin") as session:
            session.execute("SET client_encoding = 'LATIN1'")
            there = session.execute("SELECT count(*) FROM pg_database WHERE datname = chr(228)").fetchone()
            session.execute(
                b'DROP DATABASE "\xe4"' if there == (1,) else b'CREATE DATABASE "\xe4" TEMPLATE template0'
            )

    def reset_database(self) -> None:
        database = self.draw.choice(self.databases)
        self._run("SELECT pg_stat_reset()", database)
        self._afresh(database, database.tables)

    def reset_table(self) -> None:
        table = self._table()
        oid = quoted(table.name).replace("'", "''")
        self._run(f"SELECT pg_stat_reset_single_table_counters('public.{oid}'::regclass)", self._of(table))
        self._afresh(self._of(table), [table])

    def reset_shared(self) -> None:
        for kind in ("bgwriter", "archiver", "wal"):
            self.server.value(f"SELECT pg_stat_reset_shared('{kind}')")

    def restart(self) -> None:
        self.server.stop()
        self.server.start()

    def crash(self) -> None:
        """All statistics are lost. Not the samples: the last ones would be as well, since nobody waits for them to be
        on disk."""
        self.server.value("CHECKPOINT")
        self.server.kill()
        self.server.start()
        for database in self.databases:
            self._afresh(database, database.tables)

    def hostile_defaults(self) -> None:
        what = self.draw.choice(HOSTILE)
        whose = self.draw.choice((f"DATABASE {quoted(self.draw.choice(self.databases).name)}", "ROLE pgops"))
        self.server.value(f"ALTER {whose} SET {what}")

    def usual_defaults(self) -> None:
        for database in self.databases:
            self.server.value(f"ALTER DATABASE {quoted(database.name)} RESET ALL")

    # what the agent does

    def measure(self) -> None:
        """A collection that nothing hinders."""
        outcome = self._collected()
        assert outcome["errors"] == []
        assert outcome["spooled"] == 0

    def measure_without_connections(self) -> None:
        """Clients have taken all connections but those reserved for superusers: the agent is refused."""
        self.runs.last.clear()
        with contextlib.ExitStack() as taken:
            with contextlib.suppress(psycopg.OperationalError):
                while True:
                    taken.enter_context(self.server.connect("postgres", user="client"))
            with contextlib.suppress(PgOpsError):
                assert collect(self.server, self.state, runs=self.runs)["errors"]
        until(
            lambda: self.server.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'client'") == 0, "free"
        )

    def measure_onto_a_full_disk(self) -> None:
        """The ops database has no room: what is measured waits. After a restart nobody can even connect to it."""
        if self.small:
            disks.fill(self.small)
            with contextlib.suppress(LoginRefused):
                assert self._collected()["dropped"] == 0
            (self.small / "filler").unlink()

    def _collected(self) -> dict[str, Any]:
        self.runs.last.clear()  # all are due, however little time has passed
        since = self._now()
        outcome = collect(self.server, self.state, runs=self.runs)
        grown = {}
        for database in self.databases:
            least = most = 0
            for table in database.tables:
                step = 0 if table.seen is None else table.counted if table.afresh else table.counted - table.seen
                most += step
                least += 0 if table.renamed else step
                table.seen, table.afresh, table.renamed = table.counted, False, False
            grown[encoding.readable(database.name)] = (least, most)
        self.passes.append(Pass(since, self._now(), grown))
        return outcome

    def settle(self) -> None:
        """The end: nothing is in the way any more, and all jobs run."""
        self.server.value("ALTER ROLE pgops RESET ALL")
        self.measure()
        configuration, layout = configured(self.server, self.state)
        assert inspect(self.server, self.state)["errors"] == []
        assert partitions.maintain(configuration)["errors"] == []
        for _run in range(2):
            assert queries.collect(configuration, layout)["errors"] == []

    # by which it is done

    def _table(self) -> Table:
        return self.draw.choice([table for database in self.databases for table in database.tables])

    def _of(self, table: Table) -> Database:
        return next(one for one in self.databases if table in one.tables)

    def _run(self, statement: str, database: Database) -> None:
        self.server.value(statement, database.name)

    def _now(self) -> datetime:
        return cast("datetime", self.server.value("SELECT clock_timestamp()"))

    def _scan(self, database: Database, tables: Sequence[Table]) -> None:
        with self.server.connect(database.name) as session:
            for table in tables:
                for _scan in range(MOST_RESETS - table.resets):
                    session.execute(f"SELECT count(*) FROM public.{quoted(table.name)}".encode())

    def _afresh(self, database: Database, tables: Sequence[Table]) -> None:
        for table in tables:
            table.counted, table.afresh, table.resets = 0, True, table.resets + 1
            assert table.resets < MOST_RESETS
        self._scan(database, tables)


def quoted(name: str) -> str:
    doubled = name.replace('"', '""')
    return f'"{doubled}"'


OFTEN = (World.insert,) * 6 + (World.measure,) * 5
SOMETIMES = (
    *(World.make_table, World.drop_table, World.replace_table, World.rename_table, World.swap_tables),
    *(World.swap_databases, World.make_database, World.drop_database, World.nameless_database),
    *(World.reset_database, World.reset_table, World.reset_shared, World.restart, World.crash),
    *(
        World.hostile_defaults,
        World.usual_defaults,
        World.measure_without_connections,
        World.measure_onto_a_full_disk,
    ),
)


@pytest.fixture(name="small")
def _small(root: Path) -> Iterator[Path | None]:
    with disks.small(root / "small", "120m") as mounted:
        yield root / "small" if mounted else None


@pytest.fixture(name="world")
def _world(
    major: int, new_server: Callable[..., Server], small: Path | None, tmp_path: Path, request: pytest.FixtureRequest
) -> World:
    if major not in (15, *majors()[-1:]):
        pytest.skip("on 15 and the newest")
    server = new_server(major, settings=SETTINGS).start()
    deploy(server)
    more = {**STATEMENTS, "configure": False, "restart": "never", "prefix": str(tmp_path)}
    statements.converge(target(server), more, False)
    for what in HOSTILE:  # not for the sessions of the test
        name = what.split()[0]
        usual = str(server.value(f"SELECT current_setting('{name}')")).replace("'", "''")
        server.value(f"ALTER ROLE postgres SET {name} TO {usual if name == 'search_path' else repr(usual)}")
    server.value("CREATE ROLE client LOGIN")
    server.value("CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
    if small:
        server.run("true")
        shutil.chown(small, server.os_user)
        server.value(f"CREATE TABLESPACE small LOCATION '{small}'")
        server.value("ALTER DATABASE pgops SET TABLESPACE small")
    world = World(server, tmp_path, small, request.param)
    for _database in range(2):
        world.make_database()
    return world


@pytest.mark.slow
@pytest.mark.every_major(since=15)
@pytest.mark.parametrize("world", [1, 2], indirect=True)
def test_every_increase_is_what_happened(world: World) -> None:
    world.measure()
    for _round in range(ROUNDS):
        action = world.draw.choice(OFTEN if world.draw.random() < 0.6 else SOMETIMES)
        world.done.append(action.__name__)
        try:
            action(world)
        except BaseException as error:
            raise AssertionError(f"after {len(world.done)} actions, {world.done[-8:]}") from error
    world.settle()
    with world.server.connect("pgops") as session:
        stored = session.execute(STORED.encode()).fetchall()
    found = [dict.fromkeys(one.grown, 0.0) for one in world.passes]
    for database, ended_at, increase in stored:
        (number,) = [at for at, one in enumerate(world.passes) if one.since <= ended_at <= one.until]
        found[number][database] += increase
    wrong = {
        (number, database): (seen, one.grown[database])
        for number, (one, sums) in enumerate(zip(world.passes, found))
        for database, seen in sums.items()
        if not one.grown[database][0] <= seen <= one.grown[database][1]
    }
    assert wrong == {}
    assert sum(seen for sums in found for seen in sums.values()) > 0
