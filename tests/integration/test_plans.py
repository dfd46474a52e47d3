# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plans of slow statements are made where that was asked for, and whoever wrote a statement gains nothing by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deploying import configured, deploy, withdraw
from servers import Server

from pgops import explaining, usage
from pgops.configuration import Configuration

PRELOAD = {"shared_preload_libraries": "pg_stat_statements", "compute_query_id": "on", "shared_buffers": "16MB"}
ROLE = (
    "SELECT to_jsonb(r) || jsonb_build_object('comment', shobj_description(r.oid, 'pg_authid')) FROM "
    "(SELECT oid, rolcanlogin, rolsuper, rolconnlimit, rolinherit FROM pg_roles WHERE rolname = 'pgops_explain') AS r"
)
LOG = (
    "SELECT coalesce(jsonb_agg(to_jsonb(l) ORDER BY l.executed_at), '[]') FROM pgops.slow_query_log AS l "
    "WHERE l.database_name = 'shop' AND l.source = 'statistics'"
)
SHOP = """
CREATE ROLE buyer LOGIN;
CREATE SCHEMA stock;
CREATE TABLE stock.item (id integer PRIMARY KEY, price integer);
INSERT INTO stock.item SELECT g, g FROM generate_series(1, 1000) AS g;
ANALYZE stock.item;
GRANT USAGE ON SCHEMA stock TO PUBLIC;
GRANT SELECT, UPDATE ON stock.item TO buyer;
ALTER ROLE buyer SET search_path = stock, public;
"""


@pytest.fixture(name="counting")
def _counting(major: int, new_server: Callable[..., Server], tmp_path: Path) -> Server:
    """A server that counts statements, with our ops database and one of a shop; the first run has been."""
    server = new_server(major, settings=PRELOAD).start()
    deploy(server, explain=True)
    server.value(
        "CREATE EXTENSION pg_stat_statements WITH SCHEMA public; GRANT USAGE ON SCHEMA public TO pgops", "pgops"
    )
    server.value("CREATE DATABASE shop")
    server.psql(SHOP, "shop")
    run(server, tmp_path)
    return server


def run(server: Server, state: Path, **settings: Any) -> dict[str, Any]:
    """One run of the job as the agent's user; ``state`` is the agent's prefix."""
    outcome = usage.collect(*configured(server, state, **{"slow_query_ms": 100.0, "explain": True, **settings}))
    assert outcome["errors"] == []
    return outcome


def slow(server: Server, *statements: str, role: str = "buyer") -> None:
    """Statements in the shop, of a session that is gone afterwards."""
    with server.connect("shop") as session:
        session.execute(f"SET SESSION AUTHORIZATION {role}".encode())
        session.execute("SET search_path = stock, public")
        for statement in statements:
            session.execute(statement.encode())


def log(server: Server) -> list[dict[str, Any]]:
    """What is in the log of the shop, as a member of pgops_reader sees it."""
    with server.connect("pgops") as session:
        session.execute("SET ROLE pgops_reader")
        row = session.execute(LOG.encode()).fetchone()
    return list(row[0]) if row else []


def again(server: Server) -> None:
    """As if a day had gone by since the last attempts."""
    server.value("UPDATE pgops.query_plan SET tried_at = tried_at - interval '25 hours'", "pgops")


def nodes(plan: Any) -> list[str]:
    """The types of a plan's nodes, from the top."""
    own = [plan["Node Type"]] if "Node Type" in plan else []
    return own + [found for below in plan.get("Plans", ()) for found in nodes(below)]


def planned(server: Server, text: str, user: str = "buyer") -> tuple[str | None, str | None]:
    """What becomes of a text that somebody has brought into the store."""
    place: Any = {"port": server.port, "socket_directory": str(server.socket_dir)}
    return explaining.planned(
        Configuration("main", "shop", "db1/main", **place),
        {"database_name": "shop", "user_name": user, "query": text},
    )


