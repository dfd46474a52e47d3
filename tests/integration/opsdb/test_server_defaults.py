# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whatever defaults a server, a database or a role has, our sessions have their own: deployment, second run, jobs,
facts and removal do the same as everywhere."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from archives import Host
from deploying import STATEMENTS, collect, configured, deploy, inspect, target
from servers import Server

from pgops.facts import gathering
from pgops.metrics import partitions
from pgops.repository import catalogue
from pgops.server import pins
from pgops.server.session import connect
from pgops.statements import deploy as statements
from pgops.statements import explain
from pgops.statements import job as queries

SETTINGS = {"shared_preload_libraries": "pg_stat_statements", "compute_query_id": "on"}
FACTS = {"gather_subset": ["all"], "database": "pgops", "database_sizes": True, "prefix": "/", "max_bytes": 0}
WITHOUT_SETTINGS: dict[str, Any] = {**STATEMENTS, "databases": ["shop"], "configure": False, "restart": "never"}
HOSTILE = {
    "DateStyle": "German",
    "IntervalStyle": "sql_standard",
    "TimeZone": "Asia/Kathmandu",
    "array_nulls": "off",
    "backslash_quote": "off",
    "bytea_output": "escape",
    "check_function_bodies": "off",
    "client_encoding": "latin1",
    "client_min_messages": "error",
    "createrole_self_grant": "set, inherit",
    "default_table_access_method": "elsewhere",
    "default_tablespace": "elsewhere",
    "default_toast_compression": "pglz",
    "default_transaction_deferrable": "on",
    "default_transaction_isolation": "serializable",
    "default_transaction_read_only": "on",
    "effective_cache_size": "8kB",
    "enable_partitionwise_aggregate": "on",
    "enable_partitionwise_join": "on",
    "escape_string_warning": "off",
    "event_triggers": "off",
    "exit_on_error": "on",
    "extra_float_digits": "-15",
    "from_collapse_limit": "1",
    "geqo_threshold": "2",
    "idle_in_transaction_session_timeout": "1",
    "idle_session_timeout": "2000",
    "jit_above_cost": "0",
    "join_collapse_limit": "1",
    "lc_messages": "POSIX",
    "lc_numeric": "POSIX",
    "lock_timeout": "1",
    "password_encryption": "md5",
    "plan_cache_mode": "force_generic_plan",
    "plpgsql.extra_errors": "all",
    "plpgsql.extra_warnings": "all",
    "plpgsql.variable_conflict": "use_column",
    "quote_all_identifiers": "on",
    "restrict_nonsystem_relation_kind": "view, foreign-table",
    "random_page_cost": "1000",
    "row_security": "off",
    "search_path": "elsewhere",
    "session_replication_role": "replica",
    "standard_conforming_strings": "off",
    "stats_fetch_consistency": "snapshot",
    "statement_timeout": "1",
    "synchronous_commit": "remote_apply",
    "temp_tablespaces": "elsewhere",
    "transaction_timeout": "2000",
    "transform_null_equals": "on",
    "work_mem": "64kB",
    "xmlbinary": "hex",
    "xmloption": "document",
    **{f"enable_{name}": "off" for name in pins.SWITCHES},
    **{name: "off" for name in pins.PLANS_SINCE if name.startswith("enable_")},
}
WITHOUT_EFFECT = re.compile("jit_|parallel|gather|default_statistics_target|(logical_decoding|maintenance)_work_mem")
"""Of settings for plans: those of parallel ones and of compiled expressions, which our sessions have not, of ANALYZE,
and of the memory for other things."""


@pytest.fixture(name="server")
def _server(make: Callable[..., Host]) -> Host:
    host = make(settings=SETTINGS)
    server = host.server
    server.run("mkdir", server.directory / "elsewhere")
    for statement in (
        "CREATE ROLE dba LOGIN SUPERUSER",
        "CREATE ROLE plain",
        f"CREATE TABLESPACE elsewhere LOCATION '{server.directory}/elsewhere'",
        "CREATE DATABASE shop",
    ):
        server.psql(statement)
    for database in ("postgres", "shop"):
        server.psql("CREATE ACCESS METHOD elsewhere TYPE TABLE HANDLER heap_tableam_handler", database)
    return host


def hostile(server: Server, names: list[str]) -> None:
    """Defaults of the whole server, of databases and of roles; the sessions of the test have none of them."""
    with server.connect() as session:
        session.execute("LOAD 'plpgsql'")
        for name in names:
            (usual,) = session.execute(f"SELECT current_setting('{name}')".encode()).fetchone() or ("",)
            quoted = str(usual).replace("'", "''")
            session.execute(f"ALTER ROLE postgres SET {name} TO '{quoted}'".encode())
        for name in names:
            session.execute(f"ALTER SYSTEM SET {name} TO {spelled(name)}".encode())
            session.execute(f"ALTER DATABASE shop SET {name} TO {spelled(name)}".encode())
            session.execute(f"ALTER ROLE dba SET {name} TO {spelled(name)}".encode())
        session.execute("ALTER ROLE dba SET role TO 'plain'")
    server.reload()


def spelled(name: str) -> str:
    return ", ".join(f"'{word.strip()}'" for word in HOSTILE[name].split(","))


def known(server: Server) -> list[str]:
    with server.connect() as session:
        session.execute("LOAD 'plpgsql'")
        rows = session.execute("SELECT name FROM pg_settings").fetchall()
    fixed = {"standard_conforming_strings"} if server.major >= 19 else set()
    return sorted((set(HOSTILE) - fixed) & {name for (name,) in rows})


