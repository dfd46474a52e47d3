# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Plans of slow statements are made where that was asked for, and whoever wrote a statement gains nothing by it."""

from __future__ import annotations

import json
import resource
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deploying import configured, deploy, withdraw
from servers import Server
from waiting import until

from pgops.errors import Conflict, InvalidInput
from pgops.instance.configuration import Configuration
from pgops.statements import explain, texts
from pgops.statements import job as usage

PRELOAD = {"shared_preload_libraries": "pg_stat_statements", "compute_query_id": "on", "shared_buffers": "16MB"}
SUPERUSER_ONLY = "local all postgres trust\n"
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
    server = new_server(major, settings=PRELOAD)
    server.write_hba(SUPERUSER_ONLY)
    server.start()
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
    return explain.planned(
        Configuration("main", "shop", "db1/main", **place),
        {"database_name": "shop", "user_name": user, "query": text},
    )


@pytest.mark.every_major(until=15)
def test_before_16_a_statement_without_its_values_gets_no_plan(counting: Server, tmp_path: Path) -> None:
    slow(counting, "SELECT pg_sleep(0.2), price FROM item WHERE id = 7")
    counting.psql("GRANT pg_read_all_data TO pgops_explain")
    assert run(counting, tmp_path)["plans"] == 0
    (one,) = log(counting)
    assert one["query_text"] == "SELECT pg_sleep($1), price FROM item WHERE id = $2"
    assert one["plan_error"].startswith("PostgreSQL before 16 cannot plan a statement without")
    assert one["execution_plan"] is one["plan_explained_at"] is None


@pytest.mark.every_major(since=16)
def test_a_slow_statement_gets_its_plan(counting: Server, tmp_path: Path) -> None:
    """By the names of its user's search_path, with the rights that somebody has granted and no others."""
    slow(counting, "SELECT pg_sleep(0.2), price FROM item WHERE id = 7")
    assert run(counting, tmp_path)["plans"] == 0
    (refused,) = log(counting)
    assert refused["execution_plan"] is None
    assert "permission denied for table item" in refused["plan_error"]
    counting.psql("GRANT pg_read_all_data TO pgops_explain")
    assert run(counting, tmp_path)["plans"] == 0  # not before a day has gone by
    again(counting)
    assert run(counting, tmp_path)["plans"] == 1
    (one,) = log(counting)
    assert one["query_text"] == "SELECT pg_sleep($1), price FROM item WHERE id = $2"
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


def test_only_normalised_texts_of_a_day_are_asked_for_and_old_plans_go(counting: Server, tmp_path: Path) -> None:
    slow(counting, "SELECT pg_sleep(0.2), 5")
    run(counting, tmp_path, explain=False)
    asked = "SELECT array_agg(query) FROM pgops.statements_to_explain(1)"
    assert counting.value(asked, "pgops") == ["SELECT pg_sleep($1), $2"]
    for change in ("pgops.query_text SET normalised = {}", "pgops.slow_query SET user_name = {}"):
        wrong, right = ("false", "true") if "normalised" in change else ("'pgops_explain'", "'buyer'")
        counting.value(f"UPDATE {change.format(wrong)}", "pgops")
        assert counting.value(asked, "pgops") is None
        counting.value(f"UPDATE {change.format(right)}", "pgops")
    run(counting, tmp_path)
    assert counting.value(asked, "pgops") is None
    counting.value("UPDATE pgops.query_plan SET tried_at = tried_at - interval '33 days'", "pgops")
    counting.value("SELECT pgops.forget_unused_statements()", "pgops")
    assert counting.value("SELECT count(*) FROM pgops.query_plan", "pgops") == 0
    counting.value("UPDATE pgops.slow_query SET last_seen_at = now() - interval '25 hours'", "pgops")
    assert counting.value(asked, "pgops") is None


# --- what a hostile author may try

