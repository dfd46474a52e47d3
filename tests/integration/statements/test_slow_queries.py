# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What statements did is stored as it happened, with no secret in it, and nothing is lost or made up."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deploying import configured, deploy
from servers import Server
from waiting import until

from pgops import cli
from pgops.errors import PgOpsError
from pgops.metrics import partitions
from pgops.statements import job as usage

SECRET = "hunter2hunter2"
COUNTED = "SELECT count(amname) FROM pg_am"
PRELOAD = {"shared_preload_libraries": "pg_stat_statements", "compute_query_id": "on", "shared_buffers": "16MB"}
EXTENSION = "CREATE EXTENSION pg_stat_statements WITH SCHEMA public; GRANT USAGE ON SCHEMA public TO pgops"
STORED = """
SELECT coalesce(sum(u.calls), 0)::bigint FROM pgops.query_usage AS u JOIN pgops.statement AS k USING (statement_id)
JOIN pgops.query_text AS t USING (cluster, queryid) WHERE t.query LIKE '{}' AND k.database_name LIKE '{}'
AND k.user_name LIKE '{}'
"""
NEGATIVE = """
SELECT count(*) FROM pgops.query_usage AS u, jsonb_each_text(to_jsonb(u)) AS f (name, amount)
WHERE f.name <> 'ended_at' AND f.amount ~ '^-'
"""


def _deployed(server: Server) -> Server:
    deploy(server)
    server.value(EXTENSION, "pgops")
    return server


def run(server: Server, state: Path, **settings: Any) -> dict[str, Any]:
    """One run of the job as the agent's user; ``state`` is the agent's prefix."""
    return usage.collect(*configured(server, state, **settings))


def stored(server: Server, text: str, database: str = "%", user: str = "%") -> int:
    """How many executions of statements with a text like this one are stored."""
    return int(str(server.value(STORED.format(text, database, user), "pgops")))


def execute(server: Server, times: int, statement: str = COUNTED, database: str = "postgres") -> None:
    with server.connect(database) as session:
        for _time in range(times):
            session.execute(statement.encode())


@pytest.mark.every_major
def test_differences_are_the_real_executions(counting: Server, tmp_path: Path) -> None:
    execute(counting, 7)
    assert run(counting, tmp_path)["first"]
    assert counting.value("SELECT count(*) FROM pgops.query_usage", "pgops") == 0
    for times in (3, 5):
        execute(counting, times, "SELECT g FROM generate_series(1, 10) AS g")
        outcome = run(counting, tmp_path)
        assert (outcome["errors"], outcome["sink"]) == ([], "local")
    assert stored(counting, "SELECT g FROM%") == 8
    assert stored(counting, COUNTED) == 0
    found = counting.value(
        "SELECT to_jsonb(q) FROM pgops.analyze_slow_queries() AS q WHERE query_pattern LIKE 'SELECT g FROM%'", "pgops"
    )
    assert isinstance(found, dict)
    assert found["total_executions"] == 8
    assert found["avg_execution_time_ms"] == pytest.approx(found["total_time_spent_ms"] / 8)
    real = counting.value(
        "SELECT sum(total_exec_time) FROM pg_stat_statements WHERE query LIKE 'SELECT g FROM%'", "pgops"
    )
    assert found["total_time_spent_ms"] == pytest.approx(real)
    rows = "SELECT row_count FROM pgops.top_queries('rows') WHERE query LIKE 'SELECT g FROM%'"
    assert counting.value(rows, "pgops") == 80


