# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the agent collects, against hand-written queries, and what gets in its way."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import disks
import psycopg
import pytest
from deploying import SHIPPED, collect, configured, deploy, inspect, megabytes_besides
from servers import Server
from waiting import PATIENCE, until

from pgops import cli
from pgops.errors import Conflict
from pgops.metrics import collect as collection
from pgops.metrics import collectors, partitions
from pgops.metrics.history import Runs

TRAPS = """
CREATE TABLE public.caught (what text);
GRANT ALL ON public.caught TO PUBLIC;
CREATE FUNCTION public.trap(text) RETURNS text LANGUAGE plpgsql AS
    $$BEGIN INSERT INTO public.caught VALUES (session_user || ' ' || $1); RETURN $1; END$$;
CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS
    $$SELECT public.trap('now'); SELECT pg_catalog.now()$$;
CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS $$SELECT public.trap('current_setting')$$;
CREATE FUNCTION public.pg_total_relation_size(oid) RETURNS bigint LANGUAGE sql AS
    $$SELECT public.trap('size'); SELECT 1::bigint$$;
CREATE FUNCTION public.same(name, name) RETURNS boolean LANGUAGE sql AS $$SELECT public.trap('=') IS NULL$$;
CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = name, FUNCTION = public.same);
CREATE FUNCTION public.same(text, text) RETURNS boolean LANGUAGE sql AS $$SELECT public.trap('=') IS NULL$$;
CREATE OPERATOR public.= (LEFTARG = text, RIGHTARG = text, FUNCTION = public.same);
CREATE TABLE public.pg_class (oid oid, relname name, relpages integer, reltoastrelid oid);
CREATE VIEW public.pg_database AS SELECT public.trap('pg_database')::name AS datname;
"""


