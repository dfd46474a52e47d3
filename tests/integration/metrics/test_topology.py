# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Who streams from whom, as the view of the ops database shows it, while links are cut and strangers come."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import artifact
import clusters
import psycopg
import pytest
from clusters import Node
from majors import EVERY_MAJOR, make_server
from servers import Server
from waiting import until

SLOT = "db2_slot"


@pytest.fixture(name="pair", scope="module", params=EVERY_MAJOR)
def _pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Node]]:
    with make_server(request.param, settings={"wal_level": "logical", "autovacuum": "off"}) as server:
        first = clusters.primary(server, "db1/main", tmp_path_factory.mktemp("db1"))
        server.value(f"SELECT pg_create_physical_replication_slot('{SLOT}')")
        second = first.standby("db2/main", tmp_path_factory.mktemp("db2"), {"primary_slot_name": SLOT})
        with second.server:
            clusters.streaming(server)
            until(lambda: server.value("SELECT count(replay_lsn) FROM pg_stat_replication"), "answered", 1)
            yield first, second


def topology(server: Server, role: str = "pgops") -> list[dict[str, Any]]:
    """The view's rows, as a role sees them."""
    with server.connect("pgops") as session:
        session.execute(f"SET ROLE {role}".encode())
        return [row[0] for row in session.execute("SELECT to_jsonb(t) FROM pgops.replication_topology AS t")]


def one(server: Server, role: str = "pgops", **wanted: object) -> dict[str, Any]:
    """The only row that has these values."""
    (found,) = [row for row in topology(server, role) if wanted.items() <= row.items()]
    return found


def there(server: Server, **wanted: object) -> bool:
    """Whether a row has these values."""
    return any(wanted.items() <= row.items() for row in topology(server))


def upstreams(server: Server) -> dict[str, str]:
    """Whom each node streams from."""
    return {row["node"]: row["upstream"] for row in topology(server) if row["member"] == "node"}


def report(*nodes: Node) -> None:
    for node in nodes:
        outcome = node.collect()
        assert (outcome["errors"], outcome["spooled"]) == ([], 0)


@pytest.mark.every_major
def test_a_standby_is_told_by_its_name_and_slot_with_its_lag(pair: tuple[Node, Node]) -> None:
    first, second = pair
    report(first, second)
    name = second.server.directory.name
    primary = one(first.server, node="db1/main")
    assert (primary["state"], primary["upstream"], primary["lag_bytes"]) == ("primary", None, None)
    until(lambda: there(first.server, node="db2/main", lag_bytes=0, lag_seconds=0), "caught up")
    found = one(first.server, node="db2/main")
    assert (found["member"], found["upstream"], found["state"], found["sync_state"]) == (
        "node",
        "db1/main",
        "streaming",
        "async",
    )
    assert (found["application_name"], found["slot_name"], found["slot_active"]) == (name, SLOT, True)
    assert (found["wal_status"], found["remark"]) == ("reserved", None)
    assert 0 <= found["last_word_age_seconds"] < first.server.age()
    assert len(topology(first.server)) == 2
    second.server.value("SELECT pg_wal_replay_pause()")
    first.server.value("SELECT pg_logical_emit_message(true, 'test', repeat('x', 400000))")
    until(lambda: there(first.server, node="db2/main", flush_lag_bytes=0), "flushed")
    assert 400_000 <= one(first.server, node="db2/main")["lag_bytes"] < 10_000_000
    second.server.value("SELECT pg_wal_replay_resume()")


@pytest.mark.every_major
def test_a_standby_shows_itself_and_its_primary(pair: tuple[Node, Node]) -> None:
    first, second = pair
    report(first, second)
    known = {"lag_bytes": 0, "replay_delay_seconds": 0, "upstream": "db1/main"}
    until(lambda: there(second.server, node="db2/main", **known), "caught up")
    own = one(second.server, node="db2/main")
    assert (own["state"], own["upstream"], own["slot_name"]) == ("streaming", "db1/main", SLOT)
    assert own["application_name"] == second.server.directory.name
    assert one(second.server, node="db1/main")["state"] == "primary"
    # Who may not read the settings knows it by its slot.
    assert one(second.server, "pgops_reader", node="db2/main")["state"] is None


def test_a_reader_sees_who_is_there_and_no_guess(pair: tuple[Node, Node]) -> None:
    first, second = pair
    report(first, second)
    found = one(first.server, "pgops_reader", node="db2/main")
    assert (found["state"], found["lag_bytes"], found["slot_active"]) == (None, None, True)


