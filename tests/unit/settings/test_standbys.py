# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whom a primary has to wait for before it raises a setting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pgops.errors import Conflict
from pgops.settings import planning
from pgops.settings.parameters import Parameter
from pgops.settings.planning import Desired
from pgops.settings.present import Current, Entry, Running
from pgops.settings.standbys import Limits, Node, Sign, application, limits, raised, refuse

WANTED = {"max_connections": 200}


def node(name: str, has: int | None = 200, address: str = "", **other: Any) -> Node:
    limits = None if has is None else Limits(running={"max_connections": has}, **other)
    return Node(name, frozenset({address} - {""}), limits, "it is away" if has is None else "")


def stream(name: str = "17/main", address: str = "", slot: str = "") -> Sign:
    return Sign(f"stream {name} {address}", True, name, slot, address)


def row(name: str) -> Sign:
    return Sign(f"row {name}", name=name)


def refused(nodes: list[Node], signs: list[Sign], gone: tuple[str, ...] = (), restarts: bool = True) -> str:
    """What is said against it; empty if nothing is."""
    try:
        refuse(WANTED, restarts, nodes, signs, gone)
    except Conflict as error:
        return error.message
    return ""


def test_a_primary_alone_waits_for_nobody() -> None:
    assert refused([], []) == ""


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (node("db2/main", 100), "db2/main runs with max_connections = 100"),
        (node("db2/main", None), "db2/main is not in this run, and it is away"),
        (node("db2/main"), ""),
        (node("db2/main", 300), ""),
        (node("db2/main", 100, standby=False), ""),
        (Node("db2/main", limits=Limits(running={})), "db2/main runs with max_connections = 0"),
    ],
)
def test_a_node_must_have_as_much(found: Node, words: str) -> None:
    said = refused([found], [])
    assert words in said
    assert bool(said) is bool(words)


def test_a_value_for_the_next_start_is_enough_until_the_primary_is_restarted() -> None:
    waits = node("db2/main", 100, configured={"max_connections": 200})
    assert refused([waits], [], restarts=False) == ""
    assert "db2/main" in refused([waits], [])
    lowered = node("db2/main", 200, configured={"max_connections": 100})
    assert "db2/main" in refused([lowered], [], restarts=False)


@pytest.mark.parametrize(
    ("found", "sign"),
    [
        (node("db2/main"), row("db2/main")),
        (node("db2"), row("db2/main")),
        (node("10.0.0.2", address="10.0.0.2"), row("db2/main")),
        (node("db2/main", address="10.0.0.2"), stream(address="10.0.0.2")),
        (node("db2/main", slot="db2"), stream(address="10.0.0.9", slot="db2")),
        (node("db2/main", slot="db2"), Sign("slot db2", True, slot="db2")),
        (node("db2/main", application="17/main"), stream("17/main", "192.168.0.1")),
        (node("db2/main", application="walreceiver"), stream("walreceiver")),
    ],
)
def test_what_the_primary_shows_is_told_by_name_slot_address_or_application(found: Node, sign: Sign) -> None:
    assert refused([found], [sign]) == ""
    assert f"{sign.title} was not found in this run" in refused([found], [sign, sign])
    assert f"{sign.title} was not found in this run" in refused([], [sign])


@pytest.mark.parametrize(
    ("found", "sign"),
    [
        (node("db2/main"), row("db3/main")),
        (node("db2/main"), row("db2/other")),
        (node("10.0.0.2", None, "10.0.0.2"), row("db2/main")),
        (node("db2/main", address="10.0.0.2", slot="db2"), stream(address="10.0.0.3", slot="db3")),
        (node("db2/main", slot="db2"), Sign("slot db3", True, slot="db3")),
        (node("db2/main"), stream("")),
    ],
)
def test_another_one_accounts_for_nothing(found: Node, sign: Sign) -> None:
    assert f"{sign.title} was not found in this run" in refused([found], [sign])


