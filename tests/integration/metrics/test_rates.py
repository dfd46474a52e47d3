# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Counters read as rates, over whatever happens to the server that counts."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import clusters
import psycopg
import pytest
from deploying import collect, deploy, withdraw
from servers import Server
from waiting import until

from pgops.metrics import collectors
from pgops.metrics.history import Runs

SCANS = collectors.parse(
    """-- collector: scans
-- scope: database
-- interval: 1
-- metric: scans kind=counter
-- metric: rows_read kind=counter
-- metric: rows_there
SELECT current_database() AS database, schemaname AS schema, relname AS table, seq_scan AS scans,
       seq_tup_read AS rows_read, n_live_tup AS rows_there,
       (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()) AS counted_since
FROM pg_stat_user_tables WHERE schemaname = 'public'
""",
    "scans.sql",
)
COMMITS = collectors.parse(
    """-- collector: commits
-- interval: 1
-- metric: commits kind=counter
SELECT datname AS database, xact_commit AS commits, stats_reset AS counted_since
FROM pg_stat_database WHERE datname = 'shop'
""",
    "commits.sql",
)
ARCHIVED = collectors.parse(
    """-- collector: archived
-- interval: 1
-- metric: failures kind=counter
SELECT failed_count AS failures, stats_reset AS counted_since FROM pg_stat_archiver
""",
    "archived.sql",
)


class Counted:
    """A server with two tables in the database `shop`, and what its agent remembers."""

    def __init__(self, server: Server, state: Path) -> None:
        self.server, self.state, self.runs = server, state, Runs()
        self.seen = 0

    def scan(self, times: int, table: str = "a") -> None:
        """Read a table so many times, and wait until the server has counted that."""
        count = f"SELECT coalesce(seq_scan, 0) FROM pg_stat_user_tables WHERE relname = '{table}'"
        before = int(str(self.server.value(count, "shop")))
        with self.server.connect("shop") as session:
            for _time in range(times):
                session.execute(f"SELECT count(*) FROM public.{table}".encode())
        until(lambda: int(str(self.server.value(count, "shop"))) >= before + times, "counted")

    def collect(self) -> None:
        self.runs.last.clear()  # all are due, however little time has passed
        outcome = collect(self.server, self.state, found=[SCANS, COMMITS, ARCHIVED], runs=self.runs)
        assert outcome["errors"] == []

    def increase(self, table: str = "a", metric: str = "scans") -> float:
        """What the function says of the table's counter, over all there is."""
        rates = f"SELECT increase FROM pgops.metric_rates('{metric}') WHERE table_name = '{table}'"
        return float(str(self.server.value(rates, "pgops")))


@pytest.fixture(name="counted")
def _counted(major: int, new_server: Callable[..., Server], tmp_path: Path) -> Counted:
    server = new_server(major, settings={"autovacuum": "off"}).start()
    deploy(server)
    server.value("CREATE DATABASE shop")
    for table in ("a", "b"):
        server.value(f"CREATE TABLE public.{table} AS SELECT g FROM generate_series(1, 100) AS g", "shop")
    return Counted(server, tmp_path)


@pytest.fixture(name="deployed", scope="module")
def _deployed(server: Server) -> Iterator[Server]:
    deploy(server)
    yield server
    withdraw(server)


def _reset(server: Server, call: str) -> None:
    before = server.value("SELECT stats_reset FROM pg_stat_database WHERE datname = 'shop'")
    server.value(f"SELECT {call}", "shop")
    changed = "SELECT stats_reset FROM pg_stat_database WHERE datname = 'shop'"
    until(lambda: server.value(changed) != before, "reset")


