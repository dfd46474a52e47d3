# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The scene that is kept when an alert begins to fire: what a DBA would have seen, once, and within bounds."""

from __future__ import annotations

import argparse
import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from clusters import Node, primary, streaming
from deploying import collect, configured, deploy, rule
from majors import make_server
from servers import Server
from waiting import until

from pgops.alerting import job, scene
from pgops.alerting.rules import DEFAULTS
from pgops.instance.configuration import Peer
from pgops.statements import readings

QUICK = {"lasts": "0", "keep_firing_for": "0", "flapping_after": 0}
SECRET = "correct-horse"
PARTS = "SELECT part, seen, left_out, error FROM pgops.alert_scenes WHERE alert_id = %s"
ALERT = "SELECT alert_id FROM pgops.alert_history WHERE rule_name = %s AND alert_status = 'firing'"
STORM = """
INSERT INTO pgops.system_metrics (metric_name, metric_value, database_name)
SELECT 'waiting_locks', 9, 'shop' || g FROM generate_series(1, {}) AS g
"""
SIZE = "SELECT max(octet_length(parts::text)) FROM pgops.scene"
OPTIONS = {"evaluate": True, "prometheus": False}


def ran(server: Server, state: Path, node: str = "db1/main", **settings: Any) -> dict[str, Any]:
    """One run of the job as it is scheduled."""
    return job.alerts(*configured(server, state, node, **settings), argparse.Namespace(**OPTIONS))


def low(server: Server, metric: str, threshold: float = 0.0, name: str = "low") -> None:
    """The only rule that fires: a metric is above a threshold."""
    off = [{"name": one, "enabled": False} for one in shipped()]
    rule(server, rules=[*off, {"name": name, "metric": metric, "operator": ">", "threshold": threshold, **QUICK}])


def shipped() -> list[str]:
    return sorted({one.name for one in DEFAULTS})


def parts(server: Server, name: str = "low") -> dict[str, Any]:
    """The scene of the alert of a rule: the rows of each part, all of which were seen."""
    with server.connect("pgops") as session:
        ((alert,),) = session.execute(ALERT.encode(), [name]).fetchall()
        found = session.execute(PARTS.encode(), [alert]).fetchall()
    assert [error for *_others, error in found if error] == []
    return {part: seen for part, seen, _left_out, _error in found}


@contextlib.contextmanager
def working(server: Server, *statements: str, database: str = "shop") -> Iterator[list[int]]:
    """Sessions that each have been sent statements, which may wait; their process ids."""
    made = [psycopg.pq.PGconn.connect(server.dsn(database).encode()) for _one in statements]
    pids = [one.backend_pid for one in made]
    for one, statement in zip(made, statements):
        one.send_query(statement.encode())
    try:
        yield pids
    finally:
        for one in made:
            one.finish()
        server.value(f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY{pids}) AS p (pid)")
        left = f"SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (ARRAY{pids})"
        until(lambda: server.value(left), "ended", 0)


@contextlib.contextmanager
def blocked(server: Server) -> Iterator[tuple[int, list[int]]]:
    """A session that holds a lock, and two that wait for it, one of them with a password in its statement."""
    server.value("CREATE DATABASE shop")
    server.psql("CREATE TABLE orders (a integer); INSERT INTO orders VALUES (1)", "shop")
    held = "SELECT count(*) FROM pg_locks WHERE relation = 'orders'::regclass AND granted"
    waits = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    with working(server, "BEGIN; LOCK TABLE orders; SELECT 1") as (holder,):
        until(lambda: server.value(held, "shop"), "locked", 1)
        secretive = f"DO $$ BEGIN LOCK TABLE orders; ALTER ROLE nobody PASSWORD '{SECRET}'; END $$"
        with working(server, "UPDATE orders SET a = 2", secretive) as waiters:
            until(lambda: server.value(waits), "waiting", 2)
            yield holder, waiters


@pytest.mark.every_major
def test_a_lock_wait_that_fires_has_the_tree_of_blockers(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "longest_lock_wait_seconds")
    with blocked(deployed) as (holder, waiters):
        assert collect(deployed, tmp_path)["errors"] == []
        done = ran(deployed, tmp_path)
    assert (done["fired"], done["scenes"], done["errors"]) == (1, 1, [])
    seen = parts(deployed)
    assert {*seen} == {*scene.PARTS}
    root, *others = seen["blocking"]
    assert (root["pid"], root["blocks"], root["database"]) == (holder, 2, "shop")
    assert root["state"] == "idle in transaction"
    assert {one["pid"] for one in others} == {*waiters}
    assert {one["depth"] for one in others} == {1, 2} or {one["depth"] for one in others} == {1}
    assert "UPDATE orders SET a = 2" in {one["query"] for one in others}
    assert SECRET not in json.dumps(seen)
    assert holder in {one["pid"] for one in seen["transactions"]}
    assert any(one["database"] == "shop" for one in seen["sessions"])


