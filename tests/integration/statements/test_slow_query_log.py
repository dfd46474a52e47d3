# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What slow_query_log has is what ran, once, with all that is known of it and nothing else."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deploying import configured, deploy
from servers import Server
from waiting import until

from pgops.instance.configuration import Peer
from pgops.statements import job as usage

LOG = "SELECT coalesce(jsonb_agg(to_jsonb(l) ORDER BY l.executed_at), '[]') FROM pgops.slow_query_log AS l WHERE {}"
SLEPT = "query_text LIKE 'SELECT%pg_sleep(%'"
"""What the tests had run; on a busy machine other statements may be slow as well."""
RUNNING = (
    "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '{}%' AND pid <> pg_backend_pid()"
)
TOOK = (
    "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '{}%' AND pid <> pg_backend_pid() "
    "AND clock_timestamp() - query_start > interval '{} ms'"
)
CONTRACT = (
    *("log_id", "query_text", "query_hash", "execution_time_ms", "planning_time_ms", "rows_examined"),
    *("rows_returned", "shared_blks_hit", "shared_blks_read", "shared_blks_written", "temp_blks_read"),
    *("temp_blks_written", "database_name", "user_name", "application_name", "client_addr", "execution_plan"),
    "executed_at",
)


def capture(server: Server, threshold: str = "300") -> int:
    """What the function returns to the agent's role."""
    with server.connect("pgops") as session:
        session.execute("SET ROLE pgops")
        row = session.execute(f"SELECT pgops.capture_slow_queries({threshold})".encode()).fetchone()
    return int(row[0]) if row else -1


def log(server: Server, where: str = "true") -> list[dict[str, Any]]:
    """What is in the log, as a member of pgops_reader sees it."""
    with server.connect("pgops") as session:
        session.execute("SET ROLE pgops_reader")
        row = session.execute(LOG.format(where).encode()).fetchone()
    return list(row[0]) if row else []


@contextlib.contextmanager
def sleeping(
    server: Server, query: str, database: str = "postgres", **parameters: Any
) -> Iterator[psycopg.Connection]:
    """A session that runs a query, ended at last whatever becomes of it."""
    with server.connect(database, **parameters) as session:
        failed = contextlib.suppress(psycopg.Error)

        def run() -> None:
            with failed:
                session.execute(query.encode(session.info.encoding))

        thread = threading.Thread(target=run)
        thread.start()
        try:
            until(lambda: server.value(RUNNING.format(query[:20].replace("'", "''"))), "running", 1)
            yield session
        finally:
            server.value(f"SELECT pg_terminate_backend({session.info.backend_pid}, 10000)")
            thread.join()


def waited(server: Server, query: str, milliseconds: int) -> None:
    until(lambda: server.value(TOOK.format(query[:20], milliseconds)), "slow enough", 1)


def test_the_columns_are_those_of_the_contract(deployed: Server) -> None:
    columns = deployed.value(
        "SELECT array_agg(attname ORDER BY attnum) FROM pg_attribute "
        "WHERE attrelid = 'pgops.slow_query_log'::regclass AND attnum > 0",
        "pgops",
    )
    assert isinstance(columns, list)
    assert tuple(columns[: len(CONTRACT)]) == CONTRACT


@pytest.mark.every_major
def test_an_execution_is_one_row_from_its_beginning_to_its_end(deployed: Server) -> None:
    place = {"application_name": "shop", "host": "127.0.0.1"}
    with sleeping(deployed, "SELECT pg_sleep(60), 5", **place) as session:
        waited(deployed, "SELECT pg_sleep(60)", 300)
        assert capture(deployed, "3e9") == 0
        assert capture(deployed) == 1
        (first,) = log(deployed)
        assert capture(deployed) == 1
        (second,) = log(deployed)
        session.cancel()
        until(lambda: deployed.value(RUNNING.format("SELECT pg_sleep(60)")), "ended", 0)
        assert capture(deployed) == 1
        took = deployed.value(
            "SELECT extract(epoch FROM state_change - query_start) * 1000 FROM pg_stat_activity "
            f"WHERE pid = {session.info.backend_pid}"
        )
        assert capture(deployed) == 0
    (last,) = log(deployed)
    assert first["query_text"] == "SELECT pg_sleep(60), 5"
    assert (first["application_name"], first["client_addr"], first["user_name"]) == ("shop", "127.0.0.1", "postgres")
    assert (first["database_name"], first["state"], first["source"]) == ("postgres", "running", "sessions")
    assert first["log_id"] == second["log_id"] == last["log_id"]
    assert 300 <= first["execution_time_ms"] < second["execution_time_ms"] <= last["execution_time_ms"]
    assert [one["time_is_exact"] for one in (first, second, last)] == [False, False, True]
    assert last["state"] == "ended"
    assert last["execution_time_ms"] == pytest.approx(float(str(took)))
    unknown = ("planning_time_ms", "rows_examined", "rows_returned", "shared_blks_read", "execution_plan")
    assert [last[name] for name in unknown] == [None] * 5


