# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who blocks whom, as the view of the ops database shows it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from deploying import deploy
from psycopg.rows import dict_row
from servers import Server
from waiting import PATIENCE, until

SECRET = "SELECT 'a secret' FROM public.one"


@pytest.fixture(name="sessions")
def _sessions(deployed: Server, database: str) -> Iterator[Callable[[], psycopg.Connection]]:
    """Opens sessions in a database that has the empty tables one and two; each is in a transaction."""
    deployed.value("CREATE TABLE public.one (n int); CREATE TABLE public.two ()", database)
    with contextlib.ExitStack() as opened:

        def begin() -> psycopg.Connection:
            session = opened.enter_context(deployed.connect(database, application_name="shop"))
            # Ends what waits where a test fails before it lets go.
            session.execute("SET lock_timeout = '180s'")
            session.execute("BEGIN")
            return session

        yield begin


def pid(session: psycopg.Connection) -> int:
    return session.info.backend_pid


def rows(server: Server, role: str = "pgops", database: str = "pgops") -> list[dict[str, Any]]:
    """The view's rows in its order, as a role sees them."""
    with server.connect(database) as asking:
        asking.execute(f"SET ROLE {role}".encode())
        return asking.cursor(row_factory=dict_row).execute("SELECT * FROM pgops.blocking_tree").fetchall()


def queued(server: Server, threads: ThreadPoolExecutor, session: psycopg.Connection, statement: str) -> Future[Any]:
    """Has a session wait for a lock."""
    before = f"SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = {pid(session)} AND waitstart IS NOT NULL"
    waits = threads.submit(session.execute, statement.encode())
    until(lambda: server.value(before), "waiting", 1)
    return waits


@pytest.mark.every_major
def test_a_queue_behind_an_alter_table(
    deployed: Server, sessions: Callable[[], psycopg.Connection], database: str
) -> None:
    first, alter, last = sessions(), sessions(), sessions()
    began = time.monotonic()
    first.execute(SECRET.encode())
    with ThreadPoolExecutor() as threads:
        altering = queued(deployed, threads, alter, "ALTER TABLE public.one ADD m int")
        reading = queued(deployed, threads, last, SECRET)
        found, seen_by_reader = rows(deployed), rows(deployed, "pgops_reader")
        relation = deployed.value("SELECT 'public.one'::regclass::oid::text", database)
        first.execute("COMMIT")
        altering.result(PATIENCE)
        alter.execute("COMMIT")
        reading.result(PATIENCE)
    pids = [pid(first), pid(alter), pid(last)]
    assert [(row["pid"], row["depth"], row["path"], row["blocked_by"], row["blocks"]) for row in found] == [
        (pids[0], 0, pids[:1], [], 2),
        (pids[1], 1, pids[:2], pids[:1], 1),
        (pids[2], 2, pids, pids[1:2], 0),
    ]
    assert [(row["lock_mode"], row["relation"], row["holds_modes"]) for row in found] == [
        (None, None, ["AccessShareLock"]),
        ("AccessExclusiveLock", relation, None),
        ("AccessShareLock", relation, None),
    ]
    assert [row["state"] for row in found] == ["idle in transaction", "active", "active"]
    assert {(row["usename"], row["datname"], row["application_name"]) for row in found} == {
        ("postgres", database, "shop")
    }
    assert 0 <= found[2]["waits_seconds"] <= found[1]["waits_seconds"] < time.monotonic() - began
    assert [row["query"] for row in found] == [SECRET, "ALTER TABLE public.one ADD m int", SECRET]
    assert [row["pid"] for row in seen_by_reader] == pids
    assert {row["query"] for row in seen_by_reader} == {"<insufficient privilege>"}
    assert {row["state"] for row in seen_by_reader} == {None}
    assert rows(deployed) == []