@pytest.mark.every_major
def test_an_alert_has_one_scene(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "connections_used_percent")
    assert collect(deployed, tmp_path)["errors"] == []
    assert ran(deployed, tmp_path)["scenes"] == 1
    assert collect(deployed, tmp_path)["errors"] == []
    again = ran(deployed, tmp_path)
    assert (again["fired"], again["scenes"]) == (0, 0)
    assert deployed.value("SELECT count(*) FROM pgops.scene", "pgops") == 1


@pytest.mark.every_major
def test_a_long_transaction_and_a_slot_are_in_the_scene(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "longest_transaction_seconds")
    deployed.value("CREATE DATABASE shop")
    deployed.value("SELECT pg_create_physical_replication_slot('unused_by_anybody', true)")
    try:
        with working(deployed, "BEGIN; SELECT 'long ago'") as (pid,):
            idle = f"SELECT state FROM pg_stat_activity WHERE pid = {pid}"
            until(lambda: deployed.value(idle), "idle", "idle in transaction")
            assert collect(deployed, tmp_path)["errors"] == []
            assert ran(deployed, tmp_path)["errors"] == []
        seen = parts(deployed)
        (found,) = [one for one in seen["transactions"] if one["pid"] == pid]
        assert (found["database"], found["state"]) == ("shop", "idle in transaction")
        assert "long ago" in found["query"]
        (slot,) = [one for one in seen["slots"] if one["slot"] == "unused_by_anybody"]
        assert (slot["active"], slot["type"], slot["wal_status"]) == (False, "physical", "reserved")
        assert ("inactive_since" in slot) is (deployed.major >= 17)
    finally:
        deployed.value("SELECT pg_drop_replication_slot('unused_by_anybody')")


@pytest.mark.every_major
def test_statements_of_the_last_minutes_are_in_the_scene(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "connections_used_percent")
    assert collect(deployed, tmp_path)["errors"] == []
    row = {"queryid": 7, "database_name": "shop", "user_name": "alice", "toplevel": True}
    usages = json.dumps([{**row, **dict.fromkeys(readings.SUMS, 0), "calls": 9, "exec_ms": 900}])
    whose = "(SELECT node_id FROM pgops.node), now() - interval '5 minutes', now()"
    with deployed.connect("pgops") as session:
        session.execute(f"SELECT pgops.store_query_usage({whose}, 100, %s)".encode(), [usages])
        session.execute(b"INSERT INTO pgops.query_text VALUES ('shop', 7, 'SELECT slow()', true, current_date)")
    assert ran(deployed, tmp_path)["errors"] == []
    (found,) = parts(deployed)["statements"]
    assert (found["query"], found["calls"], found["total_ms"], found["mean_ms"]) == ("SELECT slow()", 9, 900, 100)