def test_the_end_of_a_session_ends_its_execution_after_at_least_that_time(deployed: Server) -> None:
    with sleeping(deployed, "SELECT pg_sleep(61)"):
        assert capture(deployed, "0") >= 1
    assert capture(deployed, "3e9") == 0
    (last,) = log(deployed, "query_text LIKE '%61%'")
    assert (last["state"], last["time_is_exact"]) == ("ended", False)


def test_a_higher_threshold_does_not_end_what_still_runs(deployed: Server) -> None:
    with sleeping(deployed, "SELECT pg_sleep(62)"):
        capture(deployed, "0")
        assert capture(deployed, "3e9") == 0
        assert [one["state"] for one in log(deployed, "query_text LIKE '%62%'")] == ["running"]


def test_own_sessions_are_left_out(deployed: Server) -> None:
    job = {"application_name": "pgops inspect"}
    with (
        sleeping(deployed, "SELECT pg_sleep(63)", "pgops", user="pgops", host="127.0.0.1"),
        sleeping(deployed, "SELECT pg_sleep(64)", **job),
    ):
        deployed.value("CREATE ROLE bob LOGIN")
        try:
            with sleeping(deployed, "SELECT pg_sleep(65)", user="bob", **job):
                capture(deployed, "0")
        finally:
            deployed.value("DROP ROLE bob")
    seen = {one["query_text"] for one in log(deployed)}
    assert {text for text in seen if "pg_sleep" in text} == {"SELECT pg_sleep(65)"}
    assert not any("capture_slow_queries" in text for text in seen)


@pytest.mark.parametrize("threshold", ["-1", "NULL", "'NaN'", "'Infinity'"])
def test_a_threshold_is_a_time(deployed: Server, threshold: str) -> None:
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="the threshold must be"):
        capture(deployed, threshold)


def test_only_who_sees_all_sessions_may_capture_and_nobody_writes_the_log(deployed: Server) -> None:
    with deployed.connect("pgops") as session:
        session.execute("SET ROLE pgops_owner")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="sees only its own sessions"):
            session.execute("SELECT pgops.capture_slow_queries()")
        for role, query in (
            ("pgops_reader", "SELECT pgops.capture_slow_queries()"),
            ("pgops_reader", "SELECT pgops.store_slow_sessions(1, '{}')"),
            ("pgops_reader", "SELECT count(*) FROM pgops.slow_query"),
            ("pgops", "SELECT count(*) FROM pgops.slow_query_log"),
            ("pgops", "DELETE FROM pgops.slow_query"),
        ):
            session.execute(f"RESET ROLE; SET ROLE {role}".encode())
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(query.encode())


def test_what_the_agent_hands_over_is_data_only(deployed: Server) -> None:
    """The storing function runs with its owner's rights: a text in it is a text."""
    text = "'); DROP TABLE pgops.slow_query; SELECT ('"
    found = {"pid": 1, "running": False, "took_ms": 5, "query": text, "database_name": text}
    times = dict.fromkeys(("backend_start", "query_start", "known_at"), "2026-01-01T00:00:00Z")
    document = {"seen_at": times["known_at"], "running": [], "sessions": [{**found, **times}]}
    with deployed.connect("pgops") as session:
        session.execute("SET ROLE pgops")
        session.execute("SELECT pgops.store_slow_sessions(1, %s::jsonb)", [json.dumps(document)])
    (one,) = log(deployed)
    assert one["query_text"] == one["database_name"] == text


def test_secrets_are_taken_out_and_texts_left_out_if_wished(deployed: Server) -> None:
    with sleeping(deployed, "SELECT pg_sleep(66) /* password hunter2 */, 'hunter2'"):
        capture(deployed, "0")
        assert [one["query_text"] for one in log(deployed, "query_text LIKE '%pg_sleep%'")] == [
            "SELECT pg_sleep('***')  , '***'"
        ]
        planned = (
            "INSERT INTO pgops.query_plan VALUES ('shop', 'shop', 5, '[]', now(), NULL, now()) RETURNING queryid"
        )
        deployed.value(planned, "pgops")
        assert deploy(deployed, query_texts=False)["changes"] == ["update setting query_texts"]
        assert {one["query_text"] for one in log(deployed)} == {None}
        assert deployed.value("SELECT count(*) FROM pgops.query_plan", "pgops") == 1
        deployed.value("DELETE FROM pgops.slow_query", "pgops")
        assert capture(deployed, "0") >= 1
    assert {one["query_text"] for one in log(deployed)} == {None}