def test_values_are_those_of_the_server(deployed: Server, tmp_path: Path, database: str) -> None:
    deployed.value(
        "CREATE TABLE public.big AS SELECT g, repeat('x', 100) FROM generate_series(1, 20000) AS g", database
    )
    deployed.value("VACUUM public.big", database)
    outcome = collect(deployed, tmp_path)
    assert outcome["errors"] == []
    select = "SELECT metric_value FROM pgops.system_metrics WHERE metric_name = '{}' AND database_name = '{}' {}"
    size = deployed.value(f"SELECT pg_database_size('{database}') / 1048576.0")
    found = deployed.value(select.format("database_size_mb", database, ""), "pgops")
    assert float(str(found)) == pytest.approx(float(str(size)), abs=0.2)
    size = deployed.value("SELECT pg_total_relation_size('public.big') / 1048576.0", database)
    found = deployed.value(select.format("table_size_mb", database, "AND table_name = 'big'"), "pgops")
    assert float(str(found)) == pytest.approx(float(str(size)))
    deadlocks = deployed.value(f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{database}'")
    assert deployed.value(select.format("deadlocks", database, ""), "pgops") == deadlocks


def test_sessions_locks_and_deadlocks_are_counted_as_they_happen(
    deployed: Server, tmp_path: Path, database: str
) -> None:
    deployed.value("CREATE TABLE public.one (); CREATE TABLE public.two ()", database)
    _deadlock(deployed, database)
    with ThreadPoolExecutor() as threads, deployed.connect(database) as holder:
        holder.execute("BEGIN; LOCK TABLE public.one")
        waits = threads.submit(deployed.value, "BEGIN; LOCK TABLE public.one; ROLLBACK", database)
        waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
        until(lambda: deployed.value(waiting), "waiting", 1)
        seen = f"SELECT blks_hit, blks_read FROM pg_stat_database WHERE datname = '{database}'"
        with deployed.connect() as watcher:
            hit, read = watcher.execute(seen.encode()).fetchone()  # type: ignore[misc]
        outcome = collect(deployed, tmp_path)
        holder.execute("ROLLBACK")
        waits.result(PATIENCE)
    assert outcome["errors"] == []
    found = {
        name: deployed.value(
            "SELECT metric_value FROM pgops.system_metrics "
            f"WHERE metric_name = '{name}' AND database_name = '{database}' AND table_name IS NULL",
            "pgops",
        )
        for name in ("active_connections", "waiting_locks", "deadlocks", "cache_hit_ratio")
    }
    # The one that waits runs its statement; the one that holds the lock is idle in its transaction.
    assert (found["active_connections"], found["waiting_locks"], found["deadlocks"]) == (1, 1, 1)
    assert found["cache_hit_ratio"] == pytest.approx(100 * hit / (hit + read), abs=1)


def _deadlock(server: Server, database: str) -> None:
    """Have two sessions wait for each other, one of which the server ends."""
    with server.connect(database) as first, server.connect(database) as second, ThreadPoolExecutor() as threads:
        for session in (first, second):
            session.execute("SET deadlock_timeout = '50ms'")
        first.execute("BEGIN; LOCK TABLE public.one")
        second.execute("BEGIN; LOCK TABLE public.two")
        crossing = [
            threads.submit(_fails, first, "LOCK TABLE public.two"),
            threads.submit(_fails, second, "LOCK TABLE public.one"),
        ]
        assert sorted(waits.result(PATIENCE) for waits in crossing) == [False, True]
    counted = f"SELECT deadlocks FROM pg_stat_database WHERE datname = '{database}'"
    until(lambda: server.value(counted), "counted", 1)


def _fails(session: psycopg.Connection, statement: str) -> bool:
    """Whether a statement ends in a deadlock; its transaction is over then."""
    try:
        session.execute(statement.encode())
    except psycopg.errors.DeadlockDetected:
        session.execute("ROLLBACK")
        return True
    return False


@pytest.mark.every_major
def test_every_database_has_all_six_metrics(deployed: Server, tmp_path: Path) -> None:
    names = ['we"ird db', "naïve", "%s {0}; --"]
    for name in names:
        deployed.value('CREATE DATABASE "{}"'.format(name.replace('"', '""')))
    for name in [*names, "pgops"]:  # where nothing was read yet, there is no cache hit ratio
        deployed.value("SELECT count(*) FROM pg_class", name)
    try:
        read = "SELECT bool_and(blks_hit > 0) FROM pg_stat_database WHERE datname NOT LIKE 'template%'"
        until(lambda: deployed.value(read), "read")
        assert collect(deployed, tmp_path)["errors"] == []
        select = """
            SELECT database_name FROM pgops.system_metrics WHERE metric_name IN ('database_size_mb', 'table_size_mb',
                'active_connections', 'waiting_locks', 'deadlocks', 'cache_hit_ratio')
            GROUP BY database_name HAVING count(DISTINCT metric_name) = 6"""
        seen = deployed.value(f"SELECT array_agg(found.database_name) FROM ({select}) AS found", "pgops")
        assert set(names) <= set(seen)  # type: ignore[call-overload]
    finally:
        for name in names:
            deployed.value('DROP DATABASE "{}" WITH (FORCE)'.format(name.replace('"', '""')))


def test_a_database_that_refuses_us_is_an_error_of_its_own(deployed: Server, tmp_path: Path, database: str) -> None:
    deployed.value(f"REVOKE CONNECT ON DATABASE {database} FROM PUBLIC")
    outcome = collect(deployed, tmp_path)
    (error,) = outcome["errors"]
    assert database in error
    assert "CONNECT" in error
    assert outcome["spooled"] == 0
    assert deployed.value("SELECT count(*) FROM pgops.system_metrics WHERE metric_name = 'table_size_mb'", "pgops")
    failed = (
        "SELECT metric_value FROM pgops.system_metrics WHERE metric_name = 'collector_errors' AND metric_value > 0"
    )
    assert deployed.value(failed, "pgops") == 1


def test_a_locked_table_is_not_waited_for(deployed: Server, tmp_path: Path, database: str) -> None:
    deployed.value("CREATE TABLE public.held AS SELECT 1 AS a", database)
    with deployed.connect(database) as holder, holder.transaction():
        holder.execute("LOCK TABLE public.held IN ACCESS EXCLUSIVE MODE")
        assert collect(deployed, tmp_path)["errors"] == []
    select = "SELECT count(*) FROM pgops.system_metrics WHERE table_name = 'held' AND metric_name = 'table_size_mb'"
    assert deployed.value(select, "pgops") == 1


def test_a_table_whose_index_or_toast_is_locked_is_not_waited_for(
    deployed: Server, tmp_path: Path, database: str
) -> None:
    deployed.value("CREATE TABLE public.held (a text PRIMARY KEY); CREATE TABLE public.free ()", database)
    toast = deployed.value("SELECT reltoastrelid::regclass FROM pg_class WHERE relname = 'held'", database)
    for locking in ("REINDEX INDEX public.held_pkey", f"REINDEX TABLE {toast}"):
        deployed.value("SELECT pgops.drop_partition('round_0_20000101')", "pgops")
        with deployed.connect(database) as holder, holder.transaction(force_rollback=True):
            holder.execute(locking.encode())
            assert collect(deployed, tmp_path)["errors"] == []
    for name in ("held", "free"):
        select = "SELECT count(*) FROM pgops.system_metrics WHERE table_name = '{}' AND metric_name = 'table_size_mb'"
        assert deployed.value(select.format(name), "pgops") == 2


def test_nobody_waits_for_us_in_a_queue_before_a_table(deployed: Server, tmp_path: Path, database: str) -> None:
    deployed.value("CREATE TABLE public.busy (a serial PRIMARY KEY, b text)", database)
    careless = collectors.parse(
        "-- collector: careless\n-- scope: database\n-- metric: careless\n-- timeout: 60\n"
        "SELECT pg_relation_size(oid) AS careless FROM pg_class WHERE relname = 'busy'",
        "careless",
    )
    waiting = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with ThreadPoolExecutor() as threads, deployed.connect(database) as reader:
        reader.execute("BEGIN; SELECT count(*) FROM public.busy")
        queue = [threads.submit(deployed.value, "ALTER TABLE public.busy ADD c integer", database)]
        until(lambda: deployed.value(waiting), "waiting", 1)
        queue.append(threads.submit(deployed.value, "SELECT count(*) FROM public.busy", database))
        until(lambda: deployed.value(waiting), "waiting", 2)
        try:
            outcome = collect(deployed, tmp_path, found=[*SHIPPED, careless])
            inspected = inspect(deployed, tmp_path)
            still = deployed.value(waiting)
        finally:
            reader.execute("ROLLBACK")
            for one in queue:
                one.result(PATIENCE)
    assert (still, inspected["errors"]) == (2, [])
    (error,) = outcome["errors"]
    assert error.startswith(f"careless in {database}: canceling statement due to lock timeout")
    took = (
        "SELECT metric_value FROM pgops.system_metrics "
        "WHERE metric_name = 'collector_duration_ms' AND additional_info ->> 'collector' = 'careless'"
    )
    # The lock is given up after 100 ms.
    assert float(str(deployed.value(took, "pgops"))) >= 100


def _collector(name: str, query: str) -> collectors.Collector:
    return collectors.parse(f"-- collector: {name}\n-- metric: {name}\n-- timeout: 60\n{query} AS {name}", name)


SLEEPER = _collector("sleeper", "SELECT 1 AS one, pg_sleep(30) IS NULL AS slept, 1")


def test_what_finds_no_time_is_left_out_and_the_rest_delivered(deployed: Server, tmp_path: Path) -> None:
    outcome = collect(deployed, tmp_path, found=[_collector("quick", "SELECT 1"), SLEEPER, *SHIPPED], time_budget=3)
    assert (outcome["sink"], outcome["spooled"]) == ("local", 0)
    assert "sleeper in pgops: canceling statement due to statement timeout" in outcome["errors"][0]
    databases = _databases(deployed)
    assert outcome["errors"][-1] == f"time limit reached: {databases} databases were left out"
    value = "SELECT max(metric_value) FROM pgops.system_metrics WHERE metric_name = 'collector_errors'"
    assert deployed.value(value, "pgops") == databases
    assert deployed.value("SELECT count(*) FROM pgops.system_metrics WHERE metric_name = 'quick'", "pgops") == 1


@pytest.mark.parametrize("hangs", [False, True])
def test_sigterm_ends_a_collection_that_keeps_what_it_has(deployed: Server, tmp_path: Path, hangs: bool) -> None:
    found = [_collector("quick", "SELECT 1"), SLEEPER, *SHIPPED]
    asleep = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'"
    stopped = []

    def end() -> None:
        until(lambda: deployed.value(asleep) is not None, "asleep")
        if hangs:
            stopped.append(int(str(deployed.value(asleep))))
            os.kill(stopped[0], signal.SIGSTOP)
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    with ThreadPoolExecutor() as threads:
        ending = threads.submit(end)
        try:
            outcome = collect(deployed, tmp_path, found=found)
        finally:
            ending.result(PATIENCE)
            for pid in stopped:
                os.kill(pid, signal.SIGCONT)
    assert "ended by SIGTERM" in " ".join(outcome["errors"])
    assert (outcome["sink"], outcome["spooled"], outcome["dropped"]) == ("spool", 1, 0)
    assert collect(deployed, tmp_path, found=[found[0]])["errors"] == []
    assert deployed.value("SELECT count(*) FROM pgops.system_metrics WHERE metric_name = 'quick'", "pgops") == 2


def test_a_run_counts_from_its_start_whatever_a_clock_said_before(deployed: Server, tmp_path: Path) -> None:
    ahead = time.time() + 10**6
    found = [one for one in SHIPPED if one.name in ("activity", "locks", "table_size")]
    remembered = Runs(last={one.name: ahead for one in found})
    collect(deployed, tmp_path, found=found, runs=remembered)
    assert len(set(remembered.last.values())) == 1
    assert max(remembered.last.values()) < ahead


def test_a_number_that_is_too_large_is_an_error_of_its_own(deployed: Server, tmp_path: Path) -> None:
    huge = _collector("huge", "SELECT (10::numeric ^ 400)::numeric(500, 0)")
    outcome = collect(deployed, tmp_path, found=[huge, *SHIPPED])
    (error,) = outcome["errors"]
    assert "huge in pgops" in error
    assert outcome["spooled"] == 0


def test_a_database_whose_drop_was_interrupted_is_left_out(deployed: Server, tmp_path: Path, database: str) -> None:
    deployed.value(f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{database}'")
    assert collect(deployed, tmp_path)["errors"] == []


def test_old_days_are_dropped_even_where_no_new_ones_can_be_made(deployed: Server, tmp_path: Path) -> None:
    insert = "INSERT INTO pgops.system_metrics (metric_name, metric_value, collected_at) VALUES ('old', 1, {})"
    deployed.value(insert.format("now() - interval '40 days'"), "pgops")
    deployed.value("ALTER FUNCTION pgops.maintain_partitions(integer) RENAME TO away", "pgops")
    configuration, layout = configured(deployed, tmp_path)
    outcome = partitions.maintain(configuration)
    assert len(outcome["dropped"]) == 1
    (error,) = outcome["errors"]
    assert "partitions cannot be created" in error
    Path(layout.agent_file).parent.mkdir(parents=True)
    Path(layout.agent_file).write_text(configuration.text())
    arguments = ["--prefix", str(tmp_path), "--instance", "main"]
    assert cli.main([*arguments, "maintain"]) == 1
    assert cli.main([*arguments, "collect"]) == 0
    deployed.value("ALTER FUNCTION pgops.register_node(text, text, text, boolean, text) RENAME TO away", "pgops")
    os.unlink(f"{layout.state}/collect.json")
    assert cli.main([*arguments, "collect"]) == 1


def test_where_the_store_is_too_large_the_oldest_days_go_and_it_is_said(deployed: Server, tmp_path: Path) -> None:
    insert = (
        "INSERT INTO pgops.round SELECT s, 1, current_date - {0} + interval '1 second' * s, 0, "
        "array_fill(random(), ARRAY[200]) FROM generate_series(1, 1000) AS s"
    )
    assert collect(deployed, tmp_path)["errors"] == []
    for day in (3, 2, 1, 0):
        deployed.value(f"SELECT pgops.create_partition('round_0', current_date - {day})", "pgops")
        deployed.value(insert.format(day), "pgops")  # two megabytes each
    configuration, _layout = configured(deployed, tmp_path)
    kept = partitions.maintain(configuration)
    assert (kept["dropped"], kept["errors"]) == ([], [])
    deploy(deployed, max_size_mb=5 + megabytes_besides(deployed))
    outcome = partitions.maintain(configuration)
    days = [str(deployed.value(f"SELECT current_date - {day}")) for day in (3, 2)]
    assert outcome["dropped"] == [f"round_0_{day.replace('-', '')}" for day in days]
    (error,) = outcome["errors"]
    assert f"larger than pgops_max_size_mb: {', '.join(days)}" in error
    deploy(deployed, max_size_mb=1)
    assert len(partitions.maintain(configuration)["dropped"]) == 1  # the present day stays, whatever it takes
    assert deployed.value("SELECT count(*) FROM pgops.round", "pgops") >= 1000


def test_nothing_of_a_hostile_user_runs(undeployed: Server, tmp_path: Path, database: str) -> None:
    deploy(undeployed)
    for name in (database, "pgops"):
        with undeployed.connect(name) as owner:
            owner.execute(TRAPS.encode())
            owner.execute(f"ALTER DATABASE {name} SET search_path = public, pg_catalog".encode())
            # The traps do catch whoever looks into public first.
            owner.execute("SET search_path = public, pg_catalog")
            owner.execute("SELECT now(), 'a'::text = 'b'::text")
            owner.execute("SET search_path = pg_catalog")
            assert owner.execute("DELETE FROM public.caught").rowcount == 2
    deploy(undeployed)
    assert collect(undeployed, tmp_path)["errors"] == []
    undeployed.value("SELECT pgops.collect_database_metrics()", "pgops")
    deploy(undeployed, state="absent")
    for name in (database, "pgops"):
        assert undeployed.value("SELECT count(*) FROM public.caught", name) == 0


def test_a_round_that_nothing_can_store_is_lost_alone_and_counted(deployed: Server, tmp_path: Path) -> None:
    text = "SELECT string_agg(md5(random()::text), '') AS what, 1 AS endless FROM generate_series(1, 300)"
    endless = collectors.parse(f"-- collector: endless\n-- metric: endless\n{text}", "endless.sql")
    listed = collectors.parse("-- collector: listed\n-- metric: listed\nSELECT ARRAY[1] AS listed", "listed.sql")
    first = collect(deployed, tmp_path, found=[*SHIPPED, endless, listed])
    assert first["spooled"] == 0
    (unfit, wrong) = sorted(first["errors"])
    assert "1 samples of" in unfit
    assert "endless" in unfit
    assert "listed in pgops" in wrong
    assert collect(deployed, tmp_path)["errors"] == []
    select = "SELECT max(metric_value) FROM pgops.system_metrics WHERE metric_name = 'samples_dropped'"
    assert deployed.value(select, "pgops") == 1


def test_rounds_wait_for_a_sink_and_are_delivered_once(deployed: Server, tmp_path: Path) -> None:
    deployed.value("ALTER FUNCTION pgops.register_node(text, text, text, boolean, text) RENAME TO away", "pgops")
    first = collect(deployed, tmp_path)
    assert first["spooled"] > 0
    assert "will be retried" in first["errors"][0]
    later = collect(deployed, tmp_path)
    assert later["spooled"] > first["spooled"]
    deploy(deployed)
    second = collect(deployed, tmp_path)
    assert (second["errors"], second["spooled"]) == ([], 0)
    assert second["delivered"] > later["spooled"]
    select = "SELECT count(DISTINCT collected_at) FROM pgops.system_metrics WHERE metric_name = 'active_connections'"
    assert deployed.value(select, "pgops") == 3


def test_two_jobs_of_a_node_deliver_one_after_the_other(deployed: Server, tmp_path: Path) -> None:
    assert collect(deployed, tmp_path)["errors"] == []
    with deployed.connect("pgops") as other:
        other.execute("BEGIN")
        other.execute("UPDATE pgops.node SET last_seen_at = now()")
        ending = threading.Timer(1, other.execute, args=("COMMIT",))
        ending.start()
        outcome = collect(deployed, tmp_path)
        ending.join()
    assert (outcome["errors"], outcome["spooled"]) == ([], 0)


def test_a_long_backlog_shrinks_run_by_run_and_never_delays_what_is_new(
    deployed: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collection, "BATCH", 3)
    deployed.value("ALTER FUNCTION pgops.register_node(text, text, text, boolean, text) RENAME TO away", "pgops")
    waiting = [collect(deployed, tmp_path)["spooled"] for _run in range(2)][-1]
    deploy(deployed)
    left = [waiting]
    while left[-1] and len(left) <= waiting:
        since = deployed.value("SELECT now()")
        outcome = collect(deployed, tmp_path, time_budget=0)
        newest = "SELECT max(collected_at) FROM pgops.system_metrics WHERE metric_name = 'samples_dropped'"
        assert deployed.value(newest, "pgops") > since  # type: ignore[operator]
        left.append(outcome["spooled"])
    assert left == [*range(waiting, 0, -3), 0]
    select = "SELECT count(DISTINCT collected_at) FROM pgops.system_metrics WHERE metric_name = 'active_connections'"
    assert deployed.value(select, "pgops") == 2


def test_a_database_in_no_encoding_is_measured(deployed: Server, tmp_path: Path) -> None:
    deployed.value("CREATE DATABASE plain TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with deployed.connect("plain") as owner:
            owner.execute("SET client_encoding = 'SQL_ASCII'")
            owner.execute(b'CREATE TABLE public."caf\xe9" AS SELECT 1 AS a')
        assert collect(deployed, tmp_path)["errors"] == []
        select = "SELECT max(table_name) FROM pgops.system_metrics WHERE metric_name = 'table_size_mb' AND {}"
        assert deployed.value(select.format("database_name = 'plain'"), "pgops") == "caf\\xe9"
    finally:
        deployed.value("DROP DATABASE plain WITH (FORCE)")


def test_an_older_agent_goes_on_with_a_newer_schema(deployed: Server, tmp_path: Path) -> None:
    deployed.value(
        "INSERT INTO pgops.migration (number, name, sha256, collection_version) VALUES (900, 'later', 'x', '9.9')",
        "pgops",
    )
    deployed.value("ALTER TABLE pgops.round ADD COLUMN later text", "pgops")
    deployed.value("ALTER TABLE pgops.node ADD COLUMN later text", "pgops")
    outcome = collect(deployed, tmp_path)
    assert (outcome["errors"], outcome["spooled"]) == ([], 0)


def test_what_the_agent_may_not_read_is_inspected_by_the_servers_user(
    deployed: Server, tmp_path: Path, database: str
) -> None:
    deployed.value("CREATE TABLE public.t (a smallint GENERATED ALWAYS AS IDENTITY)", database)
    deployed.value("SELECT setval('public.t_a_seq', 31129)", database)
    assert collect(deployed, tmp_path)["errors"] == []
    select = (
        "SELECT metric_value FROM pgops.system_metrics "
        f"WHERE metric_name = 'sequence_used_percent' AND database_name = '{database}'"
    )
    assert deployed.value(select, "pgops") is None
    outcome = inspect(deployed, tmp_path)
    assert (outcome["errors"], outcome["sink"]) == ([], "local")
    assert deployed.value(select, "pgops") == pytest.approx(95, abs=0.1)


def test_an_inspection_reads_all_data_and_can_do_nothing_else(deployed: Server, tmp_path: Path) -> None:
    query = "SELECT (current_user = 'pg_read_all_data')::int * (current_setting('is_superuser') = 'off')::int"
    who = _collector("who", query)
    writes = _collector("writes", "SELECT nextval('public.s')")
    deployed.value("CREATE SEQUENCE public.s", "pgops")
    outcome = inspect(deployed, tmp_path, [replace(one, rights="all_data") for one in (who, writes)])
    (error,) = outcome["errors"]
    assert "writes in pgops" in error
    assert deployed.value("SELECT metric_value FROM pgops.system_metrics WHERE metric_name = 'who'", "pgops") == 1


def test_nobody_elses_database_is_inspected(server: Server, tmp_path: Path, database: str) -> None:
    with pytest.raises(Conflict, match=database):
        inspect(server, tmp_path, database=database)


def _databases(server: Server) -> int:
    return int(str(server.value("SELECT count(*) FROM pg_database WHERE datallowconn AND NOT datistemplate")))


def test_a_full_disk_costs_what_cannot_be_kept_and_says_so(deployed: Server, small_disk: Path) -> None:
    assert collect(deployed, small_disk)["errors"] == []
    disks.fill(small_disk)
    (error,) = collect(deployed, small_disk)["errors"]
    assert "the newest values cannot be stored for the export" in error
    deployed.value("ALTER FUNCTION pgops.register_node(text, text, text, boolean, text) RENAME TO away", "pgops")
    outcome = collect(deployed, small_disk)
    assert (outcome["spooled"], outcome["dropped"]) == (0, outcome["samples"])
    assert "samples lost" in outcome["errors"][-1]
    (small_disk / "filler").unlink()
    deploy(deployed)
    assert collect(deployed, small_disk)["errors"] == []
    select = "SELECT max(metric_value) FROM pgops.system_metrics WHERE metric_name = 'samples_dropped'"
    assert deployed.value(select, "pgops") == outcome["dropped"]


def test_a_standby_writes_to_itself_once_promoted(deployed: Server, tmp_path: Path, keep: object) -> None:
    standby = keep(deployed.standby()).start()  # type: ignore[operator]
    # The default that no standby can run a query in.
    deployed.value("ALTER DATABASE pgops SET default_transaction_isolation = 'serializable'")
    until(lambda: standby.value("SELECT count(*) FROM pg_db_role_setting WHERE setrole = 0"), "replayed", 1)
    waiting = collect(standby, tmp_path, node="db2/main")
    assert waiting["spooled"] > 0
    assert "no other node" in waiting["errors"][0]
    standby.promote()
    outcome = collect(standby, tmp_path, node="db2/main")
    assert (outcome["errors"], outcome["spooled"], outcome["sink"]) == ([], 0, "local")
    select = (
        "SELECT count(DISTINCT collected_at) FROM pgops.system_metrics "
        "WHERE node = 'db2/main' AND metric_name = 'deadlocks'"
    )
    assert standby.value(select, "pgops") == 2


def test_a_collector_whose_session_ends_takes_no_other_with_it(deployed: Server, tmp_path: Path) -> None:
    """In the ops database, where all else is collected as well, and in others."""
    ends = "SELECT pg_terminate_backend(pg_backend_pid()) IS NULL AS ended, pg_sleep(60) IS NULL AS slept, 1"
    inside = "-- collector: inside\n-- scope: database\n-- metric: inside\n"
    found = [
        _collector("ends", ends),
        _collector("quick", "SELECT 1"),
        collectors.parse(f"{inside}{ends} AS inside", "inside"),
        *SHIPPED,
    ]
    outcome = collect(deployed, tmp_path, found=found)
    assert (outcome["sink"], outcome["spooled"]) == ("local", 0)
    assert all(error.startswith(("ends in", "inside in")) for error in outcome["errors"])
    assert len(outcome["errors"]) == 1 + _databases(deployed)
    for metric in ("quick", "table_size_mb", "database_size_mb"):
        count = f"SELECT count(*) FROM pgops.system_metrics WHERE metric_name = '{metric}'"
        assert deployed.value(count, "pgops")


def test_a_step_of_maintenance_whose_session_ends_takes_no_other_with_it(deployed: Server, tmp_path: Path) -> None:
    deployed.psql(
        "ALTER FUNCTION pgops.maintain_partitions(integer) RENAME TO former;"
        "CREATE FUNCTION pgops.maintain_partitions(integer) RETURNS integer LANGUAGE sql "
        "AS 'SELECT pg_terminate_backend(pg_backend_pid()); SELECT pg_sleep(60); SELECT 1'",
        "pgops",
    )
    outcome = partitions.maintain(configured(deployed, tmp_path)[0])
    (error,) = outcome["errors"]
    assert error.startswith("partitions cannot be created: ")
    assert {"rolled_up", "dropped", "forgotten"} <= set(outcome)
