"""Servers that somebody else manages are recognised, and nothing is done against who manages them."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator
from typing import Any

import binaries
import facts_contract
import pytest
from deploying import DEFAULTS
from patroni import Patroni
from servers import Server

from pgops.errors import LoginRefused, Managed, PermissionMissing, QueryFailed
from pgops.facts import gathering
from pgops.opsdb import deploy as schema
from pgops.server import managers
from pgops.server import session as server
from pgops.server.target import Target
from pgops.settings import deploy as server_settings

PASSWORD = "correct horse"
HBA = ["local all postgres trust", "local replication all trust", "host all all 127.0.0.1/32 scram-sha-256"]
IDENT = ["other one two"]

NOTHING = {"changed": False, "diff": [], "changes": [], "prediction": [], "predictable": True}
"""What a second run says."""


def local(running: Server) -> Target:
    return Target(host=str(running.socket_dir), port=str(running.port), user=running.superuser)


def deploy(running: Server, target: Target | None = None, **changed: Any) -> dict[str, Any]:
    """What pg_ops_schema does and returns; the agent's user of the operating system is the server's."""
    parameters = {**DEFAULTS, "node": "node1", "os_user": running.os_user, "purge": True, **changed}
    return schema.converge(target or local(running), parameters, check_mode=False)


def manager(target: Target) -> str:
    with server.connect(target) as session:
        return managers.manager(session)


def facts(target: Target) -> dict[str, Any]:
    """The section `server` of pg_ops_facts."""
    parameters = {"gather_subset": ["server"], "database": "pgops", "database_sizes": False, "max_bytes": 65536}
    found = gathering.gather(target, {**parameters, "prefix": "/"})["ansible_facts"]["pg_ops"]
    assert facts_contract.differences(found) == []
    (instance,) = found["instances"]
    return dict(instance["server"])


def files(running: Server) -> dict[str, str]:
    """Both access files."""
    return {name: (running.data_dir / name).read_text() for name in ("pg_hba.conf", "pg_ident.conf")}


def request(name: str, what: str, lines: list[str]) -> str:
    return (
        f"Patroni writes {name}.conf. {what} the list postgresql.{name} with 'patronictl edit-config', "
        f"or in Patroni's own configuration file if the list is there: {'; '.join(lines)}"
    )


def refused(running: Server) -> bool:
    """Whether the agent, as its user of the operating system, is kept out of its database."""
    target = Target(host=str(running.socket_dir), port=str(running.port), user="pgops", database="pgops")
    try:
        with server.connect(target):
            return False
    except LoginRefused:
        return True


# --- Patroni, pg_hba.conf and pg_ident.conf included

own_process = pytest.mark.xdist_group("patroni")


def make(postgresql: dict[str, object]) -> Patroni:
    try:
        return Patroni.create_node(postgresql)
    except binaries.UnavailableError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def patroni() -> Iterator[Patroni]:
    """A server of which Patroni writes all files."""
    with make({"pg_hba": HBA, "pg_ident": IDENT, "parameters": {"shared_buffers": "16MB"}}) as running:
        running.psql(f"CREATE ROLE watcher LOGIN PASSWORD '{PASSWORD}'")
        yield running


@own_process
def test_what_patroni_writes_is_left_to_it(patroni):
    before = files(patroni)
    asked = [
        request("pg_hba", "Add at the top of", ['local all "pgops" peer map=pgops']),
        request("pg_ident", "Add to", [f'pgops "{patroni.os_user}" "pgops"']),
    ]
    first = deploy(patroni)
    assert first["warnings"] == asked
    assert {"create role pgops", "create database pgops", "create schema pgops"} <= set(first["changes"])
    assert not [change for change in first["changes"] if "block in" in change]
    assert deploy(patroni) == {**NOTHING, "warnings": asked}
    assert files(patroni) == before
    assert refused(patroni)

    hba, ident = ([warning.partition(" is there: ")[2]] for warning in asked)
    patroni.set_list("pg_ident", IDENT + ident)
    patroni.set_list("pg_hba", hba + HBA)
    patroni.wait_until(lambda: not refused(patroni), "open for the agent")
    assert deploy(patroni) == NOTHING

    before = files(patroni)
    removed = deploy(patroni, state="absent")
    assert removed["warnings"] == [request("pg_hba", "Remove from", hba), request("pg_ident", "Remove from", ident)]
    assert files(patroni) == before
    assert patroni.value("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'pgops%'") == 0
    patroni.set_list("pg_hba", HBA)
    patroni.set_list("pg_ident", IDENT)
    patroni.wait_until(lambda: "pgops" not in str(files(patroni)), "without our lines")
    assert "warnings" not in deploy(patroni, state="absent")


@own_process
def test_everybody_recognises_patroni(patroni):
    watcher = Target(host="127.0.0.1", port=str(patroni.port), user="watcher", password=PASSWORD, sslmode="disable")
    assert manager(local(patroni)) == facts(local(patroni))["manager"] == "Patroni"
    assert manager(watcher) == facts(watcher)["manager"] == "Patroni"


@own_process
def test_settings_are_left_to_patroni(patroni, tmp_path):
    settings = {"log_line_prefix": "it's %p ", "log_statement": "ddl", "work_mem": "7MB"}
    with pytest.raises(
        Managed, match="Patroni manages this server's settings; log_line_prefix, log_statement, work_mem"
    ) as caught:
        set_beside_patroni(patroni, tmp_path, settings)
    _, _, command = caught.value.hint.partition(": ")
    program, *words = shlex.split(command)
    assert program == "patronictl"
    patroni.ctl(*words, "--force")
    for name, value in settings.items():
        patroni.wait_until(lambda name=name, value=value: patroni.value(f"SHOW {name}") == value, f"{name}={value}")
    # What Patroni's own configuration says already satisfies.
    assert not set_beside_patroni(patroni, tmp_path, settings)["changed"]


def set_beside_patroni(patroni, prefix, wanted):
    """What pg_ops_settings returns."""
    place = {"instance": "main", "prefix": str(prefix), "state": "present", "after_primary": False}
    params = {**place, "settings": wanted, "lists": "merge", "restart": "never"}
    return server_settings.converge(local(patroni), params, False)


@own_process
def test_nothing_is_refused_without_settings_or_manager():
    managers.refuse_settings("Patroni", {})
    for owner in ("", "repmgr", "pg_auto_failover"):
        managers.refuse_settings(owner, {"work_mem": "8MB"})


@own_process
def test_its_server_stays_its_server_while_patroni_is_down_and_a_copy_is_not(patroni, keep):
    copy = keep(patroni.standby()).start()
    assert (copy.data_dir / "patroni.dynamic.json").exists()
    assert manager(local(copy)) == ""
    copy.delete()
    patroni.end_patroni()
    try:
        sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'Patroni%'"
        patroni.wait_until(lambda: patroni.value(sessions) == 0, "without sessions of Patroni")
        assert manager(local(patroni)) == "Patroni"
        watcher = Target(
            host="127.0.0.1", port=str(patroni.port), user="watcher", password=PASSWORD, sslmode="disable"
        )
        assert manager(watcher) == ""
    finally:
        patroni.start()


# --- Patroni that leaves the access files alone


@own_process
def test_our_block_survives_patroni(keep):
    node = keep(make({})).start()
    before = files(node)
    first = deploy(node)
    assert "warnings" not in first
    assert [change for change in first["changes"] if "block in" in change] == [
        f"create block in {node.data_dir}/pg_ident.conf",
        f"create block in {node.data_dir}/pg_hba.conf",
    ]
    ours = files(node)
    node.ctl("edit-config", "--pg", "max_connections=60", "--force")
    node.ctl("reload", "shop", "--force")
    node.wait_until(lambda: node.value("SELECT count(*) FROM pg_settings WHERE pending_restart") == 1, "to restart")
    node.ctl("restart", "shop", "--force")
    node.wait_until(lambda: node.value("SHOW max_connections") == "60", "restarted")
    node.end_patroni()
    node.start()
    assert files(node) == ours
    assert not refused(node)
    assert deploy(node) == NOTHING

    node.set_list("pg_ident", IDENT)
    node.wait_until(lambda: IDENT[0] in files(node)["pg_ident.conf"], "writing pg_ident.conf")
    mapping = request("pg_ident", "Add to", [f'pgops "{node.os_user}" "pgops"'])
    assert deploy(node)["warnings"] == [mapping]
    deploy(node, state="absent")
    assert files(node)["pg_hba.conf"] == before["pg_hba.conf"]


# --- others, by what their programs make


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        # repmgr.org/docs, "Quick-start guide": createuser -s repmgr; createdb repmgr -O repmgr
        (["CREATE ROLE repmgr SUPERUSER LOGIN", "CREATE DATABASE repmgr OWNER repmgr"], "repmgr"),
        # pg_auto_failover, primary_standby.c: on every node that is not the monitor
        (["CREATE ROLE pgautofailover_replicator REPLICATION LOGIN"], "pg_auto_failover"),
    ],
    ids=["repmgr", "pg_auto_failover"],
)
def test_other_managers(server, made, expected):
    with server.connect() as connection:
        for statement in made:
            connection.execute(statement.encode())
        try:
            assert manager(local(server)) == expected
        finally:
            for statement in reversed(made):
                _create, kind, name, *_options = statement.split()
                connection.execute(f"DROP {kind} {name}".encode())
    assert manager(local(server)) == ""


@pytest.mark.parametrize(("library", "expected"), [("repmgr", "repmgr"), ("pgautofailover", "pg_auto_failover")])
def test_other_managers_by_their_libraries(new_server, library, expected):
    made = new_server(max(binaries.majors()))
    (real,) = made.bin_dir.parent.rglob("pg_stat_statements.so")
    shutil.copy(real, made.directory / f"{library}.so")  # any library that can be loaded, under that name
    made.configure({"shared_preload_libraries": f'auto_explain, "{made.directory}/{library}"'})
    made.start()
    assert manager(local(made)) == expected


@pytest.mark.parametrize(
    ("bootstrap", "expected"),
    [("rdsadmin", "Amazon RDS"), ("cloudsqladmin", "Google Cloud SQL"), ("azuresu", "Azure Database")],
)
def test_managed_services(new_server, bootstrap, expected):
    made = new_server(max(binaries.majors()), initdb=("--username", bootstrap), auth="trust")
    made.superuser = bootstrap
    made.start()
    made.psql("CREATE ROLE customer LOGIN CREATEROLE CREATEDB IN ROLE pg_monitor")
    customer = Target(host="127.0.0.1", port=str(made.port), user="customer")
    assert facts(customer)["manager"] == expected
    with pytest.raises(Managed, match=f"{expected} has no superuser") as caught:
        deploy(made, target=customer)
    assert "pg_ops_facts" in caught.value.hint
    if made.major >= 16:  # before, CREATEROLE gives whatever is no superuser's
        with pytest.raises(QueryFailed, match='permission denied to grant role "pg_monitor"'):
            deploy(made, target=customer, remote=True, password="long enough")
        made.psql("GRANT pg_monitor TO customer WITH ADMIN OPTION")
    assert deploy(made, target=customer, remote=True, password="long enough")["changed"]
    with pytest.raises(Managed, match=f"{expected} manages this server's settings"):
        managers.refuse_settings(expected, {"work_mem": "8MB"})


def test_names_alone_convince_nobody(server):
    """A session, databases and roles that anybody may name so, and roles that came with a dump of a service's."""
    with server.connect() as connection:
        connection.execute("CREATE ROLE hostile LOGIN CREATEROLE CREATEDB REPLICATION")
        try:
            with server.connect(user="hostile", application_name="Patroni heartbeat") as session:
                session.execute("CREATE ROLE repmgr")
                session.execute("CREATE ROLE pgautofailover_replicator")
                session.execute("CREATE ROLE rds_superuser")
                connection.execute("CREATE ROLE rdsadmin SUPERUSER")
                connection.execute("CREATE DATABASE repmgr OWNER repmgr")
                assert manager(local(server)) == ""
                assert facts(local(server))["manager"] is None
        finally:
            connection.execute("DROP DATABASE IF EXISTS repmgr")
            for role in ("rdsadmin", "rds_superuser", "pgautofailover_replicator", "repmgr", "hostile"):
                connection.execute(f"DROP ROLE IF EXISTS {role}".encode())