HOSTILE = """
CREATE SCHEMA mine AUTHORIZATION mallory;
SET SESSION AUTHORIZATION mallory;
CREATE TABLE mine.loot (what text);
GRANT INSERT, SELECT ON mine.loot TO PUBLIC;
GRANT ALL ON SCHEMA mine TO PUBLIC;
CREATE FUNCTION mine.does(command text) RETURNS integer VOLATILE LANGUAGE plpgsql AS $$
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
CREATE FUNCTION mine.tries(command text) RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN mine.does(command);  -- which is volatile, and so may do what this one may not
END
$$;
CREATE FUNCTION mine.sleeps() RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('statement_timeout', '0', false), pg_sleep(60);
    RETURN 1;
END
$$;
CREATE FUNCTION mine.much(size integer) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$
BEGIN
    RETURN repeat('x', size);
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
    "INSERT INTO mine.loot VALUES (current_user) RETURNING what": "refused: cannot execute INSERT in a read-only",
    "CREATE TABLE mine.more AS SELECT 1": "refused: cannot execute CREATE TABLE AS in a read-only",
    "ALTER ROLE pgops_explain VALID UNTIL 'infinity'": "refused: cannot execute ALTER ROLE in a read-only",
    "SELECT set_config('transaction_read_only', 'off', false)": "refused: cannot set transaction read-write mode",
    "SET ROLE pgops": 'refused: permission denied to set role "pgops"',
    "SELECT set_config('role', 'postgres', false)": 'refused: permission denied to set role "postgres"',
    "SET SESSION AUTHORIZATION pgops": "refused: permission denied to set session authorization",
    "SELECT price FROM stock.item LIMIT 1": "refused: permission denied for table item",
    "SELECT pg_read_file('PG_VERSION')": "refused: permission denied for function pg_read_file",
    "SELECT pgops.capture_slow_queries()": 'refused: schema "pgops" does not exist',
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'victim'": "refused: ",
    "SELECT query FROM pg_stat_activity WHERE application_name = 'victim'": ": <insufficient privilege>",
    "COMMIT": "refused: EXECUTE of transaction commands is not implemented",
}
"""What a function tries while its statement is planned, and what it gets to hear."""


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


def test_what_a_function_tries_while_its_statement_is_planned(shop: Server) -> None:
    with shop.connect(application_name="victim") as victim:
        victim.execute("SELECT 'of another'")
        for command, answer in TRIES.items():
            plan, wrong = planned(shop, f"SELECT mine.tries({quoted(command)})", "mallory")
            assert plan is None
            assert answer in (wrong or ""), command
        victim.execute("SELECT 1")  # still there
    assert shop.value("SELECT count(*) FROM mine.loot", "shop") == 0
    assert shop.value("SELECT to_regclass('mine.more') IS NULL", "shop")


def test_a_function_that_does_not_end_is_ended(shop: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it catches the timeout, which comes only once."""
    monkeypatch.setattr(explain, "TIME_LIMIT", 0.5)
    plan, wrong = planned(shop, "SELECT mine.sleeps()", "mallory")
    assert (plan, wrong) == (None, "Planning took longer than 2 s. [SQLSTATE 57014]")
    monkeypatch.setattr(explain, "PATIENCE", 1.0)
    plan, wrong = planned(shop, "SELECT mine.stays()", "mallory")
    assert (plan, wrong) == (None, explain.ENDED)
    until(lambda: shop.value("SELECT count(*) FROM pg_stat_activity WHERE usename = 'pgops_explain'"), "gone", 0)


