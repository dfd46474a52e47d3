# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pg_stat_statements is loaded, created where it is wanted, updated, and taken away again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deploying import STATEMENTS, deploy, target
from servers import Server

from pgops.errors import Conflict, InvalidInput
from pgops.statements import deploy as statements

COUNTED = "SELECT count(*) > 0 FROM public.pg_stat_statements"


@pytest.fixture(name="running")
def _running(major: int, new_server: Callable[..., Server]) -> Server:
    running = new_server(major).start()
    deploy(running)
    running.value("CREATE DATABASE shop")
    return running


def converge(server: Server, prefix: Path, check: bool = False, **params: Any) -> dict[str, Any]:
    """What pg_ops_statements returns; raises what it reports."""
    return statements.converge(target(server), {**STATEMENTS, "prefix": str(prefix), **params}, check)


@pytest.mark.every_major
def test_statements_are_counted_and_then_no_more(running: Server, tmp_path: Path) -> None:
    predicted = converge(running, tmp_path, check=True, databases=["shop"])
    done = converge(running, tmp_path, databases=["shop"])
    assert {**done, "sessions_ended": predicted["sessions_ended"]} == predicted
    assert done["restarted"]
    assert not converge(running, tmp_path, databases=["shop"])["changed"]
    assert running.value(COUNTED, "shop") is True
    running.value("SET SESSION AUTHORIZATION pgops; " + COUNTED, "pgops")
    assert not deploy(running)["changed"]
    more = converge(running, tmp_path, databases=["shop"], max=6000, track="all", restart="never")
    assert [one["name"] for one in more["pending"]] == ["pg_stat_statements.max"]
    gone = converge(running, tmp_path, databases=["shop"], state="absent")
    assert "remove extension pg_stat_statements in database shop" in gone["changes"]
    assert running.value("SHOW shared_preload_libraries") == ""
    assert running.value("SELECT count(*) FROM pg_extension WHERE extname LIKE 'pg_stat%'", "shop") == 0
    assert not converge(running, tmp_path, databases=["shop"], state="absent")["changed"]


def test_an_extension_of_others_is_updated_and_stays(running: Server, tmp_path: Path) -> None:
    running.value("CREATE EXTENSION pg_stat_statements VERSION '1.8'", "shop")
    done = converge(running, tmp_path, databases=["shop"])
    assert "update extension pg_stat_statements in database shop" in done["changes"]
    assert running.value("SELECT extversion <> '1.8' FROM pg_extension WHERE extname = 'pg_stat_statements'", "shop")
    converge(running, tmp_path, databases=["shop"], state="absent")
    assert running.value("SELECT count(*) FROM pg_extension WHERE extname = 'pg_stat_statements'", "shop") == 1


def test_an_extension_that_was_moved_or_closed_is_opened_to_our_roles(running: Server, tmp_path: Path) -> None:
    converge(running, tmp_path)
    running.value('CREATE SCHEMA "of the DBA"', "pgops")
    running.value('ALTER EXTENSION pg_stat_statements SET SCHEMA "of the DBA"', "pgops")
    running.value('REVOKE EXECUTE ON FUNCTION "of the DBA".pg_stat_statements(boolean) FROM PUBLIC', "pgops")
    read = "SET SESSION AUTHORIZATION pgops; SELECT count(*) FROM pgops.statement_counters()"
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        running.value(read, "pgops")
    predicted = converge(running, tmp_path, check=True)
    done = converge(running, tmp_path)
    assert done["changes"] == predicted["changes"]
    assert done["changes"] == ["update rights to extension pg_stat_statements in database pgops"]
    running.value(read, "pgops")
    assert not converge(running, tmp_path)["changed"]


def test_settings_may_be_left_to_others(running: Server, tmp_path: Path) -> None:
    done = converge(running, tmp_path, configure=False)
    assert done["changes"] == ["create extension pg_stat_statements in database pgops"]
    assert running.value("SHOW shared_preload_libraries") == ""