def test_a_cut_standby_has_no_lag_and_the_age_of_its_last_word(pair: tuple[Node, Node]) -> None:
    first, second = pair
    report(first, second)
    report(first)  # knows the standby's name
    second.server.stop()
    try:
        first.server.value("SELECT pg_logical_emit_message(true, 'test', repeat('x', 400000))")
        until(lambda: there(first.server, node="db2/main", state="not connected"), "cut")
        found = one(first.server, node="db2/main")
        assert (found["lag_bytes"], found["lag_seconds"], found["sync_state"]) == (None, None, None)
        assert 0 < found["last_word_age_seconds"] < first.server.age()
        assert (found["upstream"], found["slot_name"], found["slot_active"]) == ("db1/main", SLOT, False)
        assert found["retained_bytes"] >= 400_000
        assert len(topology(first.server)) == 2  # its slot is its own
    finally:
        second.server.start()
    clusters.streaming(first.server)


def test_a_standby_says_itself_that_it_is_cut(pair: tuple[Node, Node]) -> None:
    first, second = pair
    report(first, second)
    until(lambda: there(second.server, node="db2/main", lag_bytes=0), "caught up")
    age, stopped = first.server.age(), time.monotonic()
    first.server.stop()
    try:
        until(lambda: there(second.server, node="db2/main", state="not connected"), "cut")
        found = one(second.server, node="db2/main")
        assert (found["lag_bytes"], found["lag_seconds"], found["slot_name"]) == (None, None, SLOT)
        later = one(second.server, node="db2/main")["replay_delay_seconds"]
        assert 0 < found["replay_delay_seconds"] < later < age + time.monotonic() - stopped
    finally:
        first.server.start()
    clusters.streaming(first.server)


def test_a_link_that_is_silent_says_so(pair: tuple[Node, Node]) -> None:
    first, second = pair
    report(first, second)
    view = artifact.LIBRARY / "sql/objects/replication/replication_senders.sql"
    impatient = view.read_text().replace("'1 minute'::interval", "'2 seconds'::interval")
    receiver = int(str(second.server.value("SELECT pid FROM pg_stat_wal_receiver")))
    first.server.value(f"SET ROLE pgops_owner; {impatient}", "pgops")
    os.kill(receiver, signal.SIGSTOP)
    try:
        first.server.value("SELECT pg_logical_emit_message(true, 'test', 'x')")
        until(lambda: there(first.server, node="db2/main", state="silent"), "silent")
        found = one(first.server, node="db2/main")
        assert found["lag_seconds"] is None
        assert found["lag_bytes"] > 0
        assert found["last_word_age_seconds"] > 2
    finally:
        os.kill(receiver, signal.SIGCONT)
        first.server.value(f"SET ROLE pgops_owner; {view.read_text()}", "pgops")


@pytest.mark.every_major
def test_slots_that_nobody_uses_and_receivers_that_are_no_nodes(pair: tuple[Node, Node]) -> None:
    first, second = pair
    report(first, second)
    server = first.server
    server.value("SELECT pg_create_physical_replication_slot('stale', true)")
    server.value("SELECT pg_create_logical_replication_slot('fed', 'pgoutput')", "pgops")
    server.value("SELECT pg_create_physical_replication_slot('kept', true)")
    logical = psycopg.connect(server.dsn("pgops", replication="database", application_name="fed"), autocommit=True)
    receiver = psycopg.connect(server.dsn("", replication="true", application_name="pg_receivewal"), autocommit=True)
    try:
        logical.pgconn.send_query(
            b"START_REPLICATION SLOT fed LOGICAL 0/0 (proto_version '1', publication_names 'none')"
        )
        start = str(server.value("SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = 'kept'"))
        receiver.pgconn.send_query(f"START_REPLICATION SLOT kept PHYSICAL {start}".encode())
        streams = "SELECT count(*) FROM pg_replication_slots WHERE active"
        until(lambda: server.value(streams), "streaming", 3)
        server.value("SELECT pg_logical_emit_message(true, 'test', repeat('x', 100000))")
        stale = one(server, slot_name="stale")
        assert (stale["member"], stale["state"], stale["slot_active"]) == ("slot", "not connected", False)
        assert stale["retained_bytes"] >= 100_000
        assert stale["lag_bytes"] is None
        if server.major >= 17:
            assert stale["last_word_age_seconds"] > 0
        fed, kept = one(server, slot_name="fed"), one(server, slot_name="kept")
        assert (fed["member"], fed["node"], fed["slot_type"]) == ("receiver", None, "logical")
        assert (kept["member"], kept["application_name"], kept["upstream"]) == (
            "receiver",
            "pg_receivewal",
            "db1/main",
        )
        assert kept["remark"] is None
    finally:
        logical.close()
        receiver.close()
        until(lambda: server.value("SELECT count(*) FROM pg_replication_slots WHERE active"), "off", 1)
        for slot in ("stale", "fed", "kept"):
            server.value(f"SELECT pg_drop_replication_slot('{slot}')", "pgops")