@pytest.mark.every_major
def test_what_was_counted_is_counted_over_resets_restarts_and_crashes(counted: Counted) -> None:
    with counted.server.connect("shop") as session:  # it has lived for a while
        for _commit in range(500):
            session.execute("SELECT 1")
    counted.scan(5)
    counted.collect()
    counted.scan(3)
    counted.collect()
    assert counted.increase() == 3
    # A reset after which the counter has already gone further than it was before.
    _reset(counted.server, "pg_stat_reset()")
    counted.scan(20)
    counted.collect()
    assert counted.increase() == 23
    # One table's counters are reset: the other's go on.
    counted.scan(7, "b")
    counted.collect()
    assert counted.increase("b") == 7
    _reset(counted.server, "pg_stat_reset_single_table_counters('public.a'::regclass)")
    counted.scan(2)
    counted.scan(1, "b")
    counted.collect()
    assert (counted.increase(), counted.increase("b")) == (25, 8)
    # A clean restart loses nothing.
    counted.server.stop()
    counted.server.start()
    counted.scan(4)
    counted.collect()
    assert (counted.increase(), counted.increase("b")) == (29, 8)
    # A crash loses everything, and more is counted afterwards than was before.
    counted.server.value("CHECKPOINT")  # or the last samples are lost as well: nobody waits for them to be on disk
    counted.server.kill()
    counted.server.start()
    counted.scan(40)
    counted.collect()
    assert (counted.increase(), counted.increase(metric="rows_read")) == (69, 6900)


def test_statistics_of_the_whole_server_that_are_reset_are_no_leap_of_all_others(counted: Counted) -> None:
    counted.scan(50)
    counted.collect()
    for kind in ("bgwriter", "archiver", "wal"):
        counted.server.value(f"SELECT pg_stat_reset_shared('{kind}')")
    counted.scan(1)
    counted.collect()
    assert counted.increase() == 1


def test_a_clean_restart_and_a_reset_in_one_step_are_no_leap(counted: Counted) -> None:
    with counted.server.connect("shop") as session:  # it has lived for a while
        for _commit in range(500):
            session.execute("SELECT 1")
    counted.scan(50)
    counted.collect()
    counted.server.stop()
    counted.server.start()
    for kind in ("bgwriter", "archiver", "wal"):
        counted.server.value(f"SELECT pg_stat_reset_shared('{kind}')")
    counted.scan(3)
    counted.collect()
    assert (counted.increase(), counted.increase(metric="rows_read")) == (3, 300)
    commits = "SELECT increase FROM pgops.metric_rates('commits')"
    assert 0 < float(str(counted.server.value(commits, "pgops"))) < 400


def _scans(server: Server, node: str) -> list[float]:
    """By how much the counter of the table a has grown on a node, over all and at least in a step."""
    select = (
        "SELECT ARRAY[sum(c.increase), min(c.increase)] "
        "FROM pgops.counter_steps('scans', now() - interval '1 hour', now()) AS c "
        "INNER JOIN pgops.series AS s USING (series_id) INNER JOIN pgops.node AS n USING (node_id) "
        f"WHERE s.table_name = 'a' AND n.node = '{node}'"
    )
    return list(server.value(select, "pgops"))  # type: ignore[call-overload]