def test_each_of_a_long_exclusive_queue_is_there_once(
    deployed: Server, sessions: Callable[[], psycopg.Connection]
) -> None:
    holder, *others = [sessions() for _ in range(12)]
    holder.execute("LOCK TABLE public.one")
    with ThreadPoolExecutor(12) as threads:
        waits = [queued(deployed, threads, other, "LOCK TABLE public.one; COMMIT") for other in others]
        found = rows(deployed)
        holder.execute("COMMIT")
        for one in waits:
            one.result(PATIENCE)
    assert sorted(row["pid"] for row in found) == sorted(pid(one) for one in [holder, *others])
    assert (found[0]["pid"], found[0]["blocks"]) == (pid(holder), 11)
    (last,) = [row for row in found if row["pid"] == pid(others[-1])]
    # All before it block it, and it hangs below the one that has the lock.
    assert len(last["blocked_by"]) == 11
    assert last["path"] == [pid(holder), pid(others[-1])]


def test_a_row_that_somebody_changed_names_its_table(
    deployed: Server, sessions: Callable[[], psycopg.Connection]
) -> None:
    deployed.value("CREATE TABLE public.mine AS SELECT 1 AS n", "pgops")
    change = "UPDATE public.mine SET n = n + 1"
    with (
        deployed.connect("pgops") as first,
        deployed.connect("pgops", options="-c lock_timeout=180s") as second,
        ThreadPoolExecutor() as threads,
    ):
        pids = [pid(first), pid(second)]
        first.execute(f"BEGIN; {change}".encode())
        waits = queued(deployed, threads, second, change)
        found = rows(deployed)
        first.execute("COMMIT")
        waits.result(PATIENCE)
    assert [(row["pid"], row["lock_type"], row["relation"]) for row in found] == [
        (pids[0], None, None),
        (pids[1], "transactionid", "public.mine"),
    ]


def test_a_circle_of_waiting_sessions_is_shown(deployed: Server, sessions: Callable[[], psycopg.Connection]) -> None:
    first, second, third = sessions(), sessions(), sessions()
    pids = [pid(first), pid(second), pid(third)]
    for session in (first, second):
        session.execute("SET LOCAL deadlock_timeout = '1h'")
    first.execute("LOCK TABLE public.one")
    second.execute("LOCK TABLE public.two")
    with ThreadPoolExecutor() as threads:
        crossing = queued(deployed, threads, first, "LOCK TABLE public.two")
        waits = queued(deployed, threads, second, "LOCK TABLE public.one")
        queued(deployed, threads, third, "LOCK TABLE public.one; COMMIT")
        found = rows(deployed)
        deployed.value(f"SELECT pg_terminate_backend({pid(first)})")
        with pytest.raises(psycopg.OperationalError):
            crossing.result(PATIENCE)
        waits.result(PATIENCE)
        second.execute("COMMIT")
    assert sorted(row["pid"] for row in found) == sorted(pids)
    top, other = sorted(pids[:2])
    assert (found[0]["pid"], found[0]["depth"], found[0]["blocks"]) == (top, 0, 2)
    assert found[0]["blocked_by"] == [other]


def test_a_prepared_transaction_blocks(major: int, new_server: Callable[..., Server]) -> None:
    server = new_server(major, settings={"max_prepared_transactions": "2"}).start()
    deploy(server)
    server.value("CREATE TABLE public.one (n int)", "pgops")
    server.value("CREATE TABLE public.two (n int)", "pgops")
    with server.connect("pgops") as preparing:
        for table, name in (("two", "harmless"), ("one", "left over")):
            preparing.execute(f"BEGIN; LOCK TABLE public.{table}; PREPARE TRANSACTION '{name}'".encode())
    with server.connect("pgops", options="-c lock_timeout=180s") as waiting, ThreadPoolExecutor() as threads:
        waiter = pid(waiting)
        waits = queued(server, threads, waiting, "SELECT FROM public.one")
        found = rows(server)
        server.value("ROLLBACK PREPARED 'left over'", "pgops")
        waits.result(PATIENCE)
    assert [(row["pid"], row["path"], row["blocked_by"]) for row in found] == [
        (0, [0], []),
        (waiter, [0, waiter], [0]),
    ]
    assert (found[0]["state"], found[0]["prepared"], found[0]["query"]) == (
        "prepared transaction",
        ["left over"],
        None,
    )
    assert found[0]["holds_modes"] == ["AccessExclusiveLock"]
    assert (found[1]["relation"], found[1]["prepared"]) == ("public.one", None)