def test_a_text_in_another_encoding_does_no_harm(deployed: Server) -> None:
    deployed.value("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with sleeping(deployed, "SELECT pg_sleep(67), 'é'", "latin"), sleeping(deployed, "SELECT pg_sleep(68)"):
            assert capture(deployed, "0") >= 2
    finally:
        deployed.value("DROP DATABASE latin WITH (FORCE)")
    assert [one["query_text"] for one in log(deployed, "database_name = 'latin'")] == [None]
    assert log(deployed, "query_text LIKE '%68%'")


def test_the_log_is_bounded(deployed: Server) -> None:
    deployed.value(
        """
        INSERT INTO pgops.slow_query (
            node_id, source, state, executed_at, first_seen_at, last_seen_at, toplevel, execution_time_ms,
            time_is_exact, executions
        )
        SELECT 1, 'statistics', 'ended', at, at, at, true, 5, true, 1
        FROM (SELECT now() - g * interval '1 second' AS at FROM generate_series(1, 20003) AS g
              UNION ALL SELECT now() - interval '31 days') AS times
        """,
        "pgops",
    )
    oldest = "SELECT extract(epoch FROM now() - min(executed_at)) FROM pgops.slow_query"
    warnings: list[str] = []
    with deployed.connect("pgops") as session:
        session.add_notice_handler(lambda notice: warnings.append(str(notice.message_primary)))
        session.execute("SELECT pgops.capture_slow_queries(3e9)")
    assert warnings == ["slow_query_log is full: its 3 oldest executions were deleted"]
    assert deployed.value("SELECT count(*) FROM pgops.slow_query", "pgops") == 20000
    assert float(str(deployed.value(oldest, "pgops"))) < 20100


def test_the_slowest_of_five_minutes_is_known_after_its_session_has_gone(deployed: Server) -> None:
    slowest = "SELECT slowest_query_5min FROM pgops.real_time_performance"
    with sleeping(deployed, "SELECT pg_sleep(69)"):
        waited(deployed, "SELECT pg_sleep(69)", 1500)
        capture(deployed)
    (one,) = log(deployed, "query_text LIKE '%69%'")
    assert deployed.value(slowest, "pgops") == one["execution_time_ms"]
    deployed.value("UPDATE pgops.slow_query SET last_seen_at = now() - interval '301 s'", "pgops")
    assert float(str(deployed.value(slowest, "pgops") or 0)) < 1500


# --- with pg_stat_statements


def run(server: Server, state: Path, slow_query_ms: float = 200.0, **settings: Any) -> dict[str, Any]:
    """One run of the job as the agent's user; ``state`` is the agent's prefix."""
    outcome = usage.collect(*configured(server, state, slow_query_ms=slow_query_ms, **settings))
    assert outcome["errors"] == []
    return outcome


def execute(server: Server, *statements: str) -> None:
    """In a session that is gone afterwards."""
    with server.connect() as session:
        for statement in statements:
            session.execute(statement.encode())


@pytest.mark.every_major
def test_an_only_execution_is_known_with_all_that_it_did(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    execute(
        counting,
        "SELECT pg_sleep(0.1), count(*) FROM pg_class",
        "SELECT g, pg_sleep(0.1) FROM generate_series(1, 3) g",
    )
    assert run(counting, tmp_path)["slow"] >= 1
    (one,) = log(counting, "query_text LIKE 'SELECT g%'")
    assert one["query_text"] == "SELECT g, pg_sleep($1) FROM generate_series($2, $3) g"
    assert (one["source"], one["time_is_exact"], one["executions"], one["rows_returned"]) == (
        "statistics",
        True,
        1,
        3,
    )
    real = counting.value("SELECT total_exec_time FROM pg_stat_statements WHERE query LIKE 'SELECT g,%'", "pgops")
    assert one["execution_time_ms"] == pytest.approx(real)
    assert one["planning_time_ms"] > 0
    assert (one["application_name"], one["client_addr"], one["toplevel"]) == (None, None, True)
    hashes = "SELECT queryid FROM pgops.top_queries() WHERE query LIKE 'SELECT g,%'"
    assert one["query_hash"] == counting.value(hashes, "pgops")


def test_of_several_only_what_is_known_is_said(counting: Server, tmp_path: Path) -> None:
    def counted(what: str) -> float:
        select = f"SELECT {what} FROM pg_stat_statements WHERE query = 'SELECT pg_sleep($1)'"
        return float(str(counting.value(select, "pgops")))

    run(counting, tmp_path)
    execute(counting, "SELECT pg_sleep(0.05)", "SELECT pg_sleep(0.9)")
    run(counting, tmp_path)
    (longest,) = log(counting, SLEPT)
    assert (longest["executions"], longest["time_is_exact"], longest["rows_returned"]) == (1, True, None)
    assert longest["execution_time_ms"] == pytest.approx(counted("max_exec_time"))

    def two_more() -> tuple[float, float]:
        run(counting, tmp_path)
        before = counted("max_exec_time"), counted("total_exec_time")
        execute(counting, "SELECT pg_sleep(0.01)", "SELECT pg_sleep(0.02)")
        return counted("max_exec_time") - before[0], counted("total_exec_time") - before[1]

    # None of these is the longest ever; where the machine stood still, others are taken.
    _longer, together = until(two_more, "shorter", lambda seen: seen[0] == 0)
    run(counting, tmp_path, slow_query_ms=1.0)
    average = log(counting, SLEPT)[-1]
    assert (average["executions"], average["time_is_exact"], average["shared_blks_hit"]) == (2, False, None)
    assert average["execution_time_ms"] == pytest.approx(together / 2)


def test_what_both_know_is_one_row(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    query = "SELECT pg_sleep(0.5), 7"
    with counting.connect(application_name="shop") as session:
        session.execute(query.encode())
        # Its session goes on with something else, or keeps it as its last: both times it is one execution.
        assert run(counting, tmp_path)["slow"] >= 2
    (one,) = log(counting, SLEPT)
    assert (one["source"], one["application_name"], one["query_text"]) == ("both", "shop", query)
    assert (one["rows_returned"], one["time_is_exact"], one["state"]) == (1, True, "ended")
    query = "SELECT pg_sleep(0), pg_advisory_lock(8)"
    with counting.connect() as holder:
        holder.execute("SELECT pg_advisory_lock(8)")
        with sleeping(counting, query, application_name="shop"):
            waited(counting, query, 300)
            run(counting, tmp_path)
            assert [one["state"] for one in log(counting, SLEPT)] == ["ended", "running"]
            holder.execute("SELECT pg_advisory_unlock(8)")
            until(lambda: counting.value(RUNNING.format(query[:20])), "ended", 0)
            run(counting, tmp_path)
    _before, one = log(counting, SLEPT)
    assert (one["source"], one["application_name"], one["time_is_exact"]) == ("both", "shop", True)
    real = "SELECT total_exec_time FROM pg_stat_statements WHERE query LIKE 'SELECT%pg_advisory_lock($2)'"
    assert one["execution_time_ms"] == pytest.approx(counting.value(real, "pgops"))


def test_what_is_delivered_twice_is_there_once(counting: Server, tmp_path: Path) -> None:
    run(counting, tmp_path)
    remembered = Path(configured(counting, tmp_path)[1].state, "queries.json")
    before = remembered.read_bytes()
    execute(counting, "SELECT pg_sleep(0.3)")
    with counting.connect() as session:
        session.execute("SELECT pg_sleep(0.4), 9")
        run(counting, tmp_path)
        remembered.write_bytes(before)
        run(counting, tmp_path)
    assert [one["source"] for one in log(counting, SLEPT)] == ["both", "statistics"]


def test_a_negative_threshold_notes_nothing(counting: Server, tmp_path: Path) -> None:
    usage.collect(*configured(counting, tmp_path))
    execute(counting, "SELECT pg_sleep(0.3)")
    outcome = usage.collect(*configured(counting, tmp_path, slow_query_ms=-1.0))
    assert outcome["slow"] == 0
    assert outcome["stored"] > 0
    assert log(counting) == []


def test_a_standby_notes_on_its_primary_what_is_slow(
    counting: Server, keep: Callable[[Server], Server], tmp_path: Path
) -> None:
    counting.enable_tls()
    counting.reload()
    deploy(counting, password="of the agents", peers=["127.0.0.1"])
    standby = keep(counting.standby()).start()
    until(lambda: standby.value("SELECT to_regclass('pgops.slow_query') IS NOT NULL", "pgops"), "replayed")
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="standby"):
        capture(standby)
    settings: Any = {"node": "db2/main", "peers": (Peer("127.0.0.1", counting.port),)}
    passfile = Path(configured(standby, tmp_path, **settings)[1].passfile)
    passfile.parent.mkdir(parents=True)
    passfile.write_text("*:*:*:pgops:of the agents\n")
    passfile.chmod(0o600)
    assert run(standby, tmp_path, **settings)["sink"] == "primary"
    execute(standby, "SELECT pg_sleep(0.3), 70")
    with sleeping(standby, "SELECT pg_sleep(71)"):
        waited(standby, "SELECT pg_sleep(71)", 200)
        assert run(standby, tmp_path, **settings)["slow"] >= 2
    found = [(one["node"], one["source"], one["query_text"]) for one in log(counting, SLEPT)]
    assert sorted(found) == [
        ("db2/main", "sessions", "SELECT pg_sleep(71)"),
        ("db2/main", "statistics", "SELECT pg_sleep($1), $2"),
    ]
