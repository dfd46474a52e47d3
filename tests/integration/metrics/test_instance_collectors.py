# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What each collector of an instance tells the agent's role, against the server's own figures and provoked events."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import clusters
import psycopg
import pytest
from deploying import SHIPPED, deploy, target
from majors import EVERY_MAJOR, make_server
from servers import Server
from waiting import PATIENCE, until

from pgops.facts import engine
from pgops.metrics.collectors import Collector, wrapped
from pgops.metrics.rounds import told_apart
from pgops.server.session import connect

SETTINGS = {
    "archive_command": "true",
    "archive_mode": "on",
    "autovacuum": "off",
    "checkpoint_timeout": "1h",
    "max_prepared_transactions": "5",
    "wal_level": "logical",
}
STANDBY = {
    "hot_standby_feedback": "on",
    "wal_receiver_status_interval": "1",
    "wal_retrieve_retry_interval": "200ms",
}
FILL = "CREATE TABLE {} AS SELECT g, repeat('x', 100) AS filler FROM generate_series(1, 20000) AS g"
COUNTED = {
    "transactions_committed": "xact_commit",
    "transactions_rolled_back": "xact_rollback",
    "blocks_hit": "blks_hit",
    "blocks_read": "blks_read",
    "temp_files": "temp_files",
    "temp_bytes": "temp_bytes",
    "tuples_returned": "tup_returned",
    "tuples_fetched": "tup_fetched",
    "tuples_inserted": "tup_inserted",
    "tuples_updated": "tup_updated",
    "tuples_deleted": "tup_deleted",
    "conflicts": "conflicts",
    "sessions_established": "sessions",
    "sessions_abandoned": "sessions_abandoned",
    "sessions_fatal": "sessions_fatal",
    "sessions_killed": "sessions_killed",
    "active_time_ms": "active_time",
    "idle_in_transaction_time_ms": "idle_in_transaction_time",
}


@dataclass
class Pair:
    """A primary and its standby, both with the agent's role."""

    primary: Server
    standby: Server


@pytest.fixture(name="pair", scope="module", params=EVERY_MAJOR)
def _pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    with make_server(request.param, settings=SETTINGS, initdb=("--data-checksums",)) as primary:
        deploy(primary)
        with primary.standby(STANDBY) as standby:
            clusters.streaming(primary)
            yield Pair(primary, standby)


@pytest.fixture(name="primary")
def _primary(pair: Pair) -> Server:
    return pair.primary


@pytest.fixture(name="shop")
def _shop(primary: Server) -> Iterator[str]:
    with primary.database() as name:
        yield name


def applying(server: Server) -> list[Collector]:
    """The shipped collectors of an instance that the agent's role runs on this server."""
    recovering = bool(server.value("SELECT pg_is_in_recovery()"))
    return [one for one in SHIPPED if one.rights == "monitor" and one.applies(server.major, recovering)]


def rows(server: Server, name: str) -> list[dict[str, Any]]:
    """What a collector gives: the one of that name, or its twin for older versions."""
    (found,) = [one for one in applying(server) if one.name.split("_to_")[0] == name]
    with connect(target(server, user="pgops")) as session:
        given = session.documents(wrapped(found.query))
    assert told_apart(found, given)[1] == []
    return given


def row(server: Server, name: str, **labels: str) -> dict[str, Any]:
    """The only row with those labels."""
    (found,) = [one for one in rows(server, name) if labels.items() <= one.items()]
    return found


def own_row(server: Server, query: str) -> dict[str, Any]:
    """The row of one of the server's own views, as the superuser."""
    found = server.value(f"SELECT to_jsonb(found) FROM ({query}) AS found")
    assert isinstance(found, dict)
    return found


@contextlib.contextmanager
def busy(server: Server, statement: str, dbname: str = "postgres", before: str = "") -> Iterator[int]:
    """A session that runs a statement until the end of the `with`; its process id."""
    session = server.connect(dbname)
    try:
        session.execute(before.encode())
        session.pgconn.send_query(statement.encode())
        pid = session.pgconn.backend_pid
        until(lambda: server.value(f"SELECT state FROM pg_stat_activity WHERE pid = {pid}"), "active", "active")
        yield pid
        server.value(f"SELECT pg_terminate_backend({pid}, 10000)")
    finally:
        session.close()


def burn(server: Server, count: int) -> None:
    """Use up transaction ids."""
    with server.connect() as session:
        for _one in range(count):
            session.execute("SELECT pg_current_xact_id()")


@pytest.mark.every_major
def test_every_collector_runs_on_both_roles(pair: Pair) -> None:
    for server in (pair.primary, pair.standby):
        collectors = applying(server)
        assert {"activity", "slots", "xmin_horizon"} <= {one.name for one in collectors}
        with connect(target(server, user="pgops", database="pgops")) as session:  # some read our own views
            session.execute("SET default_transaction_read_only = on")
            for one in collectors:
                given = session.documents(wrapped(one.query))
                assert told_apart(one, given)[1] == []
                for found in given:
                    values = [found[metric.name] for metric in one.metrics]
                    assert all(type(value) in (int, float, type(None)) for value in values), (one.name, found)


def test_a_running_statement_is_an_active_connection(primary: Server, shop: str) -> None:
    assert row(primary, "activity", database=shop)["active_connections"] == 0
    with busy(primary, "SELECT pg_sleep(60)", shop):
        assert row(primary, "activity", database=shop)["active_connections"] == 1


def test_sizes_are_those_of_the_server(primary: Server, shop: str) -> None:
    primary.value(FILL.format("public.one"), shop)
    size = primary.value(f"SELECT pg_database_size('{shop}')")
    found = row(primary, "database_size", database=shop)["database_size_mb"]
    assert found * 1048576 == pytest.approx(size, rel=1e-9)


@pytest.mark.every_major
def test_temporary_files_are_seen_while_they_grow(primary: Server, shop: str) -> None:
    def used() -> float:
        return float(row(primary, "temporary_files", tablespace="pg_default")["temp_files_now_mb"])

    with primary.connect(shop) as session, session.transaction():
        session.execute("SET LOCAL work_mem = '64kB'; SET LOCAL max_parallel_workers_per_gather = 0")
        session.execute(
            "DECLARE sorted CURSOR FOR SELECT md5(n::text) FROM generate_series(1, 200000) AS n ORDER BY 1"
        )
        session.execute("FETCH 1 FROM sorted")
        assert used() > 5
    assert used() < 5


def test_a_database_that_lets_nobody_in_any_more_is_measured(primary: Server, shop: str) -> None:
    with busy(primary, "SELECT pg_sleep(600)", shop):
        primary.value(f"ALTER DATABASE {shop} ALLOW_CONNECTIONS false")
        try:
            total = sum(one["database_size_mb"] for one in rows(primary, "database_size")) * 1048576
            assert total == pytest.approx(
                primary.value("SELECT sum(pg_database_size(oid)) FROM pg_database"), rel=0.01
            )
            until(lambda: row(primary, "activity", database=shop)["active_connections"], "active", 1)
            for name in ("locks", "transactions", "prepared_transactions", "blocking", "database_activity"):
                assert row(primary, name, database=shop), name
        finally:
            primary.value(f"ALTER DATABASE {shop} ALLOW_CONNECTIONS true")