def test_shares_and_priorities_are_those_of_the_time(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    execute(counting, 1, "SELECT pg_sleep(0.2)")
    run(counting, tmp_path)
    real = counting.value("SELECT max_exec_time FROM pg_stat_statements WHERE query LIKE '%pg_sleep%'", "pgops")
    found = counting.value(
        "SELECT max_execution_time_ms FROM pgops.analyze_slow_queries(1) WHERE query_pattern LIKE '%pg_sleep%'",
        "pgops",
    )
    assert found == pytest.approx(real)
    total = counting.value("SELECT sum(percentage_of_total_time) FROM pgops.analyze_slow_queries()", "pgops")
    assert total == pytest.approx(100)
    first = "SELECT query FROM pgops.top_queries('{}', p_limit => 1)"
    for order in ("time", "calls", "rows", "io", "temp", "wal", "planning"):
        assert counting.value(first.format(order), "pgops")
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="cannot be ordered by colour"):
        counting.value(first.format("colour"), "pgops")
    # By far the longest are these, whatever has been done until now.
    for queryid, share in ((5, 93.0), (6, 6.0), (7, 1.0)):
        _store(counting, f"{queryid} min", f"{queryid - 1} min", (1, "d", queryid), calls=1, exec_ms=share * 10**9)
    columns = "query_pattern, optimization_priority, round(percentage_of_total_time)"
    expected = [["queryid 5", 1, 93], ["queryid 6", 2, 6], ["queryid 7", 3, 1]]
    assert _listed(counting, columns, "analyze_slow_queries(1)")[:3] == expected
    assert _listed(counting, "queryid", "top_queries('time', p_limit => 3)") == [[5], [6], [7]]


