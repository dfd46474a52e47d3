# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The views of the ops database, against hand-written queries, by whoever may read them."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from deploying import SHIPPED, collect, deploy, inspect
from servers import Server
from waiting import PATIENCE, until

from pgops.metrics import collectors


def test_a_blocked_session_is_counted_and_a_reader_sees_no_guess(deployed: Server, database: str) -> None:
    select = "SELECT active_connections, blocked_connections FROM pgops.real_time_performance"
    deployed.value("CREATE TABLE public.one ()", database)
    with ThreadPoolExecutor() as threads, deployed.connect(database) as holder, deployed.connect("pgops") as asking:
        holder.execute("BEGIN; LOCK TABLE public.one")
        waits = threads.submit(deployed.value, "BEGIN; LOCK TABLE public.one; ROLLBACK", database)
        until(lambda: deployed.value("SELECT count(*) FROM pg_locks WHERE NOT granted"), "waiting", 1)
        try:
            for role, seen in (("pgops", (1, 1)), ("pgops_reader", (None, 1)), ("postgres", (1, 1))):
                asking.execute(f"SET ROLE {role}".encode())
                assert asking.execute(select.encode()).fetchone() == seen
        finally:
            holder.execute("ROLLBACK")
            waits.result(PATIENCE)


def test_totals_are_those_of_the_server(deployed: Server) -> None:
    assert deployed.value("SELECT total_deadlocks FROM pgops.real_time_performance", "pgops") == deployed.value(
        "SELECT sum(deadlocks) FROM pg_stat_database"
    )


def test_sizes_are_as_last_collected_of_the_databases_that_are_there(deployed: Server) -> None:
    size = "SELECT round(database_size_gb * 1024)::int FROM pgops.real_time_performance"
    sample = (
        "INSERT INTO pgops.system_metrics (metric_name, metric_value, database_name, node, collected_at) "
        "VALUES ('database_size_mb', {}, '{}', '{}', now() - interval '{} minutes')"
    )
    with deployed.connect("pgops") as asking:
        asking.execute("SELECT pgops.register_node('shop', 'db2/main', 'other', false, '')")
        asking.execute("SET ROLE pgops_reader")
        assert asking.execute(size.encode()).fetchone() == (None,)
        asking.execute("RESET ROLE")
        measured = "SELECT round(sum(pg_database_size(oid)) / 1048576) FROM pg_database"
        ((seen,), (there,)) = (asking.execute(one.encode()).fetchone() for one in (size, measured))
        assert abs(seen - there) <= 1
        for megabytes, name, node, minutes in (
            (100, "pgops", "db1/main", 20),
            (200, "pgops", "db1/main", 9),
            (3000, "postgres", "db1/main", 7),
            (40000, "gone", "db1/main", 8),
            (500000, "postgres", "db2/main", 6),
        ):
            asking.execute(sample.format(megabytes, name, node, minutes).encode())
        asking.execute("SET ROLE pgops_reader")
        assert asking.execute(size.encode()).fetchone() == (3200,)


def test_a_reader_sees_the_nodes(deployed: Server) -> None:
    with deployed.connect("pgops") as asking:
        asking.execute("SET ROLE pgops_reader")
        assert asking.execute("SELECT node, cluster FROM pgops.nodes").fetchall() == [("db1/main", "shop")]


