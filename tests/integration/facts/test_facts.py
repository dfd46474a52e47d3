"""Facts of real servers: they agree with the contract, whoever asks and whatever is there."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import artifact
import facts_contract
import pytest
from majors import EVERY_MAJOR, make_server
from servers import Server
from waiting import until

from pgops import sources
from pgops.errors import InvalidInput
from pgops.facts import gathering, instance
from pgops.facts.instance import OPS
from pgops.instance.layout import Layout
from pgops.opsdb import deploy as schema
from pgops.server import locking
from pgops.server import session as server
from pgops.server.target import Target

DEFAULTS = {"gather_subset": ["all"], "database": "pgops", "database_sizes": False, "max_bytes": 65536, "prefix": "/"}
PASSWORD = "correct horse"


def gather(target: Target, **params: Any) -> dict[str, Any]:
    """What the module returns as pg_ops, which always agrees with the contract."""
    facts: dict[str, Any] = gathering.gather(target, {**DEFAULTS, **params})["ansible_facts"]["pg_ops"]
    assert json.loads(json.dumps(facts)) == facts
    assert facts_contract.differences(facts) == []
    return facts


def only(facts: dict[str, Any]) -> dict[str, Any]:
    (found,) = facts["instances"]
    return dict(found)


def errors(found: dict[str, Any]) -> dict[str, str]:
    """Codes of the errors of sections."""
    sections = {name: found[name] for name in instance.SECTIONS if name in found}
    return {name: section["error"]["code"] for name, section in sections.items() if section["error"]}


def local(running: Server, **other: Any) -> Target:
    return Target(host=str(running.socket_dir), port=str(running.port), user="postgres", **other)


def remote(running: Server, user: str, password: str = PASSWORD) -> Target:
    return Target(host="127.0.0.1", port=str(running.port), user=user, password=password, sslmode="disable")


def install(running: Server) -> None:
    """The ops database with one round of samples."""
    desired = schema.Desired(cluster="shop", node="node1", sources=sources.gather(str(artifact.LIBRARY), (".sql",)))
    with locking.locked(local(running), "this cannot be done") as session:
        current = schema.read(session, desired.database, desired.node, with_access=False)
        schema.apply(session, desired, schema.plan(current, desired))
    running.psql("SELECT pgops.collect_database_metrics()", "pgops")


def streaming(standby: Server) -> Server:
    """A standby once it streams."""
    until(lambda: standby.value("SELECT status FROM pg_stat_wal_receiver"), "streaming", "streaming")
    return standby


@pytest.fixture(scope="module", params=EVERY_MAJOR)
def installed(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server with the ops database, and a role without rights that logs in with a password over TCP."""
    made = make_server(request.param, settings={"log_statement": "all", "wal_level": "logical"})
    made.write_hba("local all all trust\nlocal replication all trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
    with made as running:
        install(running)
        running.psql(f"CREATE ROLE watcher LOGIN PASSWORD '{PASSWORD}'")
        yield running


@pytest.mark.every_major
def test_server_without_anything_of_ours(server):
    found = only(gather(local(server), database="no such database"))
    assert found["error"] is None
    assert errors(found) == {}
    assert (found["running"], found["role"], found["major"]) == (True, "primary", server.major)
    assert found["schema"]["installed"] is False
    assert found["monitoring"]["newest"] == []
    assert found["server"]["login_superuser"] is True
    hidden = {name: found[name]["hidden"] for name in instance.SECTIONS}
    assert {name: list(reasons) for name, reasons in hidden.items() if reasons} == {"databases": ["list.size_bytes"]}


def test_database_without_the_schema(server, database):
    found = only(gather(local(server), database=database, gather_subset=OPS))
    assert errors(found) == {}
    assert (found["schema"]["database"], found["schema"]["installed"]) == (database, False)


@pytest.mark.every_major
def test_installed(installed):
    found = only(gather(local(installed), database_sizes=True))
    assert errors(found) == {}
    assert found["schema"]["installed"] is True
    assert found["schema"]["drifted"] == []
    collectors = {row["collector"] for row in found["monitoring"]["newest"]}
    assert {"activity", "database_activity", "database_size", "locks", "table_size"} <= collectors
    assert all(0 <= row["age_s"] < installed.age() for row in found["monitoring"]["newest"])
    assert found["monitoring"]["nodes"][0]["node"] == "node1"
    assert found["monitoring"]["partitions"] >= 1
    assert all(row["size_bytes"] > 1_000_000 for row in found["databases"]["list"])


def test_at_most_ten_queries(installed):
    before = installed.log.stat().st_size
    gather(local(installed), database_sizes=True)
    logged = installed.logged(since=before)
    queries = re.findall(r"LOG:  (?:statement|execute [^:]*): (.*)", logged)
    assert 2 <= len(queries) <= 10, queries
    assert len(set(re.findall(r"\[(\d+)\].*LOG:  (?:statement|execute)", logged))) <= 2


@pytest.mark.every_major
def test_minimum_takes_two_queries(installed):
    before = installed.log.stat().st_size
    found = only(gather(local(installed), gather_subset=["min"]))
    logged = installed.logged(since=before)
    assert len(re.findall(r"LOG:  (?:statement|execute)", logged)) == 2
    assert found["system_identifier"] == installed.value("SELECT system_identifier::text FROM pg_control_system()")
    assert not set(found) & set(instance.SECTIONS)


@pytest.mark.every_major
def test_role_without_rights(installed):
    found = only(gather(remote(installed, "watcher")))
    assert found["error"] is None
    assert errors(found) == dict.fromkeys(OPS, "login_refused")
    assert (found["role"], found["major"]) == ("primary", installed.major)
    assert found["data_directory"] is None
    assert "pg_read_all_settings" in found["server"]["hidden"]["data_directory"]
    assert found["connections"]["active"] is None
    assert "pg_read_all_stats" in found["connections"]["hidden"]["active"]
    assert found["settings"]["parameters"]["shared_preload_libraries"] is None


def test_role_that_may_connect_and_not_read(installed):
    installed.psql("GRANT CONNECT ON DATABASE pgops TO watcher")
    try:
        found = only(gather(remote(installed, "watcher")))
    finally:
        installed.psql("REVOKE CONNECT ON DATABASE pgops FROM watcher")
    assert errors(found) == dict.fromkeys(OPS, "permission_missing")


@pytest.mark.every_major
def test_role_that_may_monitor(installed):
    installed.psql("GRANT pg_monitor TO watcher")
    try:
        found = only(gather(remote(installed, "watcher"), gather_subset=[f"!{name}" for name in OPS]))
    finally:
        installed.psql("REVOKE pg_monitor FROM watcher")
    assert errors(found) == {}
    assert found["server"]["data_directory"] == str(installed.data_dir)
    assert found["connections"]["active"] is not None


def settled(value: Any) -> Any:
    """The same without what changes from one moment to the next."""
    if isinstance(value, dict):
        return {key: settled(part) for key, part in value.items() if not key.endswith("age_s")}
    return [settled(part) for part in value] if isinstance(value, list) else value


def test_a_reader_sees_of_the_ops_database_what_a_superuser_sees(installed, keep):
    standby = streaming(keep(installed.standby()).start())
    installed.psql("ALTER FUNCTION pgops.server_epoch() VOLATILE", "pgops")
    installed.psql("GRANT pgops_reader TO watcher")
    try:
        lsn = installed.value("SELECT pg_current_wal_lsn()")
        until(lambda: standby.value(f"SELECT pg_last_wal_replay_lsn() >= '{lsn}'"), "replayed")
        for one in (installed, standby):
            reader, superuser = (only(gather(at, gather_subset=OPS)) for at in (remote(one, "watcher"), local(one)))
            assert errors(reader) == errors(superuser) == {}
            assert reader["schema"]["drifted"] == ["function pgops.server_epoch()"]
            assert len(reader["monitoring"]["newest"]) > 5
            for name in OPS:
                assert settled(reader[name]) == settled(superuser[name])
    finally:
        installed.psql("REVOKE pgops_reader FROM watcher")
        installed.psql("ALTER FUNCTION pgops.server_epoch() STABLE", "pgops")


def test_wrong_password(installed):
    found = only(gather(remote(installed, "watcher", "wrong")))
    assert found["error"]["code"] == "login_refused"
    assert found["running"] is True
    assert set(errors(found)) == set(instance.SERVER + instance.OPS)
    assert PASSWORD not in json.dumps(found)


def test_function_that_was_revoked_fails_its_section_only(installed):
    installed.psql("REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    try:
        found = only(gather(remote(installed, "watcher"), gather_subset=["all", *(f"!{name}" for name in OPS)]))
    finally:
        installed.psql("GRANT EXECUTE ON FUNCTION pg_control_system() TO PUBLIC")
    assert errors(found) == {"server": "permission_missing"}
    assert (found["role"], found["major"], found["system_identifier"]) == ("primary", installed.major, None)


def test_edited_object_is_seen(installed):
    installed.psql("ALTER FUNCTION pgops.server_epoch() VOLATILE; CREATE VIEW pgops.mine AS SELECT 1", "pgops")
    try:
        found = only(gather(local(installed), gather_subset=["schema"]))
    finally:
        installed.psql("ALTER FUNCTION pgops.server_epoch() STABLE; DROP VIEW pgops.mine", "pgops")
    assert found["schema"]["drifted"] == ["function pgops.server_epoch()", "view pgops.mine"]


def test_drift_is_not_guessed_after_an_upgrade_of_the_server(installed):
    installed.psql("UPDATE pgops.fingerprint SET server_major = server_major - 1", "pgops")
    try:
        found = only(gather(local(installed), gather_subset=["schema"]))
    finally:
        installed.psql("UPDATE pgops.fingerprint SET server_major = server_major + 1", "pgops")
    assert found["schema"]["drifted"] is None
    assert "drifted" in found["schema"]["hidden"]


def test_slow_section_is_given_up_and_the_rest_is_there(installed):
    with installed.connect("pgops") as blocker:
        blocker.execute("BEGIN; LOCK pgops.series, pgops.fingerprint IN ACCESS EXCLUSIVE MODE")
        target = local(installed, statement_timeout=2.0, lock_timeout=0.2)
        assert errors(only(gather(target))) == dict.fromkeys(["schema", "monitoring", "alerts"], "busy")
        target = local(installed, statement_timeout=2.0)
        assert errors(only(gather(target))) == dict.fromkeys(["schema", "monitoring", "alerts"], "timeout")


def test_no_query_goes_without_a_timeout(installed):
    with pytest.raises(InvalidInput, match="statement_timeout"):
        gather(local(installed, statement_timeout=0.0001))


@pytest.mark.every_major
def test_slots_and_standby(installed, keep):
    standby = streaming(keep(installed.standby()).start())
    installed.psql("SELECT pg_create_physical_replication_slot('kept', true)")
    try:
        primary = only(gather(local(installed)))
        found = only(gather(local(standby)))
        installed.psql("GRANT CONNECT ON DATABASE pgops TO watcher")
        unprivileged = only(gather(remote(installed, "watcher")))
    finally:
        installed.psql("REVOKE CONNECT ON DATABASE pgops FROM watcher")
        installed.psql("SELECT pg_drop_replication_slot('kept')")
    assert primary["replication"]["standbys"][0]["state"] == "streaming"
    assert primary["replication"]["standbys"][0]["sent_lag_bytes"] >= 0
    assert primary["replication"]["slots"][0]["retained_bytes"] >= 0
    assert unprivileged["replication"]["standbys"][0]["state"] is None
    assert errors(found) == {}
    assert (found["role"], found["server"]["role"]) == ("standby", "standby")
    assert found["server"]["recovery"]["paused"] is False
    assert found["replication"]["receiver"]["status"] == "streaming"
    assert found["system_identifier"] == primary["system_identifier"]
    assert found["schema"]["drifted"] == []
    assert len(found["monitoring"]["newest"]) == len(primary["monitoring"]["newest"]) > 5


def test_standby_shows_its_receiver_to_nobody_without_rights(installed, keep):
    standby = streaming(keep(installed.standby()).start())
    found = only(gather(remote(standby, "watcher")))
    assert errors(found) == dict.fromkeys(OPS, "login_refused")
    assert found["replication"]["receiver"]["status"] is None


def test_setting_that_waits_for_a_restart(installed):
    installed.psql("ALTER SYSTEM SET max_connections = 60")
    installed.reload()
    try:
        found = only(gather(local(installed), gather_subset=["settings"]))
    finally:
        installed.psql("ALTER SYSTEM RESET max_connections")
        installed.reload()
    assert found["settings"]["pending_restart"] == ["max_connections"]


def test_archiver_that_fails(major, new_server):
    server = new_server(major, settings={"archive_mode": "on", "archive_command": "false"})
    with server as running:
        running.psql("CREATE TABLE t (); SELECT pg_switch_wal()")
        asked = {"gather_subset": ["archiver"]}
        found = until(
            lambda: only(gather(local(running), **asked)), "failing", lambda seen: seen["archiver"]["failing"] is True
        )
    assert found["archiver"]["configured"] is True


def test_names_in_any_encoding(major, new_server):
    with new_server(major, encoding="SQL_ASCII") as running:
        with running.connect(client_encoding="LATIN1") as connection:
            connection.execute('CREATE DATABASE "caf\u00e9"')
        with running.connect() as connection:
            connection.execute('CREATE DATABASE "we""ird db"')
        found = only(gather(local(running), database='we"ird db'))
    assert errors(found) == {}
    names = [row["name"] for row in found["databases"]["list"]]
    assert {"caf\\xe9", 'we"ird db'} <= set(names)
    assert found["schema"]["database"] == 'we"ird db'


def test_databases_in_other_encodings_than_their_names(major, new_server):
    with new_server(major) as running:
        for encoding, name in (("LATIN1", "d\u00e9v"), ("EUC_JP", "j\u00e9v"), ("SQL_ASCII", "loose")):
            running.value(f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'")
        for inside in ("d\u00e9v", "loose"):
            with running.connect(inside) as connection:
                connection.autocommit = True
                connection.execute(f'CREATE DATABASE "c{inside[1]}" TEMPLATE template0'.encode("latin-1"))
        running.value('CREATE DATABASE "c\\xe9"')
        for asked in ("postgres", "d\u00e9v", "j\u00e9v", "loose"):
            found = only(gather(local(running, database=asked)))
            assert errors(found) == {}
            names = {row["name"] for row in found["databases"]["list"]}
            assert names >= {"d\u00e9v", "j\u00e9v", "c\\xe9", "co", "c\\\\xe9"}


def test_server_that_is_down(major, new_server):
    server = new_server(major)
    facts = gather(local(server))
    found = only(facts)
    assert found["running"] is False
    assert found["error"]["code"] == "unreachable"
    assert set(errors(found)) == set(instance.SERVER + instance.OPS)
    assert found["agent"]["error"] is None


def test_host_without_psycopg(installed, monkeypatch):
    monkeypatch.setattr(server, "IMPORT_ERROR", "No module named 'psycopg'")
    facts = gather(local(installed))
    assert facts["host"]["psycopg"] is None
    assert "psycopg" in facts["host"]["psycopg_error"]
    assert only(facts)["error"]["code"] == "driver_missing"


def test_many_databases_fit(installed):
    found = gather(local(installed), max_bytes=4500)
    assert len(json.dumps(found)) <= 4500
    assert found["truncated"]


def test_hostile_objects_in_public_change_nothing(installed):
    installed.psql(
        "CREATE TABLE public.called (n int);"
        "CREATE FUNCTION public.trap(name, text) RETURNS boolean LANGUAGE sql AS "
        "$$INSERT INTO public.called VALUES (1) RETURNING true$$;"
        "CREATE OPERATOR public.= (LEFTARG = name, RIGHTARG = text, FUNCTION = public.trap);"
        "CREATE VIEW public.pg_stat_activity AS SELECT 1 AS pid;"
    )
    try:
        assert errors(only(gather(local(installed)))) == {}
        assert installed.psql("SELECT count(*) FROM public.called") == "0"
    finally:
        installed.psql(
            "DROP VIEW public.pg_stat_activity; DROP OPERATOR public.= (name, text);"
            "DROP FUNCTION public.trap; DROP TABLE public.called"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the agent's user")
def test_it_is_the_agents_role_that_reads_the_ops_database(installed: Server, tmp_path: Path) -> None:
    name = only(gather(local(installed)))["name"]
    state = Path(Layout(name, str(tmp_path)).state)
    state.mkdir(parents=True)
    shutil.chown(state, "nobody")
    installed.psql("CREATE ROLE intruder")
    installed.psql("CREATE FUNCTION pgops.theirs() RETURNS integer LANGUAGE sql AS 'SELECT 1'", "pgops")
    installed.psql("ALTER FUNCTION pgops.theirs() OWNER TO intruder", "pgops")
    try:
        refused = errors(only(gather(local(installed))))
        assert {section: refused.get(section) for section in OPS} == dict.fromkeys(OPS, "conflict")
        assert not set(errors(only(gather(local(installed), prefix=str(tmp_path))))) & set(OPS)
    finally:
        installed.psql("DROP FUNCTION pgops.theirs()", "pgops")
        installed.psql("DROP ROLE intruder")