def test_the_reader_may_analyse_and_the_agent_may_not_read_what_is_stored(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    run(counting, tmp_path)
    for function in ("analyze_slow_queries()", "top_queries()"):
        with counting.connect("pgops") as reader:
            reader.execute("SET ROLE pgops_reader")
            assert reader.execute(f"SELECT FROM pgops.{function}".encode()).rowcount > 0
    with counting.connect("pgops") as agent:
        agent.execute("SET ROLE pgops")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            agent.execute("SELECT count(*) FROM pgops.query_text")


def test_databases_and_users_are_told_apart(counting: Server, tmp_path: Path) -> None:
    counting.value("CREATE ROLE bob")
    counting.value("CREATE DATABASE shop")
    run(counting, tmp_path)
    execute(counting, 3)
    execute(counting, 4, f"SET ROLE bob; {COUNTED}; RESET ROLE", "shop")
    run(counting, tmp_path)
    assert stored(counting, COUNTED, "postgres", counting.superuser) == 3
    assert stored(counting, COUNTED, "shop", "bob") == 4
    assert stored(counting, COUNTED) == 7


@pytest.mark.every_major
def test_evictions_are_seen_and_nothing_is_negative(
    major: int, new_server: Callable[..., Server], tmp_path: Path
) -> None:
    server = _deployed(new_server(major, settings={**PRELOAD, "pg_stat_statements.max": "100"}).start())
    with server.connect() as session:
        for number in range(150):
            session.execute(f"CREATE TABLE public.t{number} (a integer)".encode())
    run(server, tmp_path)
    active = "SELECT sum(active_time) FROM pg_stat_database"
    for _round in range(3):
        before = float(str(server.value(active)))
        with server.connect() as session:
            for number in range(150):
                session.execute(f"SELECT a FROM public.t{number}".encode())
        # Sessions tell what they did when they end, and the server shows it a little later.
        until(lambda past=before: float(str(server.value(active))) > past + 1, "told")  # type: ignore[misc]
        outcome = run(server, tmp_path)
        assert outcome["coverage"] is not None
        assert 0 < outcome["coverage"] < 100
    assert server.value(NEGATIVE, "pgops") == 0
    assert server.value("SELECT count(*) FROM pgops.query_usage", "pgops")
    _evictions_can_be_read(server, tmp_path)


def _evictions_can_be_read(server: Server, tmp_path: Path) -> None:
    """In the view, as metrics and exported: after a run that only read, and three in which some were dropped."""
    intervals = _listed(server, "node, ended_at > started_at, coverage, evictions", "query_coverage")
    assert isinstance(intervals, list)
    assert len(intervals) == 3
    assert all(one[:2] == ["db1/main", True] and 0 < one[2] < 100 and one[3] > 0 for one in intervals)
    evicted, coverages = _samples(server, "statements_evicted"), _samples(server, "query_coverage_percent")
    assert len(evicted) == 4
    told = server.value("SELECT dealloc FROM pg_stat_statements_info", "pgops")
    assert evicted[0] < evicted[-1] <= float(str(told))
    assert sum(one[3] for one in intervals) == evicted[-1] - evicted[0]
    assert sorted(coverages) == pytest.approx(sorted(one[2] for one in intervals))
    increase = "SELECT sum(increase) FROM pgops.metric_rates('statements_evicted')"
    assert server.value(increase, "pgops") == evicted[-1] - evicted[0]

    exported = _exported(server, tmp_path)
    for name, value in (("statements_evicted_total", evicted[-1]), ("query_coverage_ratio", coverages[-1] / 100)):
        (shown,) = [line for line in exported if line.startswith(f"pgops_{name}{{")]
        assert float(shown.split()[-1]) == pytest.approx(value)

    server.value("SELECT pg_stat_statements_reset() IS NULL", "pgops")
    run(server, tmp_path)
    again = _samples(server, "statements_evicted")[-1]
    assert again < evicted[-1]
    assert server.value(increase, "pgops") == evicted[-1] - evicted[0] + again
    newest = "(SELECT * FROM pgops.query_coverage ORDER BY ended_at DESC LIMIT 1) AS c"
    assert server.value(f"SELECT evictions IS NULL FROM {newest}", "pgops") is True


def _samples(server: Server, metric: str) -> list[float]:
    """All of a metric, the oldest first."""
    samples = server.value(
        "SELECT coalesce(jsonb_agg(metric_value ORDER BY collected_at), '[]') FROM pgops.system_metrics "
        f"WHERE metric_name = '{metric}'",
        "pgops",
    )
    assert isinstance(samples, list)
    return [float(one) for one in samples]


def _exported(server: Server, tmp_path: Path) -> list[str]:
    """What Prometheus gets."""
    configuration, layout = configured(server, tmp_path)
    Path(layout.agent_file).parent.mkdir(parents=True)
    Path(layout.agent_file).write_text(configuration.text())
    output = tmp_path / "exported.prom"
    assert cli.main(["--prefix", str(tmp_path), "--instance", "main", "export", "--output", str(output)]) == 0
    return output.read_text().splitlines()


@pytest.mark.every_major
def test_a_reset_loses_only_what_came_before_it(counting: Server, tmp_path: Path) -> None:
    execute(counting, 5)
    run(counting, tmp_path)
    execute(counting, 4)
    counting.value("SELECT pg_stat_statements_reset() IS NULL", "pgops")
    execute(counting, 3)
    outcome = run(counting, tmp_path)
    assert outcome["coverage"] is None or outcome["coverage"] < 100
    assert stored(counting, COUNTED) == 3
    assert counting.value(NEGATIVE, "pgops") == 0
    execute(counting, 2)
    run(counting, tmp_path)
    assert stored(counting, COUNTED) == 5


SLEEP = "SELECT pg_sleep(1.5)"
SLEPT_MS = 1500


def active(server: Server) -> float:
    """The time that sessions have been active, in ms."""
    return float(str(server.value("SELECT sum(active_time) FROM pg_stat_database")))


def read_active(state: Path, server: Server) -> float:
    """The same as in the job's last reading."""
    reading = json.loads(Path(configured(server, state)[1].state, "queries.json").read_text())
    return float(sum(milliseconds for _database, milliseconds, _since in reading["active"]))


def sleep(server: Server, **login: str) -> None:
    """Be active for a while, and wait until the server shows it."""
    before = active(server)
    with server.connect(**login) as session:  # type: ignore[arg-type]
        session.execute(SLEEP.encode())
    until(lambda: active(server) >= before + SLEPT_MS, "told")


@pytest.mark.every_major(since=15)  # before, statistics come some time after what they are of
def test_what_is_not_tracked_is_not_covered(counting: Server, tmp_path: Path) -> None:
    counting.value("CREATE ROLE batch LOGIN")
    counting.value("ALTER ROLE batch SET pg_stat_statements.track = 'none'")
    run(counting, tmp_path)
    before = read_active(tmp_path, counting)
    sleep(counting, user="batch")
    outcome, between = run(counting, tmp_path), read_active(tmp_path, counting)
    known = counting.value(
        "SELECT sum(u.exec_ms + coalesce(u.plan_ms, 0)) FROM pgops.query_usage AS u "
        "JOIN pgops.statement AS k USING (statement_id) WHERE k.toplevel",
        "pgops",
    )
    assert (outcome["errors"], stored(counting, "SELECT pg_sleep%")) == ([], 0)
    assert between >= before + SLEPT_MS
    assert outcome["coverage"] == pytest.approx(min(100, 100 * float(str(known)) / (between - before)))
    assert _samples(counting, "query_coverage_percent") == [pytest.approx(outcome["coverage"])]
    # And what is, is.
    sleep(counting)
    outcome, after = run(counting, tmp_path), read_active(tmp_path, counting)
    assert stored(counting, "SELECT pg_sleep%") == 1
    assert outcome["coverage"] >= min(100, 100 * SLEPT_MS / (after - between)) - 0.1


@pytest.mark.every_major
@pytest.mark.parametrize(("setting", "value"), [("compute_query_id", "off"), ("pg_stat_statements.track", "none")])
def test_a_server_that_tracks_nothing_is_told(counting: Server, tmp_path: Path, setting: str, value: str) -> None:
    counting.value(f"ALTER SYSTEM SET {setting} TO '{value}'")
    counting.reload()
    try:
        run(counting, tmp_path)
        sleep(counting)
        outcome = run(counting, tmp_path)
    finally:
        counting.value(f"ALTER SYSTEM RESET {setting}")
        counting.reload()
    (error,) = outcome["errors"]
    assert error.startswith("The server counted no statement, though its sessions were active for ")
    assert f": {setting} is {value}." in error
    assert (outcome["coverage"], outcome["statements"]) == (0, 0)


@pytest.mark.parametrize("how", ["restart", "crash"])
def test_a_restart_loses_nothing_and_a_crash_makes_up_nothing(counting: Server, tmp_path: Path, how: str) -> None:
    execute(counting, 5)
    run(counting, tmp_path)
    execute(counting, 4)
    if how == "restart":
        counting.stop()
        counting.start()
    else:
        _crash(counting)
    execute(counting, 3)
    outcome = run(counting, tmp_path)
    assert stored(counting, COUNTED) == (7 if how == "restart" else 3)
    assert outcome["coverage"] is None or outcome["coverage"] < 100 or how == "restart"


def _crash(server: Server) -> None:
    """Have the server lose its shared memory, which it does when one of its processes is killed."""
    with server.connect() as session:
        started = "SELECT backend_start FROM pg_stat_activity WHERE backend_type = 'checkpointer'"
        before = server.value(started)
        os.kill(session.info.backend_pid, signal.SIGKILL)
    until(lambda: _value_if_up(server, started) not in (None, before), "up again")


def _value_if_up(server: Server, query: str) -> object:
    try:
        return server.value(query)
    except psycopg.OperationalError:
        return None


def test_no_password_is_in_any_table(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    texts = [
        f"CREATE ROLE bob LOGIN PASSWORD '{SECRET}'",
        f"ALTER ROLE bob PASSWORD E'\\x41{SECRET}'",
        f"ALTER ROLE bob SET app.secret TO {SECRET}",
        f"SET app.api_key = '{SECRET}'",
        f"DO $$BEGIN EXECUTE 'ALTER ROLE bob PASSWORD ''{SECRET}'''; END$$",
        f"SELECT '{SECRET}' AS password",
    ]
    for text in texts:
        execute(counting, 1, text)
    outcome = run(counting, tmp_path)
    assert outcome["texts"] > 0
    assert stored(counting, "CREATE ROLE bob LOGIN PASSWORD%") == 1
    assert stored(counting, "ALTER ROLE bob%") == 2
    tables = counting.value(
        "SELECT array_agg(c.oid::regclass::text) FROM pg_class AS c WHERE c.relnamespace = 'pgops'::regnamespace "
        "AND c.relkind = 'r'",
        "pgops",
    )
    assert isinstance(tables, list)
    assert "pgops.query_text" in tables
    for table in tables:
        count = f"SELECT count(*) FROM {table} AS t WHERE t::text LIKE '%{SECRET}%'"
        assert counting.value(count, "pgops") == 0, table
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and SECRET.encode() in path.read_bytes()]
    assert kept == []


def test_without_texts_only_identifiers_are_stored(counting: Server, tmp_path: Path) -> None:
    for _time in range(2):
        outcome = run(counting, tmp_path, query_texts=False)
    assert outcome["stored"] > 0
    assert outcome["texts"] == 0
    assert counting.value("SELECT count(*) FROM pgops.query_text", "pgops") == 0
    patterns = "SELECT bool_and(query_pattern ~ '^queryid -?[0-9]+$') FROM pgops.analyze_slow_queries()"
    assert counting.value(patterns, "pgops") is True
    assert run(counting, tmp_path)["texts"] > 0


def test_what_was_not_delivered_is_delivered_later_and_once(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    remembered = Path(configured(counting, tmp_path)[1].state, "queries.json")
    execute(counting, 3)
    counting.value("ALTER FUNCTION pgops.register_node(text, text, text, boolean, text) RENAME TO away", "pgops")
    with pytest.raises(PgOpsError):
        run(counting, tmp_path)
    deploy(counting)
    execute(counting, 4)
    before = remembered.read_bytes()
    run(counting, tmp_path)
    assert stored(counting, COUNTED) == 7
    # As of a run that was killed once it had delivered.
    remembered.write_bytes(before)
    execute(counting, 1)
    run(counting, tmp_path)
    assert stored(counting, COUNTED) == 8
    assert counting.value("SELECT count(*) FROM pgops.query_interval", "pgops") == 1


def test_a_file_of_last_time_that_is_broken_is_as_good_as_none(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    remembered = Path(configured(counting, tmp_path)[1].state, "queries.json")
    remembered.write_text(remembered.read_text()[:-9])
    assert run(counting, tmp_path)["first"]
    assert json.loads(remembered.read_text())["entries"]


def _store(server: Server, begin: str, end: str, place: tuple[int, str, int], **counted: float) -> None:
    """Store what one statement did between two times ago; ``place`` is its node's number, database and queryid."""
    node_id, database, queryid = place
    row = {"queryid": queryid, "database_name": database, "user_name": "u", "toplevel": True}
    usages = json.dumps([{**row, **dict.fromkeys(usage.SUMS, 0), **counted}])
    interval = f"now() - interval '{begin}', now() - interval '{end}'"
    server.value(f"SELECT pgops.store_query_usage({node_id}, {interval}, 100, '{usages}')", "pgops")


def _another_node(server: Server) -> int:
    """The number of a second node in the ops database."""
    register = "SELECT pgops.register_node('shop', 'db2/main', system_identifier, false, '') FROM pgops.node LIMIT 1"
    return int(str(server.value(register, "pgops")))


def _listed(server: Server, columns: str, call: str) -> list[Any]:
    """The rows of a function, as a member of pgops_reader gets them."""
    select = f"SELECT coalesce(jsonb_agg(jsonb_build_array({columns})), '[]') FROM pgops.{call}"
    with server.connect("pgops") as reader:
        reader.execute("SET ROLE pgops_reader")
        row = reader.execute(select.encode()).fetchone()
    return row[0] if row else None


def test_statements_that_became_slower_are_found(counting: Server, tmp_path: Path) -> None:
    for _time in range(2):
        run(counting, tmp_path)
    for queryid, before, now in ((5, 10, 30), (6, 10, 14), (7, 10, 200)):
        begin, end, calls = f"{queryid} min", f"{queryid - 1} min", 10 if queryid < 7 else 9
        place = (1, "d", queryid)
        _store(counting, f"30 hours {begin}", f"30 hours {end}", place, calls=100, exec_ms=100 * before)
        _store(counting, f"1 hour {begin}", f"1 hour {end}", place, calls=calls, exec_ms=calls * now)
    columns = "queryid, avg_ms_before, avg_ms_now, factor, more_ms"
    assert _listed(counting, columns, "query_regressions()") == [[5, 10, 30, 3, 200]]


def test_each_node_is_compared_with_its_own_past(counting: Server) -> None:
    """Reads that go to another, slower node have not become slower; those that have are found on their node."""
    other = _another_node(counting)
    moved, slower = 5, 6
    for node_id, took, before, now in ((1, 10, 100, 10), (other, 30, 10, 100)):
        _store(counting, "30 hours 5 min", "30 hours", (node_id, "shop", moved), calls=before, exec_ms=before * took)
        _store(counting, "1 hour 5 min", "1 hour", (node_id, "shop", moved), calls=now, exec_ms=now * took)
    for database, hours, took in (("shop", 2, 40), ("crm", 3, 15)):
        place = (other, database, slower)
        _store(counting, f"{hours + 26} hours 5 min", f"{hours + 26} hours", place, calls=10, exec_ms=200)
        _store(counting, f"{hours} hours 5 min", f"{hours} hours", place, calls=10, exec_ms=10 * took)
    _store(counting, "3 hours 1 min", "3 hours", (1, "shop", slower), calls=1000, exec_ms=20000)
    columns = "node, queryid, calls_now, avg_ms_before, avg_ms_now"
    both, one = ["db2/main", slower, 20, 20, 27.5], ["db2/main", slower, 10, 20, 40]
    for filters, expected in (("", both), ("p_node => 'db2/main', ", both), ("p_database => 'shop', ", one)):
        call = f"query_regressions({filters}p_factor => 1.2)"
        assert _listed(counting, columns, call) == [expected], call
    assert _listed(counting, columns, "query_regressions(24, 7, 1.2, 10, 'db1/main')") == []
    assert _listed(counting, columns, "query_regressions(p_factor => 1.2, p_database => 'crm')") == []


def test_nodes_and_databases_are_analysed_by_themselves(counting: Server) -> None:
    other = _another_node(counting)
    for node_id, database, calls, took in ((1, "shop", 90, 10), (1, "crm", 1, 40), (other, "shop", 10, 60)):
        place = (node_id, database, 5)
        _store(counting, f"{calls} min", f"{calls - 1} min", place, calls=calls, exec_ms=calls * took)
    _store(counting, "30 min", "29 min", (1, "", 0), calls=1, exec_ms=60)
    columns = "queryid, calls, nodes, databases"
    both = ["db1/main", "db2/main"]
    for call, expected in {
        "top_queries()": [5, 101, both, ["crm", "shop"]],
        "top_queries('calls', now() - interval '1 day', now(), 20)": [5, 101, both, ["crm", "shop"]],
        "top_queries(p_node => 'db1/main')": [5, 91, both[:1], ["crm", "shop"]],
        "top_queries(p_node => 'db2/main')": [5, 10, both[1:], ["shop"]],
        "top_queries(p_database => 'shop')": [5, 100, both, ["shop"]],
        "top_queries('time', now() - interval '1 day', now(), 20, 'db1/main', 'crm')": [5, 1, both[:1], ["crm"]],
    }.items():
        assert _listed(counting, columns, call) == [expected], call
    columns = "total_executions, total_time_spent_ms, round(percentage_of_total_time)"
    for call, expected in {
        "analyze_slow_queries()": [[101, 1540, 96]],
        "analyze_slow_queries(24)": [[101, 1540, 96]],
        "analyze_slow_queries(p_hours_back => 24)": [[101, 1540, 96]],
        "analyze_slow_queries(24, 'db1/main')": [[91, 940, 94]],
        "analyze_slow_queries(24, NULL, 'crm')": [[1, 40, 100]],
        "analyze_slow_queries(24, 'db2/main', 'crm')": [],
    }.items():
        assert _listed(counting, columns, call) == expected, call
    for function in ("top_queries(p_node => 'db3/main')", "query_regressions(p_node => 'db3/main')"):
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="node db3/main does not exist"):
            _listed(counting, "queryid", function)


def test_old_days_and_statements_are_forgotten(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    run(counting, tmp_path)
    _store(counting, "41 days", "40 days", (1, "d", 5), calls=1, exec_ms=1)
    counting.value("UPDATE pgops.statement SET last_used_on = current_date - 40 WHERE queryid = 5", "pgops")
    recent = counting.value("SELECT count(*) FROM pgops.query_usage", "pgops")
    outcome = partitions.maintain(configured(counting, tmp_path)[0])
    assert outcome["errors"] == []
    assert (len(outcome["dropped"]), outcome["forget_unused_statements"]) == (1, 1)
    assert counting.value("SELECT count(*) FROM pgops.query_usage", "pgops") == int(str(recent)) - 1
    assert counting.value("SELECT count(*) FROM pgops.query_interval", "pgops") == 1


def test_without_the_extension_there_is_nothing_to_do(
    major: int, new_server: Callable[..., Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = new_server(major).start()
    deploy(server)
    configuration, layout = configured(server, tmp_path)
    Path(layout.agent_file).parent.mkdir(parents=True)
    Path(layout.agent_file).write_text(configuration.text())
    arguments = ["--prefix", str(tmp_path), "--instance", "main", "queries"]
    assert cli.main(arguments) == 0
    assert "no extension pg_stat_statements" in json.loads(capsys.readouterr().out)["skipped"]
    # Created, and not loaded.
    server.value(EXTENSION, "pgops")
    assert cli.main(arguments) == 1
    assert "shared_preload_libraries" in json.loads(capsys.readouterr().out)["error"]


def test_a_text_that_no_encoding_has_costs_nothing_but_texts(counting: Server, tmp_path: Path) -> None:
    counting.value("CREATE DATABASE loose ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0")
    run(counting, tmp_path)
    with counting.connect("loose") as session:
        session.execute("SET client_encoding = 'SQL_ASCII'")
        for _time in range(3):
            session.execute(b'SELECT 1 AS "a\xe4\xff"')
    execute(counting, 4)
    (error,) = run(counting, tmp_path)["errors"]
    assert "one of a statement in loose cannot be converted" in error
    calls = "SELECT sum(u.calls) FROM pgops.query_usage AS u JOIN pgops.statement AS k USING (statement_id) WHERE {}"
    assert int(str(counting.value(calls.format("k.database_name = 'loose'"), "pgops"))) >= 3
    forget = error.partition("in pgops: ")[2].replace("'...'", "'loose'")
    counting.value(f"SET search_path = public; {forget}", "pgops")
    execute(counting, 5)
    assert run(counting, tmp_path)["errors"] == []
    assert stored(counting, COUNTED) == 9


@pytest.mark.parametrize("part", ["store_query_texts(integer, jsonb, boolean)", "slow_sessions(numeric, boolean)"])
def test_a_part_that_fails_costs_nothing_else_and_is_told(counting: Server, tmp_path: Path, part: str) -> None:
    run(counting, tmp_path)
    execute(counting, 4)
    counting.value(f"ALTER FUNCTION pgops.{part} RENAME TO away", "pgops")
    (error,) = run(counting, tmp_path)["errors"]
    assert part.partition("(")[0] in error
    calls = "SELECT sum(calls) FROM pgops.query_usage"
    assert int(str(counting.value(calls, "pgops"))) >= 4
    deploy(counting)
    execute(counting, 5)
    assert run(counting, tmp_path)["errors"] == []
    assert stored(counting, COUNTED) == 9


def test_metrics_are_exported_once_their_numbers_are_stored(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    exported = Path(configured(counting, tmp_path)[1].latest_queries)
    before = exported.read_text()
    counting.value("ALTER FUNCTION pgops.register_node(text, text, text, boolean, text) RENAME TO away", "pgops")
    with pytest.raises(PgOpsError):
        run(counting, tmp_path)
    assert exported.read_text() == before