@pytest.mark.parametrize("name", ["db2", "db2/main"])
def test_a_node_that_is_gone_is_not_waited_for(name: str) -> None:
    assert refused([node("db2/main", None)], [row("db2/main")], (name,)) == ""
    assert refused([], [row("db2/main")], (name,)) == ""
    assert "db3/main" in refused([node("db3/main", None)], [row("db2/main")], (name,))


@pytest.mark.parametrize("name", ["receiver", "10.0.0.7", "backup"])
def test_a_receiver_that_is_no_server_goes_by_any_of_its_names(name: str) -> None:
    assert refused([], [stream("receiver", "10.0.0.7", "backup")], (name,)) == ""
    assert "receiver" in refused([], [stream("receiver", "10.0.0.7", "backup")], ("other",))


@pytest.mark.parametrize(
    ("conninfo", "cluster", "name"),
    [
        ("host=db1 application_name=db2 port=5432", "17/main", "db2"),
        ("application_name='db 2' host=db1", "17/main", "db 2"),
        ("host=db1 fallback_application_name=walreceiver", "17/main", "17/main"),
        ("host=db1", "", "walreceiver"),
    ],
)
def test_a_standby_streams_under_one_name(conninfo: str, cluster: str, name: str) -> None:
    assert application(conninfo, cluster) == name


CONNECTIONS = Parameter("max_connections", "integer", None, "1", "262143", context="postmaster")
SENDERS = Parameter("max_wal_senders", "integer", None, "0", "262143", context="postmaster")
SERVER = Current(
    running={
        "max_connections": Running(CONNECTIONS, "100", default="100"),
        "max_wal_senders": Running(SENDERS, "10", default="10"),
        "work_mem": Running(Parameter("work_mem", "integer", "kB", "64", "2147483647"), "4096", default="4096"),
        "primary_slot_name": Running(Parameter("primary_slot_name", "string"), "db2"),
        "cluster_name": Running(Parameter("cluster_name", "string"), "17/main"),
    },
    version_num=170004,
)
WAITS = replace(
    SERVER,
    running={**SERVER.running, "max_wal_senders": replace(SERVER.running["max_wal_senders"], pending=True)},
    entries=(Entry("max_wal_senders", "20", "/data/postgresql.conf", 1),),
)


@pytest.mark.parametrize(
    ("current", "wanted", "restart", "what"),
    [
        (SERVER, {"max_connections": "200"}, False, {"max_connections": 200}),
        (SERVER, {"max_connections": "200"}, True, {"max_connections": 200}),
        (SERVER, {"Max_Connections": "200"}, True, {"max_connections": 200}),
        (SERVER, {"max_connections": "100", "work_mem": "8MB"}, True, {}),
        (SERVER, {"max_connections": "99"}, True, {}),
        (SERVER, {"work_mem": "8MB"}, True, {}),
        (WAITS, {"work_mem": "8MB"}, True, {}),
        (WAITS, {"max_connections": "90"}, False, {}),
        # What somebody else has changed comes into force with a restart of ours.
        (WAITS, {"max_connections": "90"}, True, {"max_wal_senders": 20}),
        (WAITS, {"max_connections": "200"}, False, {"max_connections": 200}),
        (WAITS, {"max_connections": "200"}, True, {"max_connections": 200, "max_wal_senders": 20}),
        (replace(SERVER, in_recovery=True), {"max_connections": "200"}, True, {}),
    ],
)
def test_what_a_plan_raises_on_a_primary(current, wanted, restart, what):
    assert raised(current, planning.plan(current, Desired(wanted, restart))) == what


@pytest.mark.parametrize(("restart", "running"), [(True, 200), (False, 100)])
def test_other_nodes_are_told_what_a_server_has_after_a_run(restart, running):
    made = planning.plan(WAITS, Desired({"max_connections": "200"}, restart))
    assert limits(WAITS, made) == Limits(
        standby=False,
        running={"max_connections": running, "max_wal_senders": 20 if restart else 10},
        configured={"max_connections": 200, "max_wal_senders": 20},
        slot="db2",
        application="17/main",
    )
    assert limits(replace(WAITS, in_recovery=True), made).standby
    assert limits(WAITS, made).result()["configured"] == {"max_connections": 200, "max_wal_senders": 20}
