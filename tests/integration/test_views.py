# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The views of the ops database, against hand-written queries, by whoever may read them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from deploying import deploy, withdraw
from servers import Server, until


@pytest.fixture(name="deployed")
def _deployed(server: Server) -> Iterator[Server]:
    deploy(server)
    yield server
    withdraw(server)


def test_a_blocked_session_is_counted_and_a_reader_sees_no_guess(deployed: Server, database: str) -> None:
    select = "SELECT active_connections, blocked_connections FROM pgops.real_time_performance"
    deployed.value("CREATE TABLE public.one ()", database)
    with ThreadPoolExecutor() as threads, deployed.connect(database) as holder, deployed.connect("pgops") as asking:
        holder.execute("BEGIN; LOCK TABLE public.one")
        waits = threads.submit(deployed.value, "BEGIN; LOCK TABLE public.one; ROLLBACK", database)
        until(lambda: deployed.value("SELECT count(*) FROM pg_locks WHERE NOT granted") == 1, "waiting")
        try:
            for role, seen in (("pgops", (1, 1)), ("pgops_reader", (None, 1)), ("postgres", (1, 1))):
                asking.execute(f"SET ROLE {role}".encode())
                assert asking.execute(select.encode()).fetchone() == seen
        finally:
            holder.execute("ROLLBACK")
            waits.result(10)


def test_totals_are_those_of_the_server(deployed: Server) -> None:
    row = "SELECT (database_size_gb, total_deadlocks)::text FROM pgops.real_time_performance"
    oracle = """SELECT ((SELECT sum(pg_database_size(oid)) / 1073741824.0 FROM pg_database),
                        (SELECT sum(deadlocks) FROM pg_stat_database))::text"""
    assert deployed.value(row, "pgops") == deployed.value(oracle, "pgops")


def test_a_reader_sees_the_nodes(deployed: Server) -> None:
    with deployed.connect("pgops") as asking:
        asking.execute("SET ROLE pgops_reader")
        assert asking.execute("SELECT node, cluster FROM pgops.nodes").fetchall() == [("db1/main", "shop")]