def test_a_database_that_is_dropped_meanwhile_costs_the_others_nothing(primary: Server) -> None:
    (found,) = [one for one in applying(primary) if one.name == "database_size"]
    primary.value("CREATE DATABASE going")
    with primary.connect("pgops") as asking, asking.transaction():
        asking.execute("SET LOCAL ROLE pgops")
        asking.execute(f"DECLARE size CURSOR FOR {found.query}".encode())
        first = asking.execute("FETCH 1 FROM size").fetchall()
        primary.value("DROP DATABASE going")
        asking.execute("SELECT FROM pg_enum")  # a lock on something new, with which the session hears of the others
        sizes = dict(first + asking.execute("FETCH ALL FROM size").fetchall())
    assert sizes.pop("going") is None
    assert {"pgops", "postgres", "template1"} <= sizes.keys()
    assert all(sizes.values())


def test_one_that_waits_is_a_waiting_lock(primary: Server, shop: str) -> None:
    primary.value("CREATE TABLE public.one ()", shop)
    with primary.connect(shop) as holder:
        holder.execute("BEGIN; LOCK TABLE public.one")
        with busy(primary, "LOCK TABLE public.one", shop, "BEGIN"):
            until(lambda: row(primary, "locks", database=shop)["waiting_locks"], "waiting", 1)
    assert row(primary, "locks", database=shop)["waiting_locks"] == 0


def test_locks_that_are_held_are_counted_by_mode(primary: Server, shop: str) -> None:
    def held() -> dict[str, int]:
        return {one["mode"]: one["granted_locks"] for one in rows(primary, "locks") if one["mode"]}

    before = held()
    with primary.connect(shop) as one, primary.connect(shop) as other:
        one.execute("CREATE TABLE public.one ()")
        for session in (one, other):
            session.execute("BEGIN; LOCK TABLE public.one IN SHARE MODE")
        with busy(primary, "LOCK TABLE public.one IN ROW EXCLUSIVE MODE", shop, "BEGIN"):
            until(lambda: row(primary, "locks", database=shop)["waiting_locks"], "waiting", 1)
            after = held()
    changed = {mode: after[mode] - count for mode, count in before.items() if after[mode] != count}
    assert changed == {"ShareLock": 2}
    assert len(before) == 9


def test_prepared_transactions_age(primary: Server, shop: str) -> None:
    primary.psql("BEGIN; CREATE TABLE public.one (); PREPARE TRANSACTION 'left'", shop)
    try:
        first = row(primary, "prepared_transactions", database=shop)
        since = primary.value("SELECT extract(epoch FROM clock_timestamp() - prepared) FROM pg_prepared_xacts")
        again = row(primary, "prepared_transactions", database=shop)
        held = row(primary, "xmin_horizon", holder="prepared")["xmin_age"]
        burn(primary, 5)
        assert row(primary, "xmin_horizon", holder="prepared")["xmin_age"] == held + 5
    finally:
        primary.value("ROLLBACK PREPARED 'left'", shop)
    ages = [first["oldest_prepared_transaction_seconds"], again["oldest_prepared_transaction_seconds"]]
    assert first["prepared_transactions"] == 1
    assert 0 < ages[0] <= float(str(since)) <= ages[1]
    none = row(primary, "prepared_transactions", database=shop)
    assert (none["prepared_transactions"], none["oldest_prepared_transaction_seconds"]) == (0, 0)
    assert row(primary, "xmin_horizon", holder="prepared")["xmin_age"] == 0


def test_ages_count_transactions(primary: Server) -> None:
    before = row(primary, "wraparound", database="postgres")
    burn(primary, 10)
    after = row(primary, "wraparound", database="postgres")
    assert after["xid_age"] == before["xid_age"] + 10
    assert after["xid_wraparound_percent"] == pytest.approx(100 * after["xid_age"] / 2**31)
    assert after["xid_freeze_lag_percent"] == pytest.approx(100 * after["xid_age"] / 200_000_000)
    assert after["multixact_age"] == primary.value(
        "SELECT mxid_age(datminmxid) FROM pg_database WHERE datname = 'postgres'"
    )
    assert {"template0", "template1", "pgops"} <= {found["database"] for found in rows(primary, "wraparound")}


def test_both_roles_name_the_paths_of_their_own_disks(pair: Pair) -> None:
    (found,) = [one for one in SHIPPED if one.name == "disks"]
    for server in (pair.primary, pair.standby):
        with connect(target(server, user="pgops")) as session:
            paths = {row["disk"]: row["path"] for row in session.documents(wrapped(found.query))}
        assert paths == {"data": str(server.data_dir), "wal": f"{server.data_dir}/pg_wal"}


def test_who_holds_back_vacuum_is_named(pair: Pair) -> None:
    primary = pair.primary
    assert row(primary, "xmin_horizon", holder="session")["xmin_age"] == 0
    primary.value("SELECT pg_create_logical_replication_slot('held', 'test_decoding')")
    with pair.standby.connect() as reader:
        reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
        fed = "SELECT backend_xmin IS NOT NULL FROM pg_stat_replication"
        until(lambda: primary.value(fed), "fed back")
        with primary.connect() as session:
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
            burn(primary, 7)
            ages = {found["holder"]: found["xmin_age"] for found in rows(primary, "xmin_horizon")}
    primary.value("SELECT pg_drop_replication_slot('held')")
    assert (ages["session"], ages["prepared"], ages["slot"]) == (7, 0, 0)
    assert ages["standby"] >= 7
    assert ages["slot_catalog"] >= 7