def test_a_failover_and_a_return_are_no_leap(counted: Counted, keep: Any, tmp_path: Path) -> None:
    """The promoted standby counts on, the old primary's series end, and begin anew without what others counted."""
    own = [SCANS, COMMITS, ARCHIVED]
    first = clusters.primary(counted.server, "db1/main", tmp_path)
    second = first.standby("db2/main", tmp_path / "second")
    follower = Counted(keep(second.server).start(), tmp_path)
    clusters.streaming(first.server)
    counted.scan(50)
    follower.scan(200)
    for node in (first, second):
        node.collect(own)
    counted.scan(2)
    follower.scan(3)
    for node in (first, second):
        assert node.collect(own)["errors"] == []
    until(lambda: second.server.value("SELECT count(*) FROM pgops.nodes", "pgops"), "replayed", 2)
    first.server.stop()
    promoted_at = second.server.value("SELECT now()")
    second.server.promote()
    follower.scan(4)
    assert second.collect(own)["sink"] == "local"
    roles = "SELECT array_agg(node ORDER BY node) FILTER (WHERE is_primary) FROM pgops.nodes"
    assert second.server.value(roles, "pgops") == ["db2/main"]
    assert (_scans(second.server, "db1/main"), _scans(second.server, "db2/main")) == ([2, 2], [7, 3])
    ends = "SELECT max(ended_at) < '{}' FROM pgops.recent_rates WHERE node = 'db1/main'"
    assert second.server.value(ends.format(promoted_at), "pgops") is True
    assert second.server.value("SELECT count(*) FROM pgops.recent_rates WHERE NOT rate >= 0", "pgops") == 0
    # The old primary returns as a copy of the new one, made while that was stopped: its statistics are copied, too.
    second.server.stop()
    shutil.rmtree(first.server.data_dir)
    second.server.run("cp", "-a", second.server.data_dir, first.server.data_dir)
    first.server.write(first.server.data_dir / "standby.signal", "")
    place = {"port": str(first.server.port), "unix_socket_directories": str(first.server.socket_dir)}
    first.server.configure({**place, "primary_conninfo": second.server.dsn("")})
    second.server.start()
    first.server.start()
    clusters.streaming(second.server)
    assert first.collect(own)["errors"] == []
    counted.scan(5)
    assert first.collect(own)["errors"] == []
    total, least = _scans(second.server, "db1/main")
    assert total == 7
    assert least >= 0
    assert second.server.value(roles, "pgops") == ["db2/main"]


def test_rates_and_values_come_in_steps(counted: Counted) -> None:
    insert = "INSERT INTO pgops.system_metrics (metric_name, metric_kind, metric_value, collected_at) VALUES {}"
    rows = ", ".join(
        f"('{name}', '{kind}', {value}, '2026-01-01 00:00Z'::timestamptz + interval '{minute} min')"
        for minute in range(11)
        for name, kind, value in (("done", "counter", 60 * minute), ("level", "gauge", minute))
    )
    server = counted.server
    server.value(insert.format(rows), "pgops")
    window = "'2026-01-01 00:00Z', '2026-01-01 00:10Z'"
    assert server.value(f"SELECT array_agg(rate) FROM pgops.metric_rates('done', {window})", "pgops") == [1.0]
    stepped = f"SELECT array_agg(increase ORDER BY started_at) FROM pgops.metric_rates('done', {window}, '5 min')"
    assert server.value(stepped, "pgops") == [300.0, 300.0]
    select = (
        "SELECT array_agg(ARRAY[samples, minimum, average, maximum, last] ORDER BY started_at) "
        f"FROM pgops.metric_values('level', {window}, '5 min')"
    )
    assert server.value(select, "pgops") == [[5.0, 1.0, 3.0, 5.0, 5.0], [5.0, 6.0, 8.0, 10.0, 10.0]]


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("metric_rates('level')", "a gauge, which has no rate"),
        ("metric_rates('nothing')", "metric 'nothing' was never collected"),
        ("metric_values('nothing')", "metric 'nothing' was never collected"),
        ("metric_values(NULL)", "metric NULL was never collected"),
        ("metric_values('lo''t \"\"s')", "metric 'lo''t \"\"s' was never collected"),
        ("metric_values('level', p_step => '0')", "longer than 0"),
        ("metric_values('level', p_step => '-1 h')", "longer than 0"),
        ("metric_values('level', p_step => '1 month')", "no fixed length"),
        ("metric_values('level', '-infinity', p_step => '1 h')", "cannot start at -infinity"),
        ("metric_values('level', now(), now())", "is empty"),
        ("metric_values('level', now(), now() - interval '1 h')", "is empty"),
        ("metric_values('level', NULL)", "from NULL to .* is empty"),
        ("metric_rates('done', now(), now() - interval '1 h')", "is empty"),
        ("metric_rates('done', p_step => '1 year')", "no fixed length"),
    ],
)
def test_what_cannot_be_meant_is_refused(deployed: Server, call: str, said: str) -> None:
    insert = "INSERT INTO pgops.system_metrics (metric_name, metric_kind, metric_value) VALUES ('{}', '{}', 1)"
    for name, kind in (("level", "gauge"), ("done", "counter")):
        deployed.value(insert.format(name, kind), "pgops")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match=said):
        deployed.value(f"SELECT count(*) FROM pgops.{call}", "pgops")