def test_a_plan_that_a_function_blows_up_takes_little_memory(shop: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TIME_LIMIT", 30), ("PATIENCE", 40), ("MEMORY", 64 * 1024 * 1024)):
        monkeypatch.setattr(explain, name, value)
    blown = "SELECT 1 FROM pg_class WHERE relname::text = mine.much({})"
    before, taken = resource.getrlimit(resource.RLIMIT_AS), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for size in (10**6, 10**8):
        plan, wrong = planned(shop, blown.format(size), "mallory")
        assert plan is None
        assert wrong in (explain.TOO_LARGE, explain.ENDED)
    loud = "SELECT mine.tries($a$SELECT repeat('x', 4000000)$a$)"
    assert "[SQLSTATE XX999]" in (planned(shop, loud, "mallory")[1] or "")[-20:]
    assert len(planned(shop, loud, "mallory")[1] or "") < 2 * texts.LONGEST
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - taken < 64 * 1024
    assert resource.getrlimit(resource.RLIMIT_AS) == before
    assert planned(shop, "SELECT 1")[1] is None


def test_only_one_statement_of_a_kind_that_is_planned_is_planned(shop: Server) -> None:
    hidden = "SELECT 1; CREATE TABLE mine.more AS SELECT 1"
    assert planned(shop, hidden)[1] == ("cannot insert multiple commands into a prepared statement [SQLSTATE 42601]")
    assert planned(shop, "SELECT 1; COMMIT; CREATE TABLE mine.more AS SELECT 1")[0] is None
    assert shop.value("SELECT to_regclass('mine.more') IS NULL", "shop")
    for text in ("CREATE TABLE mine.more AS SELECT 1", "ANALYZE SELECT 1", "EXECUTE one", "", "CALL mine.one()"):
        assert planned(shop, text)[1] == "This kind of statement has no plan.", text
    for text in (
        "(SELECT 1)",
        "/* a /* b */ */ -- SELECT\n\tVALUES (1)",
        "TABLE pg_class",
        "WITH a AS (SELECT 1) TABLE a",
    ):
        assert planned(shop, text)[1] is None, text


def test_what_writes_is_planned_and_writes_nothing(shop: Server) -> None:
    shop.psql("GRANT UPDATE, DELETE, INSERT, SELECT ON stock.item TO pgops_explain", "shop")
    try:
        for text in ("UPDATE item SET price = 0", "DELETE FROM item", "INSERT INTO item VALUES (0, 0)"):
            plan, wrong = planned(shop, text)
            assert wrong is None
            assert nodes(json.loads(plan or "")[0]["Plan"])[0] == "ModifyTable"
    finally:
        shop.psql("REVOKE ALL ON stock.item FROM pgops_explain", "shop")
    assert shop.value("SELECT count(*) FILTER (WHERE price > 0) FROM stock.item", "shop") == 1000


def test_secrets_of_what_a_statement_uses_are_not_in_its_plan(shop: Server) -> None:
    view = (
        "CREATE VIEW mine.mail AS SELECT * FROM mine.loot WHERE what = 'password hunter2'; GRANT SELECT ON mine.mail"
    )
    shop.psql(f"SET ROLE mallory; {view} TO PUBLIC", "shop")
    plan, wrong = planned(shop, "SELECT what FROM mine.mail")
    assert wrong is None
    assert "***" in (plan or "")
    assert "hunter2" not in (plan or "")


def test_a_text_that_is_not_whole_is_not_planned() -> None:
    assert explain.unfit("SELECT " + "1," * 5200) == "The statement's text is too long to be stored completely."
    redacted = "The statement's text was redacted, so it is no longer the same statement."
    assert explain.unfit("SELECT '***'") == redacted
    assert explain.unfit("SELECT 1") is None


def test_on_a_standby_plans_are_made_as_well(shop: Server, keep: Callable[[Server], Server]) -> None:
    standby = keep(shop.standby())
    standby.write_hba(SUPERUSER_ONLY)
    standby.start()
    assert "refused role pgops_explain" in (planned(standby, "SELECT 1")[1] or "")
    assert len(deploy(standby, explain=True)["changes"]) == 1  # the mapping is a copy of the primary's
    assert planned(standby, "SELECT count(*) FROM pg_class")[1] is None
    assert planned(standby, "SELECT mine.tries('SELECT 1')", "mallory")[1] == "did SELECT 1: 1 [SQLSTATE XX999]"
    assert len(deploy(standby)["changes"]) == 2
    assert "refused role pgops_explain" in (planned(standby, "SELECT 1")[1] or "")


# --- the role and its access


ROLE = "SELECT rolcanlogin FROM pg_roles WHERE rolname = 'pgops_explain'"
ADMITTED = "SELECT count(*) FROM pg_hba_file_rules WHERE 'pgops_explain' = ANY (user_name)"


@pytest.fixture(name="clean")
def _clean(server: Server) -> Iterator[Server]:
    withdraw(server)
    yield server
    server.value("DROP OWNED BY pgops_explain") if server.value(ROLE) is not None else None
    withdraw(server)


def changes(server: Server, **params: Any) -> list[str]:
    """What a run says that it changes, as check mode has predicted, and after which there is nothing to change."""
    predicted = deploy(server, check=True, **params)
    done = deploy(server, **params)
    assert predicted == done
    assert deploy(server, **params)["changes"] == []
    return list(done["changes"])


def test_the_role_comes_and_goes_with_the_option(clean: Server) -> None:
    deploy(clean)
    assert clean.value(ROLE) is None
    assert clean.value(ADMITTED) == 0
    made = changes(clean, explain=True)
    assert made[0] == "create role pgops_explain"
    assert [one.split(" in ")[0] for one in made[1:]] == ["update block", "update block"]
    assert clean.value(ROLE) is True
    assert clean.value(ADMITTED) == 1
    # It is a member of what somebody makes it one of, and of nothing by us.
    clean.psql("GRANT pg_read_all_data TO pgops_explain")
    assert deploy(clean, explain=True)["changes"] == []
    assert changes(clean)[0] == "update role pgops_explain"
    (warning,) = deploy(clean)["warnings"]
    assert "stays without login, since it is a member of pg_read_all_data." in warning
    assert (clean.value(ROLE), clean.value(ADMITTED)) == (False, 0)
    clean.psql("REVOKE pg_read_all_data FROM pgops_explain; CREATE TABLE held (a integer)")
    clean.psql("GRANT SELECT ON held TO pgops_explain")
    (warning,) = deploy(clean)["warnings"]
    assert "holds rights in the databases postgres." in warning
    clean.psql("DROP TABLE held")
    assert changes(clean) == ["remove role pgops_explain"]
    assert clean.value(ROLE) is None


def test_all_that_is_ours_goes_with_the_rest(clean: Server) -> None:
    deploy(clean, explain=True)
    clean.psql("CREATE TABLE held (a integer); GRANT SELECT ON held TO pgops_explain")
    assert "remove role pgops_explain" in deploy(clean, state="absent")["changes"]
    assert clean.value(ROLE) is None
    clean.psql("DROP TABLE held")


def test_a_role_of_somebody_else_is_left_alone(clean: Server) -> None:
    clean.value("CREATE ROLE pgops_explain")
    with pytest.raises(
        Conflict, match=r"A role pgops_explain exists of which nothing shows that pgops\.fleet created it"
    ):
        deploy(clean, explain=True)
    deploy(clean)
    deploy(clean, state="absent")
    assert clean.value(ROLE) is False


def test_plans_need_texts_and_the_host_of_the_server(clean: Server) -> None:
    for wrong in ({"query_texts": False}, {"remote": True}):
        with pytest.raises(InvalidInput, match="explain needs query_texts"):
            deploy(clean, explain=True, **wrong)