@pytest.mark.every_major
def test_each_metric_is_of_its_collector(deployed: Server, tmp_path: Path) -> None:
    # Some collectors have no samples of an idle server.
    assert collect(deployed, tmp_path)["errors"] == inspect(deployed, tmp_path)["errors"] == []
    seen = "SELECT array_agg(DISTINCT collector) FROM pgops.collector_status WHERE node = '{}'"
    heard = set(deployed.value(seen.format("db1/main"), "pgops"))  # type: ignore[call-overload]
    assert {"agent", "inspect", "database_size", "disks", "sequences", "table_bloat", "index_bloat", "wal"} <= heard
    assert heard <= {
        "agent",
        "inspect",
        "login",
        *(one.name for one in SHIPPED if one.applies(deployed.major, False)),
    }
    header = "-- collector: by_{0}\n-- role: {0}\n-- metric: own\nSELECT 1 AS own"
    texts = [header.format(role) for role in ("primary", "standby")]
    deploy(deployed, collectors=texts)
    every = [*SHIPPED, *(collectors.parse(text, "own") for text in texts)]
    sample = "INSERT INTO pgops.system_metrics (metric_name, metric_value, node) VALUES (%s, 1, %s)"
    with deployed.connect("pgops") as asking:
        for role in ("primary", "standby"):
            found = [one for one in every if one.applies(deployed.major, role == "standby")]
            for one in found:
                # A node for each, so that no metric hides behind another.
                node = f"{role} {one.name}"
                asking.execute("SELECT pgops.register_node('shop', %s, 'o', %s, '')", [node, role == "primary"])
                for metric in one.metrics:
                    asking.execute(sample, [metric.name, node])
            given = asking.execute(
                "SELECT node, array_agg(collector) FROM pgops.collector_status WHERE node ~ (%s || ' ') GROUP BY 1",
                [role],
            ).fetchall()
            assert dict(given) == {f"{role} {one.name}": [one.name] for one in found}


def test_other_databases_are_as_last_collected_and_our_own_as_it_is(deployed: Server) -> None:
    deployed.value("CREATE TABLE public.own (n int UNIQUE, EXCLUDE USING btree (n WITH =))", "pgops")
    deployed.value("CREATE INDEX own_n ON public.own (n)", "pgops")
    sample = (
        "INSERT INTO pgops.system_metrics (metric_name, metric_value, database_name, schema_name, table_name, "
        "index_name, collected_at) VALUES ('{}', {}, 'shop', 'public', 'item', {}, now() - interval '{} minutes')"
    )
    for name, value, minutes in (("table_seq_scans", 7, 9), ("table_seq_scans", 8, 4), ("table_last_vacuum", 60, 4)):
        deployed.value(sample.format(name, value, "NULL", minutes), "pgops")
    deployed.value(sample.format("index_scans", 99, "'by_name'", 4), "pgops")
    tables = """SELECT database_name, seq_scan, extract(epoch FROM last_vacuum)::int, age > '3 minutes'
                FROM pgops.table_activity_summary WHERE tablename IN ('own', 'item') ORDER BY 1"""
    indexes = """SELECT database_name, indexname, scans, usage_category FROM pgops.index_usage_summary
                 WHERE tablename IN ('own', 'item') ORDER BY 1"""
    scans = deployed.value("SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'own'", "pgops")
    with deployed.connect("pgops") as asking:
        for role in ("pgops", "pgops_reader"):
            asking.execute(f"SET ROLE {role}".encode())
            found = asking.execute(tables.encode()).fetchall()
            assert found == [("pgops", scans, None, False), ("shop", 8, 60, True)]
            found = asking.execute(indexes.encode()).fetchall()
            assert found == [("pgops", "own_n", 0, "UNUSED"), ("shop", "by_name", 99, "LOW_USAGE")]


def test_an_index_that_is_locked_is_estimated_and_not_waited_for(deployed: Server) -> None:
    deployed.value("CREATE TABLE public.busy AS SELECT n FROM generate_series(1, 5000) AS n", "pgops")
    deployed.value("CREATE INDEX busy_n ON public.busy (n)", "pgops")
    select = "SELECT index_size_bytes FROM pgops.index_usage_summary WHERE indexname = 'busy_n'"
    size = deployed.value("SELECT pg_relation_size('public.busy_n')", "pgops")
    with deployed.connect("pgops") as holder, deployed.connect("pgops") as asking:
        asking.execute("SET lock_timeout = '1s'")
        holder.execute("BEGIN; REINDEX INDEX public.busy_n")
        assert asking.execute(select.encode()).fetchone() == (size,)