@pytest.mark.every_major(since=18)  # before, no lost slot of a primary says from where on it kept WAL
def test_a_slot_that_is_lost_keeps_no_wal(pair: tuple[Node, Node]) -> None:
    server = pair[0].server
    server.value("SELECT pg_create_physical_replication_slot('idle', true)")
    server.value("ALTER SYSTEM SET idle_replication_slot_timeout = '1s'")
    server.reload()
    try:
        assert one(server, slot_name="idle")["retained_bytes"] is not None

        def lost() -> bool:
            server.psql("SELECT pg_logical_emit_message(true, 'test', 'x'); CHECKPOINT")
            return there(server, slot_name="idle", wal_status="lost")

        until(lost, "lost")
        shown = "SELECT restart_lsn IS NOT NULL FROM pg_replication_slots WHERE slot_name = 'idle'"
        assert server.value(shown) is True
        assert one(server, slot_name="idle")["retained_bytes"] is None
    finally:
        server.value("ALTER SYSTEM RESET idle_replication_slot_timeout")
        server.reload()
        server.value("SELECT pg_drop_replication_slot('idle')")


def test_a_name_that_several_come_by_is_nobodys(pair: tuple[Node, Node]) -> None:
    first, second = pair
    report(first, second)
    name = second.server.directory.name
    strange = psycopg.connect(first.server.dsn("", replication="true", application_name=name), autocommit=True)
    try:
        start = str(first.server.value("SELECT pg_current_wal_flush_lsn()"))
        strange.pgconn.send_query(f"START_REPLICATION PHYSICAL {start}".encode())
        streams = "SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"
        until(lambda: first.server.value(streams), "streaming", 2)  # though it never tells where it is
        # The slot tells which of the two it is.
        assert one(first.server, node="db2/main")["slot_name"] == SLOT
        assert one(first.server, member="receiver")["slot_name"] is None
    finally:
        strange.close()
    clusters.streaming(first.server)


def test_standbys_with_the_default_name_are_not_guessed(
    major: int, new_server: Any, keep: Any, tmp_path: Path
) -> None:
    first = clusters.primary(new_server(major).start(), "db1/main", tmp_path / "1")
    second, third = (first.standby(f"db{n}/main", tmp_path / str(n)) for n in (2, 3))
    for other in (second, third):
        keep(other.server).configure({"primary_conninfo": first.server.dsn("")})
        other.server.start()
    clusters.streaming(first.server, 2)
    assert one(first.server, node="db1/main")["state"] == "primary"
    report(second)
    # One has told that it comes by the default name, but two are there that do.
    assert one(first.server, node="db2/main")["state"] == "unknown"
    assert [row["remark"] for row in topology(first.server) if row["member"] == "receiver"] == ["may be db2/main"] * 2
    report(third)
    assert one(first.server, node="db3/main")["state"] == "unknown"
    remarks = [row["remark"] for row in topology(first.server) if row["member"] == "receiver"]
    assert remarks == ["may be db2/main or db3/main"] * 2
    assert one(third.server, member="node", node=None)["state"] == "streaming"
    third.server.stop()
    clusters.streaming(first.server)
    assert one(first.server, node="db3/main")["state"] == "unknown"


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("host=a application_name=plain user=b", "plain"),
        ("application_name = 'two words' host=a fallback_application_name=no", "two words"),
        ("postgresql://b@a/?application_name=uri&sslmode=prefer", "uri"),
        ("host=a", "walreceiver"),
    ],
)
def test_a_cut_standby_knows_its_name_from_its_settings(pair: tuple[Node, Node], written: str, name: str) -> None:
    server = pair[1].server
    quoted = written.replace("'", "''")
    server.value(f"ALTER SYSTEM SET primary_conninfo = '{quoted}'")
    server.value("SELECT pg_reload_conf()")
    try:
        own = "SELECT application_name FROM pgops.replication_self"
        until(lambda: server.value(own, "pgops"), name, name)
    finally:
        server.value("ALTER SYSTEM RESET primary_conninfo")
        server.value("SELECT pg_reload_conf()")
    clusters.streaming(pair[0].server)


def test_a_cascade_is_told_by_what_agents_report(major: int, new_server: Any, keep: Any, tmp_path: Path) -> None:
    whole = new_server(major, settings={"full_page_writes": "on"})  # a standby is to be copied
    first = clusters.primary(whole.start(), "db1/main", tmp_path / "1")
    second = first.standby("db2/main", tmp_path / "2")
    keep(second.server).start()
    clusters.streaming(first.server)
    third = second.standby("db3/main", tmp_path / "3")
    keep(third.server).start()
    third.peers = [first, second]
    clusters.streaming(second.server)
    report(first, third, second)
    found = one(first.server, node="db3/main")
    assert (found["state"], found["upstream"]) == ("streaming", "db2/main")
    assert "reported" in found["remark"]
    assert found["lag_bytes"] is not None
    chain = {"db1/main": None, "db2/main": "db1/main", "db3/main": "db2/main"}
    for server in (second.server, third.server):
        until(lambda at=server: upstreams(at), "replayed", chain)
        assert one(server, node="db3/main")["state"] == "streaming"
        assert one(server, node="db1/main")["state"] == "primary"
