# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The user's own collectors are tried on the server before anything is installed, and run like the shipped ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from deploying import AGENT, BUNDLE, SHIPPED, agent_arguments, collect, deploy, withdraw
from servers import Server

from pgops.agent import deploy as agent
from pgops.errors import InvalidInput
from pgops.instance.layout import Layout
from pgops.metrics import collectors

HEADER = "-- collector: own\n-- metric: own_things direction=above warning=1 critical=2\n"
GOOD = f"{HEADER}-- scope: database\nSELECT current_database() AS database, 7 AS own_things\n"


@pytest.fixture(name="bare")
def _bare(server: Server) -> Iterator[Server]:
    yield server
    withdraw(server)


def own(query: str, header: str = HEADER) -> str:
    return f"{header}{query}\n"


def params(server: Server, prefix: Path, *texts: str) -> dict[str, Any]:
    """The arguments of pg_ops_agent."""
    place = {"port": server.port, "socket_directory": str(server.socket_dir), "superuser": server.superuser}
    own_ones = {"collectors": list(texts), "validate": True, "user": "pgops"}
    return {**AGENT, **place, **own_ones, "prefix": str(prefix), "sources": BUNDLE}


WRONG = {
    "a statement more": ("SELECT 1 AS own_things; DELETE FROM pg_class", "exactly one SELECT"),
    "a statement that ends ours": ("SELECT 1 AS own_things) AS a; DROP TABLE b; SELECT (1", "exactly one SELECT"),
    "parentheses that end ours": (
        "SELECT 1 AS own_things) AS a, (SELECT 2 AS two",
        "exactly one SELECT",
    ),
    "a write": ("DELETE FROM pg_class RETURNING 1 AS own_things", "exactly one SELECT"),
    "a write below a SELECT": (
        "WITH gone AS (DELETE FROM pg_class RETURNING 1) SELECT count(*) AS own_things FROM gone",
        "exactly one SELECT",
    ),
    "a lock": ("SELECT 1 AS own_things FROM pg_class FOR UPDATE", "number 1, own: "),
    "no right": ("SELECT count(*) AS own_things FROM pg_authid", "member of pg_monitor only"),
    "no such table": ("SELECT count(*) AS own_things FROM gone.away", "name everything else with its schema"),
    "no such column": ("SELECT 1 AS other_things", "it declares metric own_things, but has no such column"),
    "a column twice": ("SELECT 1 AS own_things, 'a' AS a, 'b' AS a", "column a appears twice"),
    "text": ("SELECT '1' AS own_things", "own_things has the type text, which is not a number"),
    "an undeclared number": ("SELECT 1 AS own_things, pid FROM pg_stat_activity", "column pid is a number"),
    "a time": ("SELECT 1 AS own_things, now() AS at", "label at has the type timestamptz"),
    "a name of ours": ("SELECT 1 AS own_things, 'x' AS metric", "'metric' is reserved and cannot be a label"),
    "a column without a name": ("SELECT 1 AS own_things, 'x'", "needs a name of lower-case letters"),
    "no time for since": ("SELECT 1 AS own_things, 'x' AS counted_since", "counted_since has the type text"),
}


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("kind", WRONG)
def test_what_cannot_run_is_refused_before_anything_is_made(
    bare: Server, tmp_path: Path, kind: str, check: bool
) -> None:
    query, words = WRONG[kind]
    with pytest.raises(InvalidInput) as caught:
        deploy(bare, check=check, collectors=[own(query)])
    assert words in str(caught.value)
    assert "number 1, own" in str(caught.value)
    assert bare.value("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgops%'") == 0
    with pytest.raises(InvalidInput):
        agent.converge(agent_arguments(params(bare, tmp_path, own(query))), check)
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_wrong_is_said_at_once(bare: Server) -> None:
    other = own("SELECT 'x' AS two", "-- collector: other\n-- metric: two\n")
    with pytest.raises(InvalidInput, match=r"number 1, own: .*number 3, other: ") as caught:
        deploy(bare, check=True, collectors=[own("SELECT 'x' AS own_things"), *_fine(), other])
    assert "fine" not in str(caught.value)


def _fine() -> list[str]:
    return ["-- collector: fine\n-- metric: fine\nSELECT 1 AS fine"]


def test_nothing_of_it_is_carried_out(bare: Server) -> None:
    slow = own("SELECT count(*) AS own_things FROM (SELECT pg_sleep(60)) AS s", f"{HEADER}-- timeout: 5\n")
    deploy(bare, collectors=[slow])