def test_an_unknown_metric_is_answered_by_those_of_like_names(deployed: Server) -> None:
    for typo, meant in (("activ_connections", "active_connections"), ("Cache_Hit_Ration", "cache_hit_ratio")):
        with pytest.raises(psycopg.errors.InvalidParameterValue) as raised:
            deployed.value(f"SELECT count(*) FROM pgops.metric_values('{typo}')", "pgops")
        assert str(raised.value.diag.message_hint).startswith(f"Similar names: {meant}")
    with pytest.raises(psycopg.errors.InvalidParameterValue) as raised:
        deployed.value("SELECT count(*) FROM pgops.metric_rates('qqqqqq')", "pgops")
    assert str(raised.value.diag.message_hint).startswith("SELECT metric_name")


def test_any_time_and_any_name_may_be_asked_for(deployed: Server) -> None:
    odd = "it''s \"odd\" % {}"
    insert = (
        "INSERT INTO pgops.system_metrics (metric_name, metric_kind, metric_value, collected_at) "
        "VALUES ('{}', 'counter', {}, now() - interval '{} min')"
    )
    for value, minutes in ((1, 2), (5, 1)):
        deployed.value(insert.format(odd, value, minutes), "pgops")
    for ask in ("metric_values", "metric_rates"):
        for window, seen in (
            ("'-infinity', 'infinity'", 1),
            ("'4713-01-01 BC', '294276-01-01', '1 day'", 1),
            ("'1900-01-01', '1901-01-01'", 0),
            ("'2900-01-01', '2901-01-01'", 0),
        ):
            found = deployed.value(f"SELECT count(*) FROM pgops.{ask}('{odd}', {window})", "pgops")
            assert found == seen, (ask, window)


def test_a_series_that_came_twice_at_one_instant_has_no_rate_in_between(deployed: Server) -> None:
    sample = "INSERT INTO pgops.system_metrics (metric_name, metric_kind, metric_value, collected_at) VALUES "
    deployed.value(sample + "('done', 'counter', 1, '2026-01-01 00:00Z')", "pgops")
    shape = '[{"metric": "other"}, {"metric": "done"}]'
    metric = '[{"metric_name": "other", "category": "performance", "unit": "count", "kind": "gauge"}]'
    deployed.value(f"SELECT pgops.define_shape(pgops.primary_node_id(), '\\x01', '{metric}', '{shape}')", "pgops")
    stored = "SELECT pgops.store_round(pgops.primary_node_id(), '\\x01', 'o', '2026-01-01 00:00Z', '{0, 3}')"
    assert deployed.value(stored, "pgops") is True
    window = "'2025-12-31', '2026-01-02'"
    assert deployed.value(f"SELECT count(rate) FROM pgops.metric_rates('done', {window})", "pgops") == 0


def test_readers_may_ask(deployed: Server) -> None:
    deployed.value("INSERT INTO pgops.system_metrics (metric_name, metric_value) VALUES ('level', 1)", "pgops")
    reader: dict[str, Any] = {}
    with deployed.connect("pgops") as session:
        session.execute("SET ROLE pgops_reader")
        for ask in ("recent_rates", "metrics", "metric_values('level')"):
            reader[ask] = session.execute(f"SELECT count(*) FROM pgops.{ask}".encode()).fetchone()
    assert reader["metrics"][0] > 0
