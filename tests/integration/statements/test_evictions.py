# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""More statements than pg_stat_statements keeps by default: those that are left are right, and how many is told."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import binaries
import pytest
from deploying import configured, deploy
from servers import Server
from waiting import until

from pgops.statements import job as usage

TOPLEVEL = NESTED = 3000
SLEEP_MS = 10
COUNTED = "SELECT count(amname) FROM pg_am"
OFTEN = "SELECT count(*) FROM pg_namespace"
NESTING = f"""
DO $$ BEGIN
FOR i IN 0 .. {NESTED - 1} LOOP
    EXECUTE 'SELECT 2 * (1' || (
        SELECT string_agg(CASE WHEN (i >> b) & 1 = 1 THEN ' + 1' ELSE ' - 1' END, '' ORDER BY b)
        FROM generate_series(0, 11) AS b
    ) || ')';
END LOOP;
END $$
"""
COUNTING = {
    "shared_preload_libraries": "pg_stat_statements",
    "compute_query_id": "on",
    "shared_buffers": "16MB",
    # Only what a test sends is counted, so that the server's sums stay as the job has read them.
    "pg_stat_statements.track": "none",
}
ACTIVE = "SELECT sum(active_time) FROM pg_stat_database"
SLEPT = "query LIKE '%pg_sleep%'"
SERVER_SUMS = f"""
SELECT jsonb_object_agg(w.toplevel, jsonb_build_array(w.calls, w.exec_ms, w.row_count)) FROM (
    SELECT s.toplevel, sum(s.calls) AS calls, sum(s.total_exec_time) AS exec_ms, sum(s.rows) AS row_count
    FROM pg_stat_statements AS s WHERE s.query <> '{COUNTED}' GROUP BY 1) AS w
"""
STORED_SUMS = f"""
SELECT jsonb_object_agg(w.toplevel, jsonb_build_array(w.calls, w.exec_ms, w.row_count)) FROM (
    SELECT k.toplevel, sum(u.calls) AS calls, sum(u.exec_ms) AS exec_ms, sum(u.row_count) AS row_count
    FROM pgops.query_usage AS u INNER JOIN pgops.statement AS k USING (statement_id)
    LEFT JOIN pgops.query_text AS t USING (cluster, queryid)
    WHERE t.query IS DISTINCT FROM '{COUNTED}' GROUP BY 1) AS w
"""
SINGLE = f"""
SELECT count(*) FROM (
    SELECT s.queryid, s.toplevel, s.calls, s.total_exec_time AS exec_ms FROM pg_stat_statements AS s
    WHERE s.query <> '{COUNTED}' ORDER BY s.total_exec_time DESC LIMIT 400) AS w
INNER JOIN pgops.statement AS k USING (queryid, toplevel)
INNER JOIN pgops.query_usage AS u USING (statement_id)
WHERE u.calls = w.calls AND abs(u.exec_ms - w.exec_ms) < 0.000001
"""


def distinct(number: int) -> str:
    """A statement like no other, as the server sees it: each bit of its number is an operator. Some are slow."""
    slow = f"pg_sleep({SLEEP_MS / 1000}), " if number % 30 == 0 else ""
    return f"SELECT {slow}1" + "".join(" + 1" if number >> bit & 1 else " - 1" for bit in range(12))


def load(server: Server) -> None:
    """6,000 statements that the server has to tell apart, half of them within another one, and some that it knows."""
    with server.connect("shop") as session:
        session.execute(NESTING.encode())
        for start in range(0, TOPLEVEL, 300):
            session.execute("; ".join(map(distinct, range(start, start + 300))).encode())
            session.execute("; ".join([OFTEN] * 50).encode())
        session.execute("; ".join([COUNTED] * 3).encode())