def test_a_right_given_to_the_agents_role_counts(bare: Server) -> None:
    deploy(bare)
    bare.value("CREATE SCHEMA app; CREATE TABLE app.queue ()", "pgops")
    reading = own("SELECT count(*) AS own_things FROM app.queue")
    with pytest.raises(InvalidInput, match="Grant what it needs to pgops"):
        deploy(bare, collectors=[reading])
    bare.value("GRANT USAGE ON SCHEMA app TO pgops; GRANT SELECT ON app.queue TO pgops", "pgops")
    assert "create collector own" in deploy(bare, collectors=[reading])["changes"]


QUEUE = "CREATE SCHEMA app; CREATE TABLE app.queue AS SELECT generate_series(1, 3) AS id"
LET_IN = "GRANT USAGE ON SCHEMA app TO pgops; GRANT SELECT ON app.queue TO pgops"
COUNT = "SELECT current_database() AS database, count(*) AS own_things FROM app.queue"


@pytest.fixture(name="shops")
def _shops(bare: Server) -> Iterator[Server]:
    """With a database shop that has a queue, in no other database; the agent's role is there, and may not read it."""
    deploy(bare)
    bare.value("CREATE DATABASE shop")
    bare.value(QUEUE, "shop")
    yield bare
    for name in ("shop", "shop_new"):
        bare.value(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


def queue(databases: str, query: str = COUNT) -> str:
    return own(query, f"{HEADER}-- scope: database\n-- databases: {databases}\n")


def measured(server: Server) -> Any:
    select = "SELECT string_agg(DISTINCT database_name, ' ' ORDER BY database_name) FROM pgops.system_metrics "
    return server.value(f"{select} WHERE metric_name = 'own_things'", "pgops")


def test_one_for_some_databases_is_tried_in_the_first_and_runs_in_no_other(shops: Server, tmp_path: Path) -> None:
    text = queue("absent, shop*")
    shops.value("CREATE DATABASE shop_new")
    with pytest.raises(InvalidInput, match="tested in database shop: number 1, own: permission denied"):
        deploy(shops, check=True, collectors=[text])
    shops.value(LET_IN, "shop")
    assert "warnings" not in agent.converge(agent_arguments(params(shops, tmp_path, text)), False)
    deploy(shops, collectors=[text])
    assert shops.value("SELECT to_regproc('pgops.collector_own')", "pgops") is None
    found = collectors.parse(text, "own.sql")
    shops.value("DROP DATABASE shop_new")
    assert collect(shops, tmp_path, found=[found])["errors"] == []
    assert measured(shops) == "shop"
    shops.value("CREATE DATABASE shop_new TEMPLATE shop")
    assert collect(shops, tmp_path, found=[found])["errors"] == []
    assert measured(shops) == "shop shop_new"


def test_one_for_a_database_that_is_not_there_is_left_with_a_warning(shops: Server, tmp_path: Path) -> None:
    text = queue("shopp, crm*")
    (warning,) = agent.converge(
        agent_arguments(params(shops, tmp_path, text, queue("shopp").replace("own", "two"))), True
    )["warnings"]
    assert "No database matches" in warning
    assert "1, own; 2, two" in warning
    deploy(shops, collectors=[text])
    outcome = collect(shops, tmp_path, found=[collectors.parse(text, "own.sql")])
    assert (outcome["errors"], measured(shops)) == ([], None)


def test_one_for_the_ops_database_has_its_function_there(shops: Server) -> None:
    assert "create collector own" in deploy(shops, collectors=[queue("pgo?s", GOOD.splitlines()[-1])])["changes"]
    assert shops.value("SELECT pgops.collector_own() ->> 'own_things'", "pgops") == "7"
    with pytest.raises(InvalidInput, match="tested in database pgops"):
        deploy(shops, collectors=[queue("*s*")])
    assert "remove function pgops.collector_own()" in deploy(shops, collectors=[queue("shop?")])["changes"]
    shops.value("SELECT pgops.collect_database_metrics()", "pgops")
    failed = "SELECT count(*) FROM pgops.system_metrics WHERE metric_name = 'collector_errors' AND metric_value > 0"
    assert shops.value(failed, "pgops") == 0


def test_what_it_runs_in_somebody_elses_database_is_no_superuser(shops: Server, tmp_path: Path) -> None:
    body = "BEGIN PERFORM set_config('role', 'none', true); RAISE 'acting as %', current_user; END"
    shops.value(f"CREATE FUNCTION app.trap() RETURNS integer IMMUTABLE LANGUAGE plpgsql AS $${body}$$", "shop")
    shops.value("CREATE VIEW app.trapped AS SELECT id FROM app.queue WHERE id = app.trap()", "shop")
    shops.value(f"{LET_IN}; GRANT SELECT ON app.trapped TO pgops", "shop")
    text = queue("shop", COUNT.replace("queue", "trapped"))
    with pytest.raises(InvalidInput, match="acting as pgops"):
        deploy(shops, collectors=[text])
    # Where the agent cannot log in, nothing is planned.
    shops.value("REVOKE CONNECT ON DATABASE shop FROM PUBLIC")
    (warning,) = agent.converge(agent_arguments(params(shops, tmp_path, text)), True)["warnings"]
    assert "cannot log in to database shop" in warning
    for query, words in (("SELECT 'x' AS own_things FROM app.queue", "not a number"), WRONG["a statement more"]):
        with pytest.raises(InvalidInput, match=words):
            deploy(shops, collectors=[queue("shop", query)])


def test_a_lock_is_not_waited_for(bare: Server) -> None:
    deploy(bare)
    bare.value("CREATE TABLE public.held (); GRANT USAGE ON SCHEMA public TO pgops", "pgops")
    bare.value("GRANT SELECT ON public.held TO pgops", "pgops")
    with bare.connect("pgops") as holder, holder.transaction():
        holder.execute("LOCK TABLE public.held IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(InvalidInput, match="Another session holds an exclusive lock"):
            deploy(bare, check=True, collectors=[own("SELECT count(*) AS own_things FROM public.held")])


def test_the_database_that_is_made_in_this_run_decides(bare: Server) -> None:
    bare.value("CREATE SCHEMA extra; CREATE TABLE extra.here (); GRANT USAGE ON SCHEMA extra TO PUBLIC")
    bare.value("GRANT SELECT ON extra.here TO PUBLIC")
    try:
        with pytest.raises(InvalidInput, match=r"tested in database pgops: .*extra\.here"):
            deploy(bare, collectors=[own("SELECT count(*) AS own_things FROM extra.here")])
        assert bare.value("SELECT to_regnamespace('pgops')", "pgops") is None
    finally:
        bare.value("DROP SCHEMA extra CASCADE")


def test_one_for_another_server_is_left_with_a_warning(bare: Server, tmp_path: Path) -> None:
    elsewhere = own("SELECT gone()", f"{HEADER}-- versions: 90-\n")
    result = agent.converge(agent_arguments(params(bare, tmp_path, elsewhere)), True)
    (warning,) = result["warnings"]
    assert f"do not run on PostgreSQL {bare.major} as primary: 1, own" in warning
    deploy(bare, collectors=[elsewhere])
    assert bare.value("SELECT count(*) FROM pgops.collector WHERE collector = 'own'", "pgops") == 0


def test_it_is_installed_runs_and_is_configured_like_shipped_ones(bare: Server, tmp_path: Path) -> None:
    arguments = params(bare, tmp_path, GOOD)
    arguments["capabilities"] = {"metrics": {"collectors": {"own": {"interval": 300, "timeout": 2}}}}
    agent.converge(agent_arguments(arguments), False)
    assert (Path(Layout("main", str(tmp_path)).collectors) / "own.sql").read_text() == GOOD
    thresholds = {"own_things": {"warning": 1.5, "critical": None}}
    deploy(bare, collectors=[GOOD], thresholds=thresholds)
    assert not deploy(bare, collectors=[GOOD], thresholds=thresholds)["changed"]
    found = collectors.parse(GOOD, "own.sql")
    assert collect(bare, tmp_path, found=[*SHIPPED, found])["errors"] == []
    with bare.connect("pgops") as session:
        row = session.execute(
            "SELECT DISTINCT metric_value, warning_threshold, critical_threshold FROM pgops.system_metrics "
            "WHERE metric_name = 'own_things'"
        ).fetchall()
    assert row == [(7, 1.5, 2)]
    off = {"own": {"enabled": False}}
    assert collect(bare, tmp_path, found=[found], collectors=off)["collectors"] == 0


@pytest.mark.parametrize("text", ["-- $collector$", "/* $collector$ $collector_$ */", "WHERE '$collector$' <> '$'"])
def test_a_text_cannot_end_the_function_that_it_is_in(bare: Server, text: str) -> None:
    deploy(bare, collectors=[own(f"SELECT 7 AS own_things\n{text}")])
    assert bare.value("SELECT pgops.collector_own() ->> 'own_things'", "pgops") == "7"


def test_on_a_standby_they_are_tried_as_well(
    major: int, new_server: Callable[..., Server], keep: Callable[[Server], Server], tmp_path: Path
) -> None:
    primary = new_server(major).start()
    deploy(primary)
    primary.value("CREATE DATABASE shop")
    primary.value(f"{QUEUE}; {LET_IN}", "shop")
    standby = keep(primary.standby()).start()
    with pytest.raises(InvalidInput, match="not a number"):
        agent.converge(agent_arguments(params(standby, tmp_path, own("SELECT 'x' AS own_things"))), True)
    assert agent.converge(agent_arguments(params(standby, tmp_path, GOOD)), True)["changed"]
    assert "warnings" not in agent.converge(agent_arguments(params(standby, tmp_path, queue("shop"))), True)