def test_a_role_that_is_no_superuser_is_told_so_elsewhere(server):
    server.psql("CREATE ROLE customer LOGIN CREATEROLE CREATEDB")
    try:
        with pytest.raises(PermissionMissing, match="customer is not a superuser"):
            deploy(server, target=Target(host="127.0.0.1", port=str(server.port), user="customer"))
    finally:
        server.psql("DROP ROLE customer")


# --- rules that are there already, as every major tells them


@pytest.mark.every_major
def test_rules_over_the_network_by_their_meaning(major, new_server):
    made = new_server(major)
    made.enable_tls()
    made.write_hba("local all all peer\nhost all postgres 127.0.0.1/32 trust\n")
    made.start()
    over_tcp = Target(host="127.0.0.1", port=str(made.port), user="postgres")
    wanted = {"target": over_tcp, "os_user": "pgops", "peers": ["10.0.0.7"]}
    hostssl = 'hostssl "pgops" "pgops" 10.0.0.7/32 scram-sha-256'
    asked = "pg_hba.conf cannot be changed over the network. Add the rules for the agent: "
    assert deploy(made, **wanted)["warnings"] == [asked + hostssl]
    made.write_hba("local all all peer\nhost all postgres 127.0.0.1/32 trust\nhost pgops all 10.0.0.0/24 md5\n")
    assert deploy(made, **wanted) == NOTHING
    made.write_hba("host all postgres 127.0.0.1/32 trust\nhost all all 10.0.0.7/32 reject\n" + hostssl + "\n")
    assert deploy(made, **wanted)["warnings"] == [asked + 'local all "pgops" peer; ' + hostssl]