def test_what_is_left_of_six_thousand_statements_is_right(
    new_server: Callable[..., Server], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = new_server(binaries.majors()[-1], settings=COUNTING).start()
    deploy(server)
    server.value(
        "CREATE EXTENSION pg_stat_statements WITH SCHEMA public; GRANT USAGE ON SCHEMA public TO pgops", "pgops"
    )
    server.value("CREATE DATABASE shop")
    server.value("ALTER DATABASE shop SET pg_stat_statements.track = 'all'")
    assert server.value("SHOW pg_stat_statements.max") == "5000"
    with server.connect("shop") as session:
        session.execute("; ".join([COUNTED] * 5).encode())
    configuration, layout = configured(server, tmp_path)
    reading = Path(layout.state, "queries.json")
    assert usage.collect(configuration, layout)["first"]
    active = read_active(reading)

    load(server)
    # Sessions tell what they did when they end, and the server shows it a little later.
    until(lambda: float(str(server.value(ACTIVE))) > active + 1000, "told")
    until(lambda: server.value("SELECT count(*) FROM pg_stat_activity WHERE datname = 'shop'"), "all gone", 0)
    began = time.monotonic()
    outcome = usage.collect(configuration, layout)
    took = time.monotonic() - began
    active = read_active(reading) - active
    with capsys.disabled():
        print(f"\n{outcome['statements']} statements, coverage {outcome['coverage']:.1f} %, {took:.2f} s")

    _the_remainder_is_right(server)
    _what_is_missing_is_told(server, outcome["coverage"], active)
    stored = server.value(STORED_SUMS, "pgops")
    assert usage.collect(configuration, layout)["statements"] == 0
    assert server.value(STORED_SUMS, "pgops") == stored


def read_active(reading: Path) -> float:
    """The time in ms that sessions were active."""
    return float(sum(milliseconds for _database, milliseconds, _since in json.loads(reading.read_text())["active"]))


def _the_remainder_is_right(server: Server) -> None:
    """Each statement once, the foremost by themselves, and all together as much as the server has counted."""
    real, stored = server.value(SERVER_SUMS, "pgops"), server.value(STORED_SUMS, "pgops")
    assert isinstance(real, dict)
    assert isinstance(stored, dict)
    assert {*real} == {*stored} == {"true", "false"}
    for toplevel, sums in real.items():
        assert stored[toplevel] == pytest.approx(sums), toplevel
    assert server.value(SINGLE, "pgops") == 400
    calls = "SELECT calls FROM pgops.top_queries('calls', p_limit => 1000) WHERE query = '{}'"
    assert server.value(calls.format(OFTEN), "pgops") == 50 * TOPLEVEL // 300
    assert server.value(calls.format(COUNTED), "pgops") == 3
    rows = "SELECT count(*) > 500 AND count(*) < 650 FROM pgops.query_usage"
    assert server.value(rows, "pgops") is True
    remainder = "SELECT count(*) FROM pgops.query_usage JOIN pgops.statement USING (statement_id) WHERE queryid = 0"
    assert server.value(remainder, "pgops") == 2


def _what_is_missing_is_told(server: Server, coverage: float, active_ms: float) -> None:
    """``coverage`` in %. Less than all by at least the sleep of what was dropped, and all that the rest did."""
    left = int(str(server.value(f"SELECT count(*) FROM pg_stat_statements WHERE {SLEPT}", "pgops")))
    dropped = TOPLEVEL // 30 - left
    assert dropped > 0
    assert coverage <= 100 * (1 - dropped * SLEEP_MS / active_ms)
    known = server.value(
        "SELECT sum(total_exec_time + total_plan_time) FROM pg_stat_statements "
        f"WHERE toplevel AND query <> '{COUNTED}'",
        "pgops",
    )
    assert coverage == pytest.approx(100 * float(str(known)) / active_ms, abs=0.1)
    evictions = server.value("SELECT dealloc FROM pg_stat_statements_info", "pgops")
    assert int(str(evictions)) > 3
    shown = "SELECT evictions FROM pgops.query_coverage WHERE coverage < 100 ORDER BY ended_at"
    assert server.value(shown, "pgops") == evictions
