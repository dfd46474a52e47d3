# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Counters count on for the same object, whatever its name is, and never for another one that gets its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from deploying import SHIPPED, collect, deploy
from servers import Server
from waiting import until

from pgops.instance.layout import Layout
from pgops.metrics import collectors, exposition, latest
from pgops.metrics.history import Runs

COUNTING = [one for one in SHIPPED if one.name in ("database_activity", "table_activity", "index_activity")]
QUEUE = collectors.parse(
    """-- collector: queue
-- scope: database
-- interval: 1
-- metric: queue_added kind=counter
SELECT current_database() AS database, 'jobs' AS queue, n_tup_ins AS queue_added
FROM pg_stat_user_tables WHERE relname = 't'
""",
    "queue.sql",
)
COMMITS = collectors.parse(
    """-- collector: commits
-- interval: 1
-- metric: commits kind=counter
SELECT datname AS database, xact_commit AS commits, stats_reset AS counted_since
FROM pg_stat_database WHERE datname = 'a'
""",
    "commits.sql",
)


class Ledger:
    """A server with a table `t` in each of the databases `a` and `b`, and what its agent remembers."""

    def __init__(self, server: Server, state: Path) -> None:
        self.server, self.state, self.runs = server, state, Runs()

    def insert(self, database: str, rows: int, table: str = "t") -> None:
        """Insert rows, and wait until the server has counted them."""
        of_table = f"SELECT n_tup_ins FROM pg_stat_user_tables WHERE relname = '{table}'"
        of_database = f"SELECT tup_inserted FROM pg_stat_database WHERE datname = '{database}'"
        before = [int(str(self.server.value(count, database))) for count in (of_table, of_database)]
        self.server.value(f"INSERT INTO public.{table} SELECT generate_series(1, {rows})", database)
        for count, known in zip((of_table, of_database), before):
            until(lambda count=count: int(str(self.server.value(count, database))), "counted", known + rows)  # type: ignore[misc]

    def collect(self, *others: collectors.Collector) -> None:
        self.runs.last.clear()  # all are due, however little time has passed
        outcome = collect(self.server, self.state, found=[*COUNTING, *others], runs=self.runs)
        assert outcome["errors"] == []

    def increase(self, metric: str, **labels: str) -> float | None:
        """What the function says of a counter, over all there is; None if it says nothing."""
        where = " AND ".join(f"{name} = '{value}'" for name, value in labels.items())
        found = self.server.value(f"SELECT sum(increase) FROM pgops.metric_rates('{metric}') WHERE {where}", "pgops")
        return None if found is None else float(str(found))

    def increases(self, metric: str) -> dict[str, float]:
        """The same of both databases."""
        names = {name: self.increase(metric, database_name=name) for name in ("a", "b")}
        return {name: found for name, found in names.items() if found is not None}

    def swap(self) -> None:
        """Give each database the other's name."""
        for old, new in (("a", "other"), ("b", "a"), ("other", "b")):
            self.server.value(f"ALTER DATABASE {old} RENAME TO {new}")


@pytest.fixture(name="ledger")
def _ledger(major: int, new_server: Callable[..., Server], tmp_path: Path) -> Ledger:
    server = new_server(major, settings={"autovacuum": "off"}).start()
    deploy(server)
    made = Ledger(server, tmp_path)
    for name, rows in (("a", 1000), ("b", 500_000)):
        server.value(f"CREATE DATABASE {name}")
        server.value("CREATE TABLE public.t (i integer PRIMARY KEY)", name)
        made.insert(name, rows)
    return made


@pytest.mark.every_major(since=15)  # before, statistics come some time after what they are of
def test_databases_that_swap_their_names_count_what_was_inserted(ledger: Ledger) -> None:
    ledger.collect(QUEUE)
    ledger.swap()
    ledger.server.value("TRUNCATE public.t", "a")
    ledger.insert("a", 3)
    ledger.collect(QUEUE)
    for metric in ("tuples_inserted", "table_tuples_inserted", "queue_added"):
        assert ledger.increases(metric) == {"a": 3, "b": 0}, metric
    ledger.swap()
    ledger.server.value("TRUNCATE public.t", "a")
    ledger.insert("a", 2)
    ledger.collect(QUEUE)
    for metric in ("tuples_inserted", "table_tuples_inserted", "queue_added"):
        assert ledger.increases(metric) == {"a": 5, "b": 0}, metric


def test_what_was_counted_under_another_name_is_counted_once(ledger: Ledger) -> None:
    ledger.collect()
    ledger.server.value("TRUNCATE public.t", "a")
    for old, name, rows in (("a", "c", 10), ("c", "c", 20), ("c", "a", 40)):
        if name != old:
            ledger.server.value(f"ALTER DATABASE {old} RENAME TO {name}")
        ledger.server.value("TRUNCATE public.t", name)
        ledger.insert(name, rows)
        ledger.collect()
    assert ledger.increase("table_tuples_inserted", database_name="c") == 30
    assert ledger.increase("table_tuples_inserted", database_name="a") == 40