def all_of_it(host: Host, state: Path) -> None:
    """Deploy and predict, deploy again, let all jobs run, and gather facts, as a superuser of another name."""
    tests, server = host.server, replace(host.server, superuser="dba")
    predicted = deploy(server, check=True, explain=True)
    assert deploy(server, explain=True) == predicted
    more = {**WITHOUT_SETTINGS, "prefix": str(host.prefix)}
    assert statements.converge(target(server), more, False)["changed"]
    archiving = Host(server, host.base, host.prefix)
    archiving.apply()
    for again in (
        deploy(server, check=True, explain=True),
        deploy(server, explain=True),
        statements.converge(target(server), more, False),
        archiving.apply(),
    ):
        assert (again["changed"], again.get("warnings")) == (False, None)
    repository = {"repository": str(host.repository), "superuser": "dba"}
    configuration, layout = configured(server, state, slow_query_ms=0.0, explain=True, **repository)
    for job in (
        lambda: collect(server, state),
        lambda: inspect(server, state),
        lambda: partitions.maintain(configuration),
        lambda: queries.collect(configuration, layout),
        lambda: queries.collect(configuration, layout),
        lambda: catalogue.update(configuration),
    ):
        done = job()
        assert (done["errors"], done.get("skipped")) == ([], None)
    plan, wrong = explain.planned(
        configuration, {"query": "SELECT 1", "database_name": "shop", "user_name": "plain", "queryid": 1}
    )
    assert (bool(plan), wrong) == (True, None)
    (facts,) = gathering.gather(target(server), FACTS)["ansible_facts"]["pg_ops"]["instances"]
    assert [facts[name]["error"] for name in ("server", "settings", "databases", "schema", "monitoring")] == [
        None
    ] * 5
    assert facts["schema"]["drifted"] == []
    shown = facts["settings"]["parameters"]
    for name in ("work_mem", "password_encryption", "idle_in_transaction_session_timeout", "synchronous_commit"):
        assert shown[name]["value"] == {"work_mem": "64"}.get(name, HOSTILE[name])
    assert tests.value("SELECT count(*) FROM pgops.system_metrics", "pgops")


def all_gone(host: Host) -> None:
    server = replace(host.server, superuser="dba")
    more = {**WITHOUT_SETTINGS, "prefix": str(host.prefix), "state": "absent"}
    assert statements.converge(target(server), more, False)["changed"]
    archiving = Host(server, host.base, host.prefix)
    assert archiving.apply(state="absent")["changed"]
    predicted = deploy(server, check=True, state="absent", purge=True)
    assert deploy(server, state="absent", purge=True) == predicted
    assert not deploy(server, state="absent", purge=True)["changed"]
    assert host.server.value("SELECT count(*) FROM pg_roles WHERE rolname ~ '^pgops'") == 0


@pytest.mark.every_major
def test_defaults_of_a_server_change_nothing_of_what_we_do(server: Host, tmp_path: Path) -> None:
    names = known(server.server)
    assert len(names) > 40
    hostile(server.server, names)
    all_of_it(server, tmp_path)
    for name in names:  # and those of the ops database
        server.server.psql(f"ALTER DATABASE pgops SET {name} TO {spelled(name)}")
    all_of_it_again(server, tmp_path)
    all_gone(server)


def all_of_it_again(host: Host, state: Path) -> None:
    server = replace(host.server, superuser="dba")
    assert not deploy(server, explain=True)["changed"]
    assert deploy(server, explain=True, retention_days=12)["changed"]
    assert collect(server, state)["errors"] == []
    assert inspect(server, state)["errors"] == []


@pytest.mark.every_major
def test_a_session_has_its_own_settings_from_its_beginning_to_its_end(server: Host) -> None:
    names = known(server.server)
    hostile(server.server, names)
    expected = {**pins.PINNED, **pins.NAMES, **pins.PLANS, **pins.BY_SUPERUSERS}
    later = {name: value for name, (_since, value) in {**pins.SINCE, **pins.PLANS_SINCE}.items() if name in names}
    with connect(target(server.server, user="dba", statement_timeout=7.0)) as session:
        for name, value in later.items():
            assert session.value("SELECT current_setting(%s)", [name]) == value, name
        for _look in range(2):
            for name in set(names) & set(expected):
                now = str(session.value("SELECT current_setting(%s)", [name])).replace(" ", "")
                assert now == expected[name].replace(" ", ""), name
            assert session.value("SHOW statement_timeout") == "7s"
            assert session.value("SELECT current_user::text") == "dba"
            session.execute("RESET ALL")
            session.execute("RESET ROLE")
            if server.server.major >= 17:
                session.execute("SET transaction_timeout = 0")
            names = [name for name in names if name not in pins.BY_SUPERUSERS]


@pytest.mark.every_major
def test_every_setting_for_plans_is_pinned_at_the_servers_own_default(server: Host) -> None:
    free = "SELECT name, setting, boot_val FROM pg_settings WHERE context = 'user'"
    with connect(target(server.server)) as session:
        found = {
            row["name"]: row for row in session.rows(f"{free} AND (category ~ 'Query Tuning' OR name ~ 'work_mem')")
        }
        pinned = {*pins.PLANS, *(name for name, (since, _) in pins.PLANS_SINCE.items() if session.major >= since)}
    others = found.keys() - pinned
    assert [name for name in others if not WITHOUT_EFFECT.search(name)] == []
    differing = {name for name in found.keys() & pinned if found[name]["setting"] != found[name]["boot_val"]}
    assert differing <= {"jit", "max_parallel_workers_per_gather", "hash_mem_multiplier"}