def test_names_and_texts_that_are_not_utf8_do_not_stop_it(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "connections_used_percent")
    deployed.value("CREATE DATABASE latin ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    made = psycopg.pq.PGconn.connect(deployed.dsn("latin").encode())
    made.exec_(b"SET client_encoding = 'LATIN1'")
    made.exec_(b'CREATE DATABASE "caf\xe9"')
    inside = psycopg.pq.PGconn.connect(deployed.dsn("latin").encode().replace(b"latin", b"'caf\xe9'"))
    for one in (made, inside):
        one.exec_(b"SET client_encoding = 'LATIN1'")
        one.exec_(b"BEGIN; SELECT '\xe9t\xe9'")
        assert one.transaction_status == psycopg.pq.TransactionStatus.INTRANS
    assert collect(deployed, tmp_path)["errors"] == []
    assert ran(deployed, tmp_path)["errors"] == []
    inside.finish()
    made.exec_(b"COMMIT")
    made.exec_(b'DROP DATABASE "caf\xe9" WITH (FORCE)')
    made.finish()
    seen = parts(deployed)["transactions"]
    assert {one["database"] for one in seen} >= {"latin", "caf\\xe9"}


def test_texts_stay_away_where_they_are_switched_off(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "longest_lock_wait_seconds")
    with blocked(deployed):
        assert collect(deployed, tmp_path)["errors"] == []
        ran(deployed, tmp_path, query_texts=False)
    assert [one.get("query") for one in parts(deployed)["blocking"]] == [None] * 3


def test_texts_that_are_stored_go_once_they_are_switched_off(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "longest_lock_wait_seconds")
    with blocked(deployed):
        assert collect(deployed, tmp_path)["errors"] == []
        ran(deployed, tmp_path)
        before = parts(deployed)
        assert all(one["query"] for one in before["blocking"])
        assert deploy(deployed, query_texts=False)["changes"] == ["update setting query_texts"]
        assert "query" not in {name for rows in parts(deployed).values() for row in rows for name in row}
        stripped = [{name: value for name, value in one.items() if name != "query"} for one in before["blocking"]]
        assert parts(deployed)["blocking"] == stripped
        # An agent that does not know it yet.
        low(deployed, "longest_lock_wait_seconds", name="other")
        assert ran(deployed, tmp_path)["scenes"] == 1
    assert [one.get("query") for one in parts(deployed, "other")["blocking"]] == [None] * 3


def test_a_storm_of_alerts_has_one_scene(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "waiting_locks")
    assert collect(deployed, tmp_path)["errors"] == []
    deployed.value(STORM.format(500), "pgops")
    done = ran(deployed, tmp_path)
    assert (done["fired"], done["scenes"], done["errors"]) == (500, 500, [])
    assert deployed.value("SELECT count(*) FROM pgops.scene", "pgops") == 1
    assert deployed.value("SELECT count(DISTINCT alert_id) FROM pgops.alert_scenes", "pgops") == 500


def test_much_to_see_is_bounded(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "connections_used_percent")
    deployed.value("CREATE DATABASE shop")
    long = "BEGIN; SELECT 1 /* " + "x" * 20_000 + " */"
    with working(deployed, *[long] * 28) as pids:
        open_ones = f"SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (ARRAY{pids}) AND state LIKE 'idle in%'"
        until(lambda: deployed.value(open_ones), "open", 28)
        assert collect(deployed, tmp_path)["errors"] == []
        assert ran(deployed, tmp_path)["errors"] == []
    with deployed.connect("pgops") as session:
        found = session.execute(
            b"SELECT jsonb_array_length(seen), left_out FROM pgops.alert_scenes WHERE part = 'transactions'"
        ).fetchall()
    assert found == [(20, 8)]
    assert int(str(deployed.value(SIZE, "pgops"))) < scene.PART_BYTES * len(scene.PARTS)


def test_a_part_that_fails_or_is_slow_is_told_and_costs_itself_only(
    deployed: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    low(deployed, "connections_used_percent")
    assert collect(deployed, tmp_path)["errors"] == []
    monkeypatch.setattr(scene, "EACH", 0.2)
    slow = "CREATE OR REPLACE FUNCTION pgops.{} RETURNS jsonb LANGUAGE plpgsql AS $$ BEGIN {} END $$"
    with deployed.connect("pgops") as session:
        session.execute(slow.format("scene_slots()", "PERFORM pg_sleep(60); RETURN NULL;").encode())
        session.execute(slow.format("scene_progress()", "RAISE EXCEPTION 'broken';").encode())
    done = ran(deployed, tmp_path)
    assert (done["fired"], done["scenes"]) == (1, 1)
    slots, progress = done["errors"]
    assert slots.startswith("scene: slots: ")
    assert "statement timeout" in slots
    assert progress.startswith("scene: progress: broken")
    with deployed.connect("pgops") as session:
        wrong = session.execute(b"SELECT part FROM pgops.alert_scenes WHERE error IS NOT NULL ORDER BY 1").fetchall()
        assert wrong == [("progress",), ("slots",)]
        fine = session.execute(b"SELECT count(*) FROM pgops.alert_scenes WHERE seen IS NOT NULL").fetchone()
    assert fine == (len(scene.PARTS) - 2,)


def test_a_scene_that_cannot_be_kept_loses_no_alert(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "connections_used_percent")
    assert collect(deployed, tmp_path)["errors"] == []
    with deployed.connect("pgops") as session:
        session.execute(b"ALTER TABLE pgops.scene RENAME TO scenery")
    done = ran(deployed, tmp_path)
    assert done["fired"] == 1
    (error,) = done["errors"]
    assert error.startswith("the scene cannot be kept: ")
    firing = deployed.value("SELECT count(*) FROM pgops.alert_history WHERE alert_status = 'firing'", "pgops")
    assert firing == 1
    with deployed.connect("pgops") as session:
        session.execute(b"ALTER TABLE pgops.scenery RENAME TO scene")
    assert ran(deployed, tmp_path)["scenes"] == 1


def test_what_fired_long_ago_has_no_scene_of_now(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "waiting_locks")
    with deployed.connect("pgops") as session:
        session.execute(b"INSERT INTO pgops.alert_evaluation (evaluated_at) VALUES (now() - interval '20 minutes')")
        session.execute(
            b"INSERT INTO pgops.system_metrics (metric_name, metric_value, database_name, collected_at) "
            b"VALUES ('waiting_locks', 9, 'shop', now() - interval '15 minutes')"
        )
    done = ran(deployed, tmp_path)
    assert (done["fired"], done["scenes"], done["errors"]) == (1, 0, [])


def test_scenes_go_with_their_alerts_and_the_oldest_for_space(deployed: Server, tmp_path: Path) -> None:
    low(deployed, "connections_used_percent")
    assert collect(deployed, tmp_path)["errors"] == []
    ran(deployed, tmp_path)
    forget, count = "SELECT pgops.forget_scenes()", "SELECT count(*) FROM pgops.scene"
    assert deployed.value(forget, "pgops") == 0
    with deployed.connect("pgops") as session:
        session.execute(
            b"INSERT INTO pgops.scene (cluster, node, is_primary, taken_at, parts) "
            b"SELECT 'shop', 'db1/main', true, now() - make_interval(mins => g), jsonb_build_object('slots', "
            b"(SELECT string_agg(md5(random()::text), '') FROM generate_series(1, 3000) WHERE g > 0)) "
            b"FROM generate_series(1, 40) AS g"
        )
        session.execute(
            b"INSERT INTO pgops.alert_scene SELECT a.alert_id, c.scene_id FROM pgops.alert AS a, pgops.scene AS c "
            b"WHERE c.taken_at < now() - interval '30 seconds'"
        )
        assert session.execute(b"SELECT pgops.forget_scenes()").fetchone() == (0,)
        session.execute(b"UPDATE pgops.setting SET value = '64' WHERE name = 'max_size_mb'")
        (gone,) = session.execute(b"SELECT pgops.forget_scenes()").fetchone() or (0,)
        left = session.execute(b"SELECT count(*), min(taken_at) > now() - interval '30 minutes' FROM pgops.scene")
        assert left.fetchone() == (41 - gone, True)
        assert 5 < gone < 40
        session.execute(b"UPDATE pgops.alert SET ended_at = now() - interval '401 days', status = 'resolved'")
        session.execute(b"SELECT pgops.forget_alerts(), pgops.forget_scenes()")
        session.execute(b"SELECT pgops.forget_scenes()")
    assert deployed.value(count, "pgops") == 0


def test_only_readers_see_scenes_and_events(deployed: Server) -> None:
    for view in ("alert_scenes", "events"):
        for role, may in (("pgops", True), ("pgops_reader", True), ("pgops_operator", False), ("public", False)):
            asked = f"SELECT has_table_privilege('{role}', 'pgops.{view}', 'SELECT')"
            assert deployed.value(asked, "pgops") is may, (view, role)
    for table in ("scene", "alert_scene", "event"):
        assert deployed.value(f"SELECT has_table_privilege('pgops', 'pgops.{table}', 'SELECT')", "pgops") is False


@pytest.fixture(name="pair")
def _pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    with make_server(18) as server:
        first = primary(server, "db1/main", tmp_path / "one")
        second = first.standby("db2/main", tmp_path / "two")
        with second.server:
            streaming(server)
            yield first, second


def test_an_alert_of_a_standby_has_its_own_scene_and_the_primarys(pair: tuple[Node, Node]) -> None:
    first, second = pair
    low(first.server, "longest_transaction_seconds")
    with working(second.server, "BEGIN; SELECT 'on the standby'", database="postgres") as (pid,):
        idle = f"SELECT state FROM pg_stat_activity WHERE pid = {pid}"
        until(lambda: second.server.value(idle), "idle", "idle in transaction")
        assert second.collect()["errors"] == []
        assert first.collect()["errors"] == []
        done = ran(first.server, first.state)
        assert (done["fired"], done["errors"]) == (1, [])
        here = "SELECT count(*) FROM pgops.alert_history WHERE alert_status = 'firing'"
        until(lambda: second.server.value(here, "pgops"), "replayed", 1)
        peers = (Peer("127.0.0.1", first.server.port),)
        own = ran(second.server, second.state, "db2/main", peers=peers)
        assert (own["scenes"], own["errors"]) == (1, [])
    with first.server.connect("pgops") as session:
        found = session.execute(
            b"SELECT node, is_primary, seen FROM pgops.alert_scenes WHERE part = 'transactions' ORDER BY 1"
        ).fetchall()
        replication = session.execute(
            b"SELECT node, seen FROM pgops.alert_scenes WHERE part = 'standbys' ORDER BY 1"
        ).fetchall()
    assert [(node, whose) for node, whose, _seen in found] == [("db1/main", True), ("db2/main", False)]
    assert [one["pid"] for one in found[1][2]] == [pid]
    ((_node, streams), (_other, receives)) = replication
    assert streams[0]["state"] == "streaming"
    assert receives[0]["receiver"] == "streaming"