@pytest.mark.every_major(since=15)  # before, statistics come some time after what they are of
def test_tables_and_indexes_that_swap_their_names_count_what_was_inserted(ledger: Ledger) -> None:
    server = ledger.server
    server.value("CREATE TABLE public.u (i integer PRIMARY KEY)", "a")
    ledger.insert("a", 5, "u")
    server.value("SET enable_seqscan = off; SELECT count(*) FROM public.t WHERE i = 1", "a")
    scanned = "SELECT idx_scan FROM pg_stat_user_indexes WHERE indexrelname = 't_pkey'"
    until(lambda: server.value(scanned, "a"), "counted", 1)
    ledger.collect()
    for kind, suffix in (("TABLE", ""), ("INDEX", "_pkey")):
        for old, new in (("t", "other"), ("u", "t"), ("other", "u")):
            server.value(f"ALTER {kind} public.{old}{suffix} RENAME TO {new}{suffix}", "a")
    server.value("TRUNCATE public.t", "a")
    ledger.insert("a", 3)
    ledger.collect()
    increases = {name: ledger.increase("table_tuples_inserted", database_name="a", table_name=name) for name in "tu"}
    assert increases == {"t": 3, "u": 0}
    scans = {name: ledger.increase("index_scans", database_name="a", index_name=f"{name}_pkey") for name in "tu"}
    assert scans == {"t": 0, "u": 0}


def test_another_object_of_the_same_name_begins_anew(ledger: Ledger) -> None:
    ledger.collect()
    server = ledger.server
    server.value("DROP TABLE public.t; CREATE TABLE public.t (i integer)", "a")
    ledger.insert("a", 5000)
    server.value("DROP DATABASE b")
    server.value("CREATE DATABASE b")
    server.value("CREATE TABLE public.t (i integer)", "b")
    ledger.insert("b", 600_000)
    ledger.collect()
    assert ledger.increases("table_tuples_inserted") == {}
    assert set(ledger.increases("tuples_inserted")) == {"a"}
    for name in ("a", "b"):
        ledger.insert(name, 4)
    ledger.collect()
    assert ledger.increases("table_tuples_inserted") == {"a": 4, "b": 4}
    assert ledger.increase("tuples_inserted", database_name="b") == 4


def test_what_the_function_in_the_database_measures_is_of_the_same_objects(ledger: Ledger) -> None:
    ledger.collect()
    ledger.insert("b", 0)
    ledger.server.value("SELECT pgops.collect_database_metrics()", "pgops")
    ledger.swap()
    ledger.server.value("SELECT pgops.collect_database_metrics()", "pgops")
    assert ledger.increases("tuples_inserted") == {"a": 0, "b": 0}
    series = (
        "SELECT count(*) FROM pgops.series AS s JOIN pgops.metric AS m USING (metric_id) "
        "WHERE m.metric_name = 'tuples_inserted' AND s.database_name = 'a'"
    )
    assert ledger.server.value(series, "pgops") == 2  # one for each that had the name


def test_the_newest_value_is_that_of_who_has_the_name(ledger: Ledger) -> None:
    ledger.collect()
    ledger.swap()
    ledger.collect()
    newest = (
        "SELECT array_agg(inserts ORDER BY database_name) FROM pgops.table_activity_summary "
        "WHERE tablename = 't' AND database_name IN ('a', 'b')"
    )
    assert ledger.server.value(newest, "pgops") == [500_000, 1000]


def test_a_counter_whose_identity_was_not_known_keeps_its_history(ledger: Ledger) -> None:
    ledger.collect(COMMITS)
    known = replace(COMMITS, query=COMMITS.query.replace("SELECT datname", "SELECT datid AS identity, datname"))
    most = "SELECT max(metric_value) FROM pgops.system_metrics WHERE metric_name = 'commits'"
    before = float(str(ledger.server.value(most, "pgops")))
    ledger.insert("a", 0)
    ledger.collect(known)
    after = float(str(ledger.server.value(most, "pgops")))
    assert after > before
    assert ledger.increase("commits", database_name="a") == after - before


def test_the_export_tells_objects_of_one_name_apart(ledger: Ledger) -> None:
    rows = {"a": 1000, "b": 500_000}
    known = collectors.metrics(COUNTING)
    for _time in range(2):
        ledger.collect()
        runs = latest.load(Layout("main", str(ledger.state)).latest)
        shown = exposition.exposition(known.values(), runs, "shop", "db1/main").splitlines()
        for name, inserted in rows.items():
            database = ledger.server.value(f"SELECT oid::text FROM pg_database WHERE datname = '{name}'")
            table = ledger.server.value("SELECT 'public.t'::regclass::oid::text", name)
            labels = f'cluster="shop",database="{name}",identity="{database}/{table}",node="db1/main",schema="public"'
            assert f'pgops_table_tuples_inserted_total{{{labels},table="t"}} {inserted}' in shown
            assert not any("pgops_table_live_tuples" in line and "identity" in line for line in shown)
        ledger.swap()
        rows = {"a": rows["b"], "b": rows["a"]}