@pytest.mark.every_major
def test_a_slot_keeps_wal_until_it_is_lost(primary: Server) -> None:
    primary.value("SELECT pg_create_physical_replication_slot('behind', true)")
    primary.value("SELECT pg_create_logical_replication_slot('held', 'test_decoding')")
    try:
        burn(primary, 1)
        assert row(primary, "xmin_horizon", holder="slot_catalog")["xmin_age"] > 0
        before = row(primary, "slots", slot="behind")
        primary.value("SELECT pg_logical_emit_message(true, 'test', repeat('x', 500000))")
        kept = "SELECT pg_current_wal_lsn() - restart_lsn FROM pg_replication_slots WHERE slot_name = 'behind'"
        least: Any = primary.value(kept)
        after = row(primary, "slots", slot="behind")
        most: Any = primary.value(kept)
        assert least <= after["slot_retained_bytes"] <= most
        assert after["slot_retained_bytes"] >= before["slot_retained_bytes"] + 500_000
        assert (after["slot_type"], after["slot_active"], after["slot_wal_status"]) == ("physical", 0, 0)
        assert (after["slot_invalidated"], after["slot_safe_wal_bytes"]) == (0, None)
        assert (after["slot_inactive_seconds"] is not None) == (primary.major >= 17)
        primary.value("ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'")
        primary.value("ALTER SYSTEM SET wal_keep_size = 0")
        primary.reload()
        for _segment in range(3):
            primary.psql("SELECT pg_logical_emit_message(false, 'test', 'x'); SELECT pg_switch_wal()")
        flushed = "SELECT flush_lsn = pg_current_wal_flush_lsn() FROM pg_stat_replication"
        until(lambda: primary.value(flushed), "flushed")  # or the standby would be lost as well
        primary.value("CHECKPOINT")
        lost = row(primary, "slots", slot="behind")
        assert (lost["slot_wal_status"], lost["slot_invalidated"], lost["slot_retained_bytes"]) == (3, 1, None)
        # It shows what it held, and holds it no more.
        shown = "SELECT catalog_xmin IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'held'"
        assert primary.value(shown) is True
        assert row(primary, "xmin_horizon", holder="slot_catalog")["xmin_age"] == 0
    finally:
        primary.value("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
        primary.value("ALTER SYSTEM RESET ALL")
        primary.reload()


@pytest.mark.every_major(since=16)  # before, there is no other reason
def test_a_slot_that_is_lost_for_another_reason_keeps_no_wal(pair: Pair) -> None:
    primary, standby = pair.primary, pair.standby
    standby.value("ALTER SYSTEM SET hot_standby_feedback = off")
    standby.value("SELECT pg_reload_conf()")
    until(lambda: primary.value("SELECT backend_xmin IS NULL FROM pg_stat_replication"), "let go")
    with contextlib.closing(standby.connect()) as session:
        session.pgconn.send_query(b"SELECT pg_create_logical_replication_slot('decoded', 'test_decoding')")

        def made() -> bool:
            primary.value("SELECT pg_log_standby_snapshot()")  # which it waits for
            return standby.value("SELECT confirmed_flush_lsn IS NOT NULL FROM pg_replication_slots") is True

        until(made, "made")
        until(lambda: standby.value("SELECT active FROM pg_replication_slots"), "unused", False)
    try:
        assert row(standby, "slots", slot="decoded")["slot_retained_bytes"] >= 0
        for statement in ("CREATE TABLE public.one ()", "DROP TABLE public.one", "VACUUM pg_class"):
            primary.value(statement)
        until(lambda: row(standby, "slots", slot="decoded")["slot_invalidated"], "lost", 1)
        kept = "SELECT restart_lsn IS NOT NULL FROM pg_replication_slots"
        assert standby.value(kept) is True
        lost = row(standby, "slots", slot="decoded")
        assert (lost["slot_wal_status"], lost["slot_retained_bytes"]) == (3, None)
        with connect(target(standby)) as session:
            (fact,) = engine.replication(session, engine.server(session, "pgops"))["slots"]
        assert (fact["wal_status"], fact["retained_bytes"]) == ("lost", None)
    finally:
        standby.value("SELECT pg_drop_replication_slot('decoded')")
        standby.value("ALTER SYSTEM RESET hot_standby_feedback")
        standby.value("SELECT pg_reload_conf()")


@pytest.mark.every_major
def test_wal_is_counted(primary: Server) -> None:
    before = row(primary, "wal")
    primary.value("SELECT pg_logical_emit_message(true, 'test', repeat('x', 300000))")
    until(lambda: row(primary, "wal")["wal_bytes"] >= before["wal_bytes"] + 300_000, "counted")
    found = row(primary, "wal")
    more = ", wal_fpi_bytes" if primary.major >= 19 else ""
    own = own_row(primary, f"SELECT wal_bytes, wal_records, wal_fpi, wal_buffers_full{more} FROM pg_stat_wal")
    assert found["wal_records"] > before["wal_records"]
    assert all(found[name] == pytest.approx(value, rel=0.01, abs=5) for name, value in own.items())
    assert found["counted_since"]


def test_files_of_wal_are_those_on_disk(primary: Server) -> None:
    found = row(primary, "wal_files")
    files = [one for one in (primary.data_dir / "pg_wal").iterdir() if one.is_file()]
    assert found["wal_files"] == len(files)
    assert found["wal_size_mb"] * 1048576 == sum(one.stat().st_size for one in files)


@pytest.mark.every_major
def test_checkpoints_are_counted_by_why_they_began(primary: Server) -> None:
    before = row(primary, "checkpoints")
    primary.value(FILL.format("public.checked"))
    primary.value("CHECKPOINT")
    expected = before["checkpoints_requested"] + 1
    until(lambda: row(primary, "checkpoints")["checkpoints_requested"], "counted", expected)
    after = row(primary, "checkpoints")
    assert after["checkpoints_timed"] == before["checkpoints_timed"]
    assert after["buffers_checkpoint"] > before["buffers_checkpoint"]
    primary.value("DROP TABLE public.checked")


@pytest.mark.every_major
def test_the_background_writer_is_the_servers_own(primary: Server) -> None:
    names = ["buffers_clean", "maxwritten_clean", "buffers_alloc"]
    names += ["buffers_backend", "buffers_backend_fsync"] if primary.major < 17 else []
    own = f"SELECT {', '.join(names)} FROM pg_stat_bgwriter"
    before, found, after = own_row(primary, own), row(primary, "background_writer"), own_row(primary, own)
    assert all(before[name] <= found[name] <= after[name] for name in names)
    assert found["buffers_alloc"] > 0
    assert found["buffers_backend"] is None or primary.major < 17


@pytest.mark.every_major
def test_a_slow_vacuum_is_seen_on_its_way(primary: Server, shop: str) -> None:
    primary.value(FILL.format("public.one"), shop)
    assert row(primary, "vacuum_progress", operation="VACUUM")["maintenance_running"] == 0
    slow = "SET vacuum_cost_delay = 20; SET vacuum_cost_limit = 1"
    began = time.monotonic()
    with busy(primary, "VACUUM public.one", shop, slow):
        until(lambda: (row(primary, "vacuum_progress", operation="VACUUM")["maintenance_percent"] or 0) > 0, "begun")
        found = row(primary, "vacuum_progress", operation="VACUUM")
    assert found["maintenance_running"] == 1
    assert 0 < found["maintenance_percent"] < 100
    assert 0 < found["maintenance_seconds"] < time.monotonic() - began


def test_of_a_database_that_nobody_has_read_no_ratio_is_known(primary: Server) -> None:
    with primary.database() as untouched:
        found = row(primary, "database_activity", database=untouched)
    assert (found["blocks_hit"], found["blocks_read"], found["cache_hit_ratio"]) == (0, 0, None)


@pytest.mark.every_major
def test_a_database_counts_what_is_done_in_it(primary: Server, shop: str) -> None:
    with busy(primary, "SELECT pg_sleep(60)", shop):
        pass  # ends killed
    with primary.connect(shop) as session, contextlib.suppress(psycopg.errors.DivisionByZero):
        session.execute("SET work_mem = '64kB'")
        session.execute("SET track_io_timing = on")
        session.execute(FILL.format("public.one").encode())
        session.execute("CREATE INDEX ON public.one (filler)")
        session.execute("SELECT 1 / 0")
    own = f"SELECT * FROM pg_stat_database WHERE datname = '{shop}'"
    until(lambda: own_row(primary, own)["xact_rollback"], "counted", 2)
    found, seen = row(primary, "database_activity", database=shop), own_row(primary, own)
    assert found["deadlocks"] == seen["deadlocks"] == 0
    assert found["cache_hit_ratio"] == pytest.approx(100 * seen["blks_hit"] / (seen["blks_hit"] + seen["blks_read"]))
    for name, column in COUNTED.items():
        assert found[name] == seen[column], name
    assert 20000 <= found["tuples_inserted"] < 20100  # a few in the catalogs
    assert found["temp_files"] > 0
    assert found["temp_bytes"] > 100_000
    assert (found["transactions_committed"] > 1, found["transactions_rolled_back"]) == (True, 2)
    assert (found["sessions_established"], found["sessions_killed"], found["sessions_fatal"]) == (2, 1, 0)
    assert found["active_time_ms"] > 0
    assert (found["block_read_time_ms"], found["block_write_time_ms"]) == (None, None)
    primary.value("ALTER ROLE pgops SET track_io_timing = on")
    timed = row(primary, "database_activity", database=shop)
    primary.value("ALTER ROLE pgops RESET track_io_timing")
    assert [timed["block_read_time_ms"], timed["block_write_time_ms"]] == [
        seen["blk_read_time"],
        seen["blk_write_time"],
    ]
    primary.value("SELECT pg_stat_reset()", shop)
    until(lambda: row(primary, "database_activity", database=shop)["tuples_inserted"], "reset", 0)
    again = row(primary, "database_activity", database=shop)["counted_since"]
    assert again is not None
    assert again != found["counted_since"]


def test_sessions_are_counted_by_state(primary: Server, shop: str) -> None:
    states = ("active", "idle", "idle in transaction", "other")
    with primary.connect(shop), primary.connect(shop) as failed, busy(primary, "SELECT pg_sleep(60)", shop):
        with contextlib.suppress(psycopg.errors.DivisionByZero):
            failed.execute("BEGIN; SELECT 1 / 0")
        with primary.connect(shop) as untracked:
            untracked.execute("SET track_activities = off")
            found = {
                state: row(primary, "connections", database=shop, state=state)["connections"] for state in states
            }
            assert row(primary, "activity", database=shop)["active_connections"] == 1
    with primary.connect(shop) as untracked:
        untracked.execute("SET track_activities = off")
        assert row(primary, "activity", database=shop)["active_connections"] is None
    assert found == {"active": 1, "idle": 1, "idle in transaction": 1, "other": 1}


@pytest.mark.every_major
def test_connections_are_compared_with_what_is_not_reserved(primary: Server) -> None:
    def used() -> float:
        (found,) = [one for one in rows(primary, "activity") if one["connections_used_percent"] is not None]
        return float(found["connections_used_percent"])

    # Of 50, 3 are reserved for superusers; the collector's own session is one of those used.
    until(used, "alone", pytest.approx(100 / 47))
    with contextlib.ExitStack() as sessions:
        for _one in range(9):
            sessions.enter_context(primary.connect())
        until(used, "counted", pytest.approx(1000 / 47))


def test_connections_are_compared_with_limits_of_databases_and_roles(primary: Server, shop: str) -> None:
    def limits(label: str) -> dict[str, float]:
        found = rows(primary, "connections")
        share = f"{label}_connections_used_percent"
        # The agent's own role has a limit as well.
        return {one[label]: float(one[share]) for one in found if one[share] is not None and one[label] != "pgops"}

    assert (limits("database"), limits("role")) == ({}, {})
    primary.value(f"ALTER DATABASE {shop} CONNECTION LIMIT 8")
    primary.value("CREATE ROLE clerk LOGIN CONNECTION LIMIT 5; CREATE ROLE retired LOGIN CONNECTION LIMIT 0")
    primary.value("CREATE ROLE boss LOGIN SUPERUSER CONNECTION LIMIT 5")
    try:
        assert (limits("database"), limits("role")) == ({shop: 0}, {"clerk": 0})
        with primary.connect(shop, user="clerk"), primary.connect(shop, user="clerk"), primary.connect(shop):
            assert (limits("database"), limits("role")) == ({shop: 37.5}, {"clerk": 40})
        many = "DO $$BEGIN FOR i IN 1..25 LOOP EXECUTE format('{} ROLE one_%s {}', i); END LOOP; END$$"
        primary.value(many.format("CREATE", "LOGIN CONNECTION LIMIT 3"))
        with primary.connect(shop, user="one_9"):
            found = limits("role")
        primary.value(many.format("DROP", ""))
        assert len(found) == 19
        assert found["one_9"] == pytest.approx(100 / 3)
    finally:
        until(lambda: limits("role")["clerk"], "gone", 0)
        primary.value("DROP ROLE clerk, retired, boss")


def test_transactions_age_but_for_dumps(primary: Server, shop: str) -> None:
    names = [f"longest_{what}_seconds" for what in ("transaction", "idle_in_transaction", "statement")]

    def longest() -> list[float]:
        found = row(primary, "transactions", database=shop)
        return [found[name] for name in names]

    assert longest() == [0, 0, 0]
    began = time.monotonic()
    with primary.connect(shop, application_name="pg_dump") as dump:
        dump.execute("BEGIN; SELECT 1")
        transaction, idle, statement = longest()
        assert (transaction, statement) == (0, 0)
        assert 0 < idle < time.monotonic() - began
    with primary.connect(shop) as client:
        client.execute("BEGIN; SELECT pg_sleep(0.3)")
        transaction, idle, statement = longest()
        assert statement == 0
        assert 0 < idle < transaction - 0.29 < time.monotonic() - began
    began = time.monotonic()
    with busy(primary, "SELECT pg_sleep(60)", shop):
        transaction, idle, statement = longest()
        assert idle == 0
        assert 0 < statement <= time.monotonic() - began
        assert 0 < transaction <= time.monotonic() - began


def test_maintenance_is_a_statement_but_no_long_transaction(primary: Server, shop: str) -> None:
    primary.value(FILL.format("public.one"), shop)
    with busy(primary, "VACUUM public.one", shop, "SET vacuum_cost_delay = 20; SET vacuum_cost_limit = 1"):
        until(lambda: primary.value("SELECT count(*) FROM pg_stat_progress_vacuum"), "begun", 1)
        found = row(primary, "transactions", database=shop)
    assert found["longest_transaction_seconds"] == 0
    assert found["longest_statement_seconds"] > 0


def test_those_that_help_vacuum_hold_back_nobody(primary: Server, shop: str) -> None:
    primary.value("CREATE TABLE public.one AS SELECT g, -g AS h FROM generate_series(1, 20000) AS g", shop)
    primary.value("CREATE INDEX ON public.one (g) WITH (fillfactor = 10)", shop)
    primary.value("CREATE INDEX ON public.one (h) WITH (fillfactor = 10)", shop)
    primary.value("DELETE FROM public.one", shop)
    let_go = "SELECT age(backend_xmin) < 1 FROM pg_stat_replication"
    until(lambda: primary.value(let_go), "let go by the standby")
    slowly = "SET vacuum_cost_delay = 100; SET vacuum_cost_limit = 100; SET min_parallel_index_scan_size = 0"
    workers = "SELECT count(backend_xmin) FROM pg_stat_activity WHERE backend_type = 'parallel worker'"
    with busy(primary, "VACUUM (PARALLEL 2) public.one", shop, slowly):
        until(lambda: primary.value(workers), "helped", 1)
        burn(primary, 3)
        assert row(primary, "xmin_horizon", holder="session")["xmin_age"] == 0
        assert primary.value(workers) == 1


def test_blocked_sessions_and_how_long_they_wait(primary: Server, shop: str) -> None:
    assert row(primary, "blocking", database=shop) == {
        "database": shop,
        "blocked_sessions": 0,
        "blocking_sessions": 0,
        "longest_lock_wait_seconds": 0,
    }
    primary.value("CREATE TABLE public.one ()", shop)
    lock = "LOCK TABLE public.one"
    with primary.connect(shop) as holder:
        holder.execute(f"BEGIN; {lock}".encode())
        with busy(primary, lock, shop, "BEGIN"), busy(primary, lock, shop, "BEGIN"):
            until(lambda: row(primary, "blocking", database=shop)["blocked_sessions"], "waiting", 2)
            # The holder, and the first of those that wait, which the second waits for as well.
            assert row(primary, "blocking", database=shop)["blocking_sessions"] == 2
            until(lambda: row(primary, "blocking", database=shop)["longest_lock_wait_seconds"] > 0.3, "waited")
            waited = "SELECT extract(epoch FROM clock_timestamp() - min(waitstart)) FROM pg_locks"
            found = row(primary, "blocking", database=shop)["longest_lock_wait_seconds"]
            assert found <= float(str(primary.value(waited))) < found + 5
    assert row(primary, "blocking", database=shop)["blocked_sessions"] == 0
    primary.psql(f"BEGIN; {lock}; PREPARE TRANSACTION 'left'", shop)
    try:
        with busy(primary, lock, shop, "BEGIN"):
            until(lambda: row(primary, "blocking", database=shop)["blocked_sessions"], "waiting", 1)
            assert row(primary, "blocking", database=shop)["blocking_sessions"] == 1
    finally:
        primary.value("ROLLBACK PREPARED 'left'", shop)


def written(primary: Server, ago: float, segment: object) -> None:
    """Have the segments of WAL before this one been written last an hour ago, and this one so many seconds ago."""
    moment = time.time()
    for path in (primary.data_dir / "pg_wal").glob("0*"):
        if path.name < str(segment):
            os.utime(path, (moment - 3600, moment - 3600))
        elif path.name == segment:
            os.utime(path, (moment - ago, moment - ago))


def assert_stuck_replay_is_not_called_short(pair: Pair) -> None:
    """While replay is paused, and some WAL is pending."""
    primary, name = pair.primary, pair.standby.directory.name
    segment = primary.value("SELECT pg_walfile_name(replay_lsn + 1) FROM pg_stat_replication")
    measured = "SELECT extract(epoch FROM replay_lag) < 90 FROM pg_stat_replication"  # less than is told below
    assert primary.value(measured) is True
    written(primary, 0, segment)
    assert row(primary, "replication", standby=name)["replication_lag_seconds"] is None
    for ago in (100, 1000):
        began = time.monotonic()
        written(primary, ago, segment)
        found = row(primary, "replication", standby=name)["replication_lag_seconds"]
        assert ago - 1 <= found <= ago + 1 + time.monotonic() - began  # the server sees whole seconds
    assert primary.value(measured) is True


def test_a_standby_that_does_not_replay_falls_behind(pair: Pair) -> None:
    primary, name = pair.primary, pair.standby.directory.name
    (connected,) = [found for found in rows(primary, "replication") if found["standbys_connected"] is not None]
    assert connected["standbys_connected"] == 1

    def lags(*kinds: str) -> list[Any]:
        found = row(primary, "replication", standby=name)
        return [found[f"replication_{kind}"] for kind in kinds]

    # All at once, and again: the server writes a little by itself every 15 seconds.
    until(lambda: lags("lag_bytes", "lag_seconds"), "caught up", [0, 0])
    began = time.monotonic()
    # While WAL is written without a break, it is measured how long replay takes. The last segment is a young one.
    primary.psql("SELECT pg_logical_emit_message(false, 'test', 'x'); SELECT pg_switch_wal()")
    with busy(primary, "DO $$BEGIN LOOP PERFORM pg_logical_emit_message(false, 'test', 'x'); END LOOP; END$$"):
        until(lambda: primary.value("SELECT replay_lag > '0' FROM pg_stat_replication"), "measured")
        found = row(primary, "replication", standby=name)["replication_lag_seconds"]
        assert found is not None
        assert found < time.monotonic() - began
        pair.standby.value("SELECT pg_wal_replay_pause()")
        paused = "SELECT pg_get_wal_replay_pause_state() = 'paused'"
        until(lambda: pair.standby.value(paused), "paused")
    primary.value("SELECT pg_logical_emit_message(true, 'test', repeat('x', 400000))")
    # Nobody writes to the segment any more in which replay stands.
    primary.psql("SELECT pg_logical_emit_message(false, 'test', 'x'); SELECT pg_switch_wal()")
    until(lambda: lags("send_lag_bytes", "write_lag_bytes", "flush_lag_bytes"), "flushed", [0, 0, 0])
    (behind_by,) = lags("lag_bytes")
    until(lambda: row(pair.standby, "standby")["replay_lag_bytes"] >= 400_000, "received")
    behind = row(pair.standby, "standby")
    assert_stuck_replay_is_not_called_short(pair)
    pair.standby.value("SELECT pg_wal_replay_resume()")
    assert 400_000 <= behind_by < 1_000_000_000
    assert (behind["receiver_streaming"], behind["replay_paused"]) == (1, 1)
    assert behind["replay_delay_seconds"] > 0
    until(lambda: row(pair.standby, "standby")["replay_delay_seconds"], "caught up", 0)
    caught = row(pair.standby, "standby")
    assert (caught["replay_lag_bytes"], caught["replay_paused"]) == (0, 0)


def test_a_standby_that_is_late_on_purpose_is_not_late(pair: Pair) -> None:
    primary, standby = pair.primary, pair.standby
    primary.value("SELECT pg_logical_emit_message(true, 'test', 'x')")
    until(lambda: standby.value("SELECT pg_last_xact_replay_timestamp() IS NOT NULL"), "replayed")
    standby.value("ALTER SYSTEM SET recovery_min_apply_delay = '1h'")
    standby.value("SELECT pg_reload_conf()")
    until(lambda: standby.value("SHOW recovery_min_apply_delay"), "reloaded", "1h")
    primary.value("SELECT pg_logical_emit_message(true, 'test', 'x')")
    waits = "SELECT wait_event = 'RecoveryApplyDelay' FROM pg_stat_activity WHERE backend_type = 'startup'"
    until(lambda: standby.value(waits), "waiting")
    early = row(standby, "standby")
    assert (early["replay_delay_seconds"], early["receiver_streaming"]) == (0, 1)
    assert early["replay_lag_bytes"] > 0
    # Not for the delay's sake any more: it counts, but for the delay.
    standby.value("SELECT pg_wal_replay_pause()")
    standby.value("ALTER SYSTEM SET recovery_min_apply_delay = '300ms'")
    standby.value("SELECT pg_reload_conf()")
    until(lambda: standby.value("SELECT pg_get_wal_replay_pause_state() = 'paused'"), "paused")
    primary.value("SELECT pg_logical_emit_message(true, 'test', 'y')")
    until(lambda: row(standby, "standby")["replay_delay_seconds"] > 0.01, "late")
    age = "SELECT extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::float - 0.3"
    before: Any = standby.value(age)
    found = row(standby, "standby")["replay_delay_seconds"]
    after: Any = standby.value(age)
    assert before <= found <= after
    standby.value("SELECT pg_wal_replay_resume()")
    standby.value("ALTER SYSTEM RESET recovery_min_apply_delay")
    standby.value("SELECT pg_reload_conf()")
    until(lambda: row(standby, "standby")["replay_delay_seconds"], "caught up", 0)


def test_one_that_only_receives_is_no_standby(primary: Server) -> None:
    folder = primary.directory / "received"
    command = [str(primary.client("pg_receivewal")), "-D", str(folder), "--no-loop", "--status-interval=1", "-d"]
    folder.mkdir()
    with subprocess.Popen([*command, primary.dsn("", application_name="barman_receive_wal")]) as receiver:
        try:
            streams = "SELECT write_lsn IS NOT NULL FROM pg_stat_replication WHERE application_name LIKE 'barman%'"
            until(lambda: primary.value(streams), "streaming")
            (connected,) = [one for one in rows(primary, "replication") if one["standbys_connected"] is not None]
            assert connected["standbys_connected"] == 1
            found = row(primary, "replication", standby="barman_receive_wal")
            assert found["replication_write_lag_bytes"] is not None
            assert (found["replication_lag_bytes"], found["replication_lag_seconds"]) == (None, None)
        finally:
            receiver.terminate()


@pytest.mark.every_major
def test_what_recovery_cancels_is_counted_by_reason(pair: Pair, shop: str) -> None:
    def counted() -> dict[str, int]:
        return {
            one["reason"]: one["recovery_conflicts"]
            for one in rows(pair.standby, "recovery_conflicts")
            if one["database"] == shop
        }

    pair.primary.psql("CREATE TABLE public.one ()", shop)
    pair.standby.value("ALTER SYSTEM SET max_standby_streaming_delay = 0")
    pair.standby.value("SELECT pg_reload_conf()")
    until(lambda: pair.standby.value("SHOW max_standby_streaming_delay"), "reloaded", "0")
    written = pair.primary.value("SELECT pg_current_wal_lsn()::text")
    until(lambda: pair.standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{written}'"), "replayed")
    with contextlib.suppress(psycopg.OperationalError), pair.standby.connect(shop) as reader:
        reader.execute("BEGIN; SELECT count(*) FROM public.one")
        pair.primary.psql("DROP TABLE public.one", shop)
        until(lambda: counted()["lock"], "cancelled", 1)
    pair.standby.value("ALTER SYSTEM RESET max_standby_streaming_delay")
    pair.standby.value("SELECT pg_reload_conf()")
    found = counted()
    since_16 = {"active_logicalslot": 0 if pair.standby.major >= 16 else None}
    assert found == {"tablespace": 0, "lock": 1, "snapshot": 0, "bufferpin": 0, "deadlock": 0, **since_16}
    assert row(pair.standby, "database_activity", database=shop)["conflicts"] == 1


def test_a_standby_says_whom_it_hears(pair: Pair) -> None:
    standby, name = pair.standby, pair.standby.directory.name
    (found,) = rows(standby, "receiver")
    assert 0 <= found.pop("receiver_message_age_seconds") < standby.age()
    sender = f"{pair.primary.socket_dir}:{pair.primary.port}"
    assert found == {"application_name": name, "slot": None, "sender": sender}
    other = pair.primary.dsn("") + " application_name=''the second''"
    for change, known_as in ((f"SET primary_conninfo = '{other}'", "the second"), ("RESET primary_conninfo", name)):
        standby.value(f"ALTER SYSTEM {change}")
        standby.value("SELECT pg_reload_conf()")
        until(lambda: [one["application_name"] for one in rows(standby, "receiver")], "known", [known_as])


@pytest.mark.parametrize(("name", "standby"), [("fed", "fed"), ("pg_16390_sync_16384_7012345", "pg_*_sync_*")])
def test_a_subscriber_is_no_standby(pair: Pair, shop: str, name: str, standby: str) -> None:
    primary = pair.primary
    primary.value(f"SELECT pg_create_logical_replication_slot('{name}', 'pgoutput')", shop)
    session = psycopg.connect(primary.dsn(shop, replication="database", application_name=name), autocommit=True)
    try:
        session.pgconn.send_query(
            f"START_REPLICATION SLOT {name} LOGICAL 0/0 (proto_version '1', publication_names 'none')".encode()
        )
        streaming = (
            f"SELECT count(*) FROM pg_stat_replication WHERE application_name = '{name}' AND state = 'streaming'"
        )
        until(lambda: primary.value(streaming), "streaming", 1)
        (connected,) = [found for found in rows(primary, "replication") if found["standbys_connected"] is not None]
        assert row(primary, "replication", standby=standby)["replication_send_lag_bytes"] is not None
        assert connected["standbys_connected"] == 1
    finally:
        session.close()
        until(lambda: primary.value("SELECT active FROM pg_replication_slots"), "off", False)
        primary.value(f"SELECT pg_drop_replication_slot('{name}')", shop)


@pytest.mark.every_major
def test_a_subscription_that_fails_or_is_disabled_is_seen(primary: Server, shop: str) -> None:
    def seen() -> dict[str, Any]:
        return row(primary, "subscriptions", subscription="taken")

    began = time.monotonic()
    table = "CREATE TABLE public.one (n int PRIMARY KEY)"
    primary.value(table, shop)
    primary.value("CREATE PUBLICATION fed FOR ALL TABLES", shop)
    primary.value("SELECT pg_create_logical_replication_slot('taken', 'pgoutput')", shop)
    with primary.database() as copy:
        primary.value(f"{table}; INSERT INTO public.one VALUES (7)", copy)
        source = primary.dsn(shop).replace("'", "''")
        options = "slot_name = taken, create_slot = false, copy_data = false"
        primary.value(f"CREATE SUBSCRIPTION taken CONNECTION '{source}' PUBLICATION fed WITH ({options})", copy)
        try:
            until(lambda: seen()["subscription_applying"], "applying", 1)
            until(lambda: seen()["subscription_message_age_seconds"] is not None, "heard")
            healthy = seen()
            assert (healthy["database"], healthy["subscription_enabled"]) == (copy, 1)
            assert 0 <= healthy["subscription_message_age_seconds"] < time.monotonic() - began
            assert healthy["subscription_tables_syncing"] == 0
            primary.value("INSERT INTO public.one VALUES (7)", shop)
            until(lambda: seen()["subscription_applying"], "failing", 0)
            until(lambda: seen()["subscription_apply_errors"] >= 1, "counted")
            assert seen()["subscription_sync_errors"] == 0
            primary.value("ALTER SUBSCRIPTION taken DISABLE", copy)
            disabled = seen()
            assert (disabled["subscription_enabled"], disabled["subscription_applying"]) == (0, None)
        finally:
            primary.value("ALTER SUBSCRIPTION taken DISABLE", copy)
            until(lambda: primary.value("SELECT count(*) FROM pg_replication_slots WHERE active"), "unused", 0)
            primary.value("ALTER SUBSCRIPTION taken SET (slot_name = NONE)", copy)
            primary.value("DROP SUBSCRIPTION taken", copy)
            primary.value("SELECT pg_drop_replication_slot('taken')")


@pytest.mark.every_major
def test_a_first_copy_that_fails_is_counted(primary: Server, shop: str) -> None:
    table = "CREATE TABLE public.one (n int PRIMARY KEY); INSERT INTO public.one VALUES (1)"
    primary.value(table, shop)
    primary.value("CREATE PUBLICATION fed FOR ALL TABLES", shop)
    primary.value("SELECT pg_create_logical_replication_slot('fed', 'pgoutput')", shop)
    with primary.database() as copy:
        primary.value(table, copy)
        source = primary.dsn(shop).replace("'", "''")
        options = "create_slot = false, disable_on_error = true"
        primary.value(f"CREATE SUBSCRIPTION fed CONNECTION '{source}' PUBLICATION fed WITH ({options})", copy)
        try:
            until(lambda: row(primary, "subscriptions", subscription="fed")["subscription_sync_errors"], "counted", 1)
            until(lambda: row(primary, "subscriptions", subscription="fed")["subscription_enabled"], "disabled", 0)
        finally:
            primary.value("ALTER SUBSCRIPTION fed DISABLE", copy)
            until(lambda: primary.value("SELECT count(*) FROM pg_replication_slots WHERE active"), "unused", 0)
            primary.value("ALTER SUBSCRIPTION fed SET (slot_name = NONE)", copy)
            primary.value("DROP SUBSCRIPTION fed", copy)
            primary.value("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")


def test_tables_that_are_copied_first_are_one_series(primary: Server, shop: str) -> None:
    tables = "CREATE TABLE public.one (n int PRIMARY KEY); CREATE TABLE public.two (n int PRIMARY KEY)"
    primary.value(f"{tables}; INSERT INTO public.one VALUES (1); INSERT INTO public.two VALUES (1)", shop)
    primary.value("CREATE PUBLICATION fed FOR ALL TABLES", shop)
    primary.value("SELECT pg_create_logical_replication_slot('fed', 'pgoutput')", shop)
    with primary.database() as copy, primary.connect(copy) as writer:
        writer.execute(tables.encode())
        writer.execute("BEGIN; INSERT INTO public.one VALUES (1); INSERT INTO public.two VALUES (1)")
        source = primary.dsn(shop).replace("'", "''")
        primary.value(
            f"CREATE SUBSCRIPTION fed CONNECTION '{source}' PUBLICATION fed WITH (create_slot = false)", copy
        )
        copying = "SELECT count(*) FROM pg_replication_slots WHERE active AND NOT temporary AND slot_name ~ '_sync_'"
        until(lambda: primary.value(copying), "copying", 2)
        try:
            slots = {one["slot"]: one for one in rows(primary, "slots")}
            copying_now = row(primary, "subscriptions", subscription="fed")
        finally:
            primary.value("ALTER SUBSCRIPTION fed DISABLE", copy)
            writer.execute("COMMIT")
            used = "SELECT count(*) FROM pg_replication_slots WHERE active"
            until(lambda: primary.value(used), "unused", 0)
            primary.value("ALTER SUBSCRIPTION fed SET (slot_name = NONE)", copy)
            primary.value("DROP SUBSCRIPTION fed", copy)
            primary.value("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots")
    assert (copying_now["subscription_tables_syncing"], copying_now["subscription_applying"]) == (2, 1)
    assert set(slots) == {"fed", "pg_*_sync_*"}
    copied = slots["pg_*_sync_*"]
    assert (copied["slot_type"], copied["slot_active"], copied["slot_invalidated"]) == ("logical", 1, 0)
    assert copied["slot_retained_bytes"] >= 0


def test_a_server_says_its_role_and_what_awaits_a_restart(pair: Pair) -> None:
    before = pair.primary.age()
    primary, standby = row(pair.primary, "server"), row(pair.standby, "server")
    assert (primary["server_in_recovery"], standby["server_in_recovery"]) == (0, 1)
    assert primary["settings_pending_restart"] == 0
    assert before < primary["server_uptime_seconds"] < pair.primary.age()
    assert primary["server_uptime_seconds"] > standby["server_uptime_seconds"] > 0
    pair.primary.value("ALTER SYSTEM SET max_connections = 60")
    pair.primary.reload()
    assert row(pair.primary, "server")["settings_pending_restart"] == 1
    pair.primary.value("ALTER SYSTEM RESET max_connections")
    pair.primary.reload()
    assert row(pair.primary, "server")["settings_pending_restart"] == 0


def test_the_delay_grows_once_the_link_is_cut(pair: Pair) -> None:
    standby = pair.standby
    until(lambda: row(standby, "standby")["replay_delay_seconds"], "caught up", 0)
    age, stopped = pair.primary.age(), time.monotonic()
    pair.primary.stop("immediate")
    try:
        until(lambda: row(standby, "standby")["receiver_streaming"], "cut off", 0)
        first, second = row(standby, "standby"), row(standby, "standby")
        assert 0 < first["replay_delay_seconds"] < second["replay_delay_seconds"]
        assert second["replay_delay_seconds"] < age + time.monotonic() - stopped
        standby.stop()
        standby.start()  # it has replayed no transaction since
        third = row(standby, "standby")
        assert (third["receiver_streaming"], third["replay_lag_bytes"]) == (0, 0)
        assert third["replay_delay_seconds"] > second["replay_delay_seconds"]
    finally:
        pair.primary.start()
    until(lambda: row(standby, "standby")["receiver_streaming"], "streaming", 1)


@pytest.mark.every_major
def test_damage_is_a_checksum_failure(primary: Server) -> None:
    primary.value(FILL.format("public.damaged"))
    path = primary.data_dir / str(primary.value("SELECT pg_relation_filepath('public.damaged')"))
    primary.stop()
    with path.open("r+b") as file:
        file.seek(8192 + 4000)
        file.write(b"damage")
    primary.start()
    before = row(primary, "checksums", database="postgres")["checksum_failures"]
    with pytest.raises(psycopg.errors.DataCorrupted):
        primary.value("SELECT count(*) FROM public.damaged")
    until(lambda: row(primary, "checksums", database="postgres")["checksum_failures"], "counted", before + 1)
    (shared,) = [found for found in rows(primary, "checksums") if found["database"] is None]
    assert (before, shared["checksum_failures"]) == (0, 0)
    primary.value("DROP TABLE public.damaged")


def test_without_checksums_no_failure_is_counted(major: int, new_server: Callable[..., Server]) -> None:
    server = new_server(major, initdb=("--no-data-checksums",) if major >= 18 else ()).start()
    deploy(server)
    assert {found["checksum_failures"] for found in rows(server, "checksums")} == {None}


def test_archiving_that_fails_and_recovers(pair: Pair) -> None:
    primary = pair.primary
    began = time.monotonic()
    before = row(primary, "archiver")
    primary.value("ALTER SYSTEM SET archive_command = 'false'")
    primary.reload()
    switch = "SELECT pg_logical_emit_message(true, 'test', 'x'); SELECT pg_switch_wal()"
    until(lambda: row(primary, "archiver")["archive_ready_segments"], "emptied", 0)
    for _segment in range(2):
        primary.psql(switch)
    until(lambda: row(primary, "archiver")["archive_failing"], "failing", 1)
    failing = row(primary, "archiver")
    primary.value("ALTER SYSTEM RESET archive_command")
    primary.reload()
    assert failing["archive_failures"] > before["archive_failures"]
    assert failing["archive_ready_segments"] == 2
    primary.psql(switch)
    until(lambda: row(primary, "archiver")["archived_segments"] >= failing["archived_segments"] + 3, "archived")
    until(lambda: row(primary, "archiver")["archive_ready_segments"], "emptied", 0)
    found, standby = row(primary, "archiver"), row(pair.standby, "archiver")
    assert found["archive_failing"] == 0
    assert 0 < found["archive_age_seconds"] < time.monotonic() - began
    # Its archive_mode is the same, but it archives nothing.
    assert (standby["archive_failing"], standby["archive_age_seconds"], standby["archive_ready_segments"]) == (
        None,
    ) * 3


def waiting_in(server: Server) -> dict[str, int]:
    """How many sessions wait for what, by the type of their wait event."""
    found = {one["wait_event_type"]: one["waiting_sessions"] for one in rows(server, "wait_events")}
    return {kind: count for kind, count in found.items() if count}


@pytest.mark.every_major
def test_sessions_wait_for_something_or_work(primary: Server, shop: str) -> None:
    assert waiting_in(primary) == {}
    spin = "DO $$BEGIN LOOP NULL; END LOOP; END$$"
    lock = "SELECT pg_advisory_lock(1)"
    with primary.connect(shop) as holder:
        holder.execute(lock)
        with busy(primary, "SELECT pg_sleep(60)", shop), busy(primary, spin, shop), busy(primary, lock, shop):
            until(lambda: waiting_in(primary), "waiting", {"Timeout": 1, "none": 1, "Lock": 1})


@pytest.mark.every_major
def test_a_session_waits_for_one_that_uses_a_page(primary: Server, shop: str) -> None:
    primary.value("CREATE TABLE public.used AS SELECT 1 AS n", shop)
    # VACUUM only waits for a page of which it could freeze something: the standby keeps what its snapshots may need.
    past = "max(age(r.backend_xmin)) < (SELECT age(u.xmin) FROM public.used AS u) FROM pg_stat_replication AS r"
    until(lambda: primary.value(f"SELECT {past}", shop), "in the past", True)
    with primary.connect(shop) as reader:
        reader.execute("BEGIN; DECLARE one CURSOR FOR SELECT n FROM public.used; FETCH 1 FROM one")
        with busy(primary, "VACUUM (FREEZE) public.used", shop):
            kind = "Buffer" if primary.major >= 19 else "BufferPin"
            until(lambda: waiting_in(primary), "waiting", {kind: 1})


@pytest.mark.every_major(since=19)
def test_a_long_wait_for_a_lock_is_counted_when_it_has_ended(primary: Server, shop: str) -> None:
    def counted() -> dict[str, Any]:
        return row(primary, "lock_waits", lock_type="advisory")

    before, since = counted(), primary.log.stat().st_size
    lock = "SELECT pg_advisory_lock(7)"
    with primary.connect(shop) as holder, primary.connect(shop) as waiter, ThreadPoolExecutor() as threads:
        waiter.execute("SET deadlock_timeout = '10ms'; SET log_lock_waits = on")
        holder.execute(lock)
        done = threads.submit(waiter.execute, lock)
        until(lambda: "still waiting" in primary.logged(since), "waiting")
        assert counted()["lock_waits"] == before["lock_waits"]
        holder.execute("SELECT pg_advisory_unlock(7)")
        done.result(PATIENCE)
        waiter.execute("SELECT pg_stat_force_next_flush()")
        until(lambda: counted()["lock_waits"], "counted", before["lock_waits"] + 1)
    assert counted()["lock_wait_time_ms"] >= before["lock_wait_time_ms"] + 10
    assert row(primary, "lock_waits", lock_type="relation")["lock_fastpath_exceeded"] is not None


@pytest.mark.every_major
def test_sessions_wait_for_an_event_by_its_name(primary: Server, shop: str) -> None:
    def waiting() -> dict[str, int]:
        return {
            f"{found['wait_event_type']}:{found['wait_event']}": found["sessions_in_wait_event"]
            for found in rows(primary, "named_wait_events")
            if found["sessions_in_wait_event"]
        }

    if primary.major >= 17:
        exists = "SELECT EXISTS (SELECT FROM pg_wait_events WHERE type = '{}' AND lower(name) = lower('{}'))"
        named = [found for found in rows(primary, "named_wait_events") if found["wait_event"] != "other"]
        places = [(found["wait_event_type"], found["wait_event"]) for found in named]
        assert [place for place in places if not primary.value(exists.format(*place))] == []
    assert waiting() == {}
    lock = "SELECT pg_advisory_lock(1)"
    with primary.connect(shop) as holder:
        holder.execute(lock)
        # What waits for a snapshot that no writer can disturb waits for an event that has no name here.
        holder.execute("BEGIN ISOLATION LEVEL SERIALIZABLE")
        holder.execute("SELECT FROM pg_class")
        safe = "BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE; SELECT FROM pg_class"
        with busy(primary, "SELECT pg_sleep(60)", shop), busy(primary, lock, shop), busy(primary, safe, shop):
            expected = {"Timeout:PgSleep": 1, "Lock:advisory": 1, "None:other": 1}
            until(waiting, "waiting", expected)


@pytest.mark.every_major
def test_small_caches_are_named_alike_in_every_version(primary: Server) -> None:
    names = {"commit_timestamp", "multixact_member", "multixact_offset", "notify", "serializable", "subtransaction"}
    before = {found["slru"]: found for found in rows(primary, "slru")}
    assert set(before) == names | {"transaction", "other"}
    primary.value("SELECT pg_stat_reset_slru(NULL)")
    with primary.connect() as session:
        session.execute("LISTEN here")
        session.execute("NOTIFY here")

    def used() -> bool:
        return sum(row(primary, "slru", slru="notify")[f"slru_blocks_{kind}"] for kind in ("hit", "written")) > 0

    until(used, "counted")
    assert row(primary, "slru", slru="notify")["counted_since"] != before["notify"]["counted_since"]


@pytest.mark.every_major(since=16)
def test_io_is_the_servers_own(primary: Server, shop: str) -> None:
    bulk = {"backend_type": "client backend", "object": "relation", "context": "bulkwrite"}
    size = "write_bytes" if primary.major >= 18 else "writes * op_bytes"
    own = f"SELECT extends, writes, hits, {size} AS write_bytes FROM pg_stat_io WHERE backend_type = 'client backend'"
    own += " AND object = 'relation' AND context = 'bulkwrite'"
    before = own_row(primary, own)
    primary.value(FILL.format("public.one"), shop)
    until(lambda: own_row(primary, own)["extends"] > before["extends"], "counted")
    seen, found = own_row(primary, own), row(primary, "io", **bulk)
    assert {name: found[f"io_{name}"] for name in seen} == seen
    assert seen["write_bytes"] >= seen["writes"] * 8192 > 0
    assert found["io_write_time_ms"] is None  # track_io_timing is off
    primary.value("SELECT pg_stat_reset_shared('io')")
    again = own_row(primary, "SELECT max(stats_reset) AS since FROM pg_stat_io")["since"]
    assert again != found["counted_since"]
    assert {one["counted_since"] for one in rows(primary, "io")} <= {again}


def test_roles_that_may_log_in(primary: Server) -> None:
    before = row(primary, "roles")
    assert (before["superusers"], before["expired_login_roles"]) == (1, 0)
    primary.value("CREATE ROLE one SUPERUSER LOGIN; CREATE ROLE two SUPERUSER; CREATE ROLE three LOGIN")
    primary.value("ALTER ROLE three VALID UNTIL '2001-01-01'")
    found = row(primary, "roles")
    primary.value("DROP ROLE one, two, three")
    assert (found["superusers"], found["expired_login_roles"]) == (2, 1)
    assert found["login_roles"] == before["login_roles"] + 2