def test_a_slow_statement_gets_its_plan(counting: Server, tmp_path: Path) -> None:
    """By the names of its user's search_path, with the rights that somebody has granted and no others."""
    generic = counting.major >= 16
    slow(counting, "SELECT pg_sleep(0.2), price FROM item WHERE id = 7")
    assert run(counting, tmp_path)["plans"] == 0
    (refused,) = log(counting)
    assert refused["execution_plan"] is None
    assert ("permission denied for table item" in refused["plan_error"]) is generic
    counting.psql("GRANT pg_read_all_data TO pgops_explain")
    assert run(counting, tmp_path)["plans"] == 0  # not before a day has gone by
    again(counting)
    assert run(counting, tmp_path)["plans"] == int(generic)
    (one,) = log(counting)
    assert one["query_text"] == "SELECT pg_sleep($1), price FROM item WHERE id = $2"
    if not generic:
        assert one["plan_error"].startswith("Without the values of its parameters, PostgreSQL before 16 cannot")
        assert one["execution_plan"] is one["plan_explained_at"] is None
        return
    assert nodes(one["execution_plan"][0]["Plan"]) == ["Index Scan"]
    assert one["execution_plan"][0]["Plan"]["Index Cond"] == "(id = $2)"
    assert one["plan_error"] is None
    assert one["plan_explained_at"] is not None
    # What fails later leaves the plan that there is.
    counting.psql("REVOKE pg_read_all_data FROM pgops_explain")
    again(counting)
    assert run(counting, tmp_path)["plans"] == 0
    (kept,) = log(counting)
    assert (kept["execution_plan"], kept["plan_explained_at"]) == (one["execution_plan"], one["plan_explained_at"])
    assert "[SQLSTATE 42501]" in kept["plan_error"]


# --- what a hostile author may try

HOSTILE = """
CREATE SCHEMA mine AUTHORIZATION mallory;
SET SESSION AUTHORIZATION mallory;
CREATE TABLE mine.loot (what text);
GRANT INSERT, SELECT ON mine.loot TO PUBLIC;
GRANT ALL ON SCHEMA mine TO PUBLIC;
CREATE FUNCTION mine.tries(command text) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
DECLARE
    got text;
BEGIN
    EXECUTE command INTO got;
    RAISE EXCEPTION 'did %: %', command, coalesce(got, 'nothing') USING ERRCODE = 'XX999';
EXCEPTION
    WHEN SQLSTATE 'XX999' THEN RAISE;
    WHEN OTHERS THEN RAISE EXCEPTION 'refused: %', SQLERRM USING ERRCODE = SQLSTATE;
END
$$;
CREATE FUNCTION mine.stays() RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('statement_timeout', '0', false), set_config('client_connection_check_interval', '0', false);
    LOOP
        BEGIN
            PERFORM pg_sleep(60);
        EXCEPTION WHEN query_canceled THEN NULL;
        END;
    END LOOP;
END
$$;
"""
TRIES = {
    "INSERT INTO mine.loot VALUES (current_user) RETURNING what": "25006",
    "CREATE TABLE mine.more AS SELECT 1": "25006",
    "ALTER ROLE pgops_explain PASSWORD 'mallory' VALID UNTIL 'infinity'": "25006",
    "SELECT set_config('transaction_read_only', 'off', false)": "25001",
    "SET ROLE pgops": "42501",
    "SET SESSION AUTHORIZATION postgres": "42501",
    "SELECT price FROM stock.item LIMIT 1": "42501",
    "SELECT pg_read_file('PG_VERSION')": "42501",
    "COMMIT": "0A000",
}
"""What a function tries while its statement is planned, and the SQLSTATE that it gets."""


@pytest.fixture(name="shop", scope="module")
def _shop(server: Server) -> Iterator[Server]:
    """The common server with a shop in which somebody hostile works, and with our roles."""
    deploy(server, explain=True)
    server.value("CREATE DATABASE shop")
    server.psql("CREATE ROLE mallory LOGIN;" + SHOP + HOSTILE, "shop")
    yield server
    server.value("DROP DATABASE shop WITH (FORCE)")
    server.psql("DROP ROLE buyer; DROP ROLE mallory")
    withdraw(server)


def quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.parametrize("command", TRIES)
def test_what_a_function_tries_while_its_statement_is_planned(shop: Server, command: str) -> None:
    plan, wrong = planned(shop, f"SELECT mine.tries({quoted(command)})", "mallory")
    assert plan is None
    assert wrong is not None
    assert wrong.startswith("refused: ")
    assert f"[SQLSTATE {TRIES[command]}]" in wrong
    assert shop.value("SELECT count(*) FROM mine.loot", "shop") == 0