def test_a_standby_has_the_settings_and_not_the_extension(
    running: Server, keep: Callable[[Server], Server], tmp_path: Path
) -> None:
    standby = keep(running.standby()).start()
    done = converge(standby, tmp_path)
    assert done["skipped_reason"].startswith("standby")
    assert standby.value("SHOW shared_preload_libraries") == "pg_stat_statements"
    assert not converge(standby, tmp_path)["changed"]


def test_a_database_that_is_not_there(running: Server, tmp_path: Path) -> None:
    with pytest.raises(Conflict, match="Database nowhere does not exist"):
        converge(running, tmp_path, databases=["nowhere"])
    with pytest.raises(Conflict, match="template"):
        converge(running, tmp_path, databases=["template0"])
    with pytest.raises(InvalidInput, match="100 or more"):
        converge(running, tmp_path, max=1)
    assert running.value("SHOW shared_preload_libraries") == ""


LACKING = {
    "has no schema public": "DROP SCHEMA public",
    "has a relation public.pg_stat_statements": "CREATE VIEW public.pg_stat_statements AS SELECT 1 AS calls",
    "has functions public.pg_stat_statements": (
        "CREATE FUNCTION public.pg_stat_statements_reset() RETURNS void LANGUAGE sql AS ''"
    ),
    "code of others would run: event trigger watch": (
        "CREATE FUNCTION public.on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'; "
        "ALTER FUNCTION public.on_ddl() OWNER TO pgops_reader; "
        "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION public.on_ddl()"
    ),
}


@pytest.mark.parametrize("words", LACKING)
def test_a_database_that_lacks_something_is_named_before_anything_is_changed(
    running: Server, tmp_path: Path, words: str
) -> None:
    running.psql(LACKING[words], "shop")
    for check in (True, False):
        with pytest.raises(Conflict, match=f"(?i)database shop,? {words}"):
            converge(running, tmp_path, check=check, databases=["shop"])
    assert running.value("SHOW shared_preload_libraries") == ""
    assert running.value("SELECT count(*) FROM pg_extension WHERE extname LIKE 'pg_stat%'", "pgops") == 0


USERS = {
    "view report": "CREATE VIEW public.report AS SELECT calls FROM public.pg_stat_statements",
    "materialized view": (
        "CREATE VIEW public.report AS SELECT 1; "
        "CREATE MATERIALIZED VIEW public.report2 AS SELECT * FROM public.pg_stat_statements(false) WITH NO DATA"
    ),
    "function report": (
        "CREATE FUNCTION public.report() RETURNS bigint LANGUAGE sql "
        "BEGIN ATOMIC SELECT count(*) FROM public.pg_stat_statements; END"
    ),
}


@pytest.mark.parametrize("user", USERS)
def test_what_others_use_is_left_with_a_warning(running: Server, tmp_path: Path, user: str) -> None:
    converge(running, tmp_path, databases=["shop"])
    running.psql(USERS[user], "shop")
    assert converge(running, tmp_path, databases=["shop"]).get("warnings") is None
    predicted = converge(running, tmp_path, check=True, databases=["shop"], state="absent")
    gone = converge(running, tmp_path, databases=["shop"], state="absent")
    assert gone["changes"] == predicted["changes"]
    (warning,) = gone["warnings"]
    assert "in database shop stays" in warning
    assert "report" in warning
    assert "remove extension pg_stat_statements in database pgops" in gone["changes"]
    assert not converge(running, tmp_path, databases=["shop"], state="absent")["changed"]


def test_an_old_extension_that_others_use_is_not_updated(running: Server, tmp_path: Path) -> None:
    running.psql("CREATE EXTENSION pg_stat_statements VERSION '1.8'", "shop")
    running.psql("CREATE VIEW public.report AS SELECT calls FROM public.pg_stat_statements", "shop")
    done = converge(running, tmp_path, databases=["shop"])
    assert "stays at 1.8: view public.report uses it" in done["warnings"][0]
    assert not converge(running, tmp_path, databases=["shop"])["changed"]
