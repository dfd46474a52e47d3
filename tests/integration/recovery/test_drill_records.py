# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Facts, metrics and events tell what drills have shown, and what is not known is no proof."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from deploying import deploy, target
from facts_contract import differences
from measuring import measure
from psycopg import sql
from servers import Server

from pgops.facts import gathering

REST = {"database": "pgops", "database_sizes": False, "prefix": "/absent", "max_bytes": 0}
DECLARED = (
    "UPDATE pgops.setting SET value = '24.0', valid_since = now() - interval '{}' WHERE name = 'drill_interval_hours'"
)
PHASES = '{"plan": 1, "copy": 2, "verify": 3, "sync": 0.5, "configure": 1, "recover": 4, "query": 0.5, "checks": 9}'


def drilled(server: Server, status: str, ago: str, **columns: Any) -> None:
    """A row of a drill of this server that ended so long ago."""
    usual = {"drill_id": str(uuid.uuid4()), "node": "db1/main", "host": "db1", "repository": "/r", "place": "/p"}
    row = {**usual, "status": status, "phases": PHASES, **columns}
    query = sql.SQL(
        "INSERT INTO pgops.drill (generation, started_at, completed_at, {}) SELECT pgops.server_generation(), "
        "now() - {ago}::interval - interval '1 min', now() - {ago}::interval, {}"
    )
    names = sql.SQL(", ").join(map(sql.Identifier, row))
    with server.connect("pgops") as session:
        session.execute(query.format(names, sql.SQL(", ").join(map(sql.Literal, row.values())), ago=sql.Literal(ago)))


def passed(server: Server, ago: str) -> None:
    more = {"rto_seconds": 12, "rpo_seconds": 30, "rpo_bytes": 100, "timeline": 1, "reached_lsn": "0/300"}
    drilled(server, "passed", ago, backup_name="b1", **more)


def facts(server: Server) -> dict[str, Any]:
    """The section `backups`, by the contract."""
    asked = {**REST, "gather_subset": ["backups"]}
    found = gathering.gather(target(server, statement_timeout=5.0), asked)["ansible_facts"]["pg_ops"]
    assert differences(found) == []
    section: dict[str, Any] = found["instances"][0]["backups"]
    assert section["error"] is None
    return section


@pytest.mark.every_major
def test_facts_tell_what_is_proven(deployed: Server) -> None:
    found = facts(deployed)
    assert (found["recovery"], found["drills_declared"], found["proof"], found["drill"]) == (
        *("unproven", False),
        *(None, None),
    )
    drilled(deployed, "not_run", "3 days", reason="busy", error_message="another one")
    found = facts(deployed)
    assert (found["recovery"], found["drills_not_run"], found["drill"]["reason"]) == ("unproven", 1, "busy")
    passed(deployed, "2 days")
    deployed.value(DECLARED.format("9 days"), "pgops")
    found = facts(deployed)
    assert (found["recovery"], found["drills_declared"], found["drills_not_run"]) == ("proven", True, 0)
    proof = found["proof"]
    assert (proof["rto_s"], proof["rpo_s"], proof["verify_s"], proof["start_s"]) == (12, 30, 3.5, 1.5)
    assert (proof["backup"], proof["combine_s"], proof["checks_s"]) == ("b1", None, 9)
    drilled(deployed, "failed", "1 day", reason="verify", error_message="a page")
    drilled(deployed, "not_run", "1 hour", reason="load", error_message="much to do")
    found = facts(deployed)
    assert (found["recovery"], found["drills_not_run"], found["drill"]["status"]) == ("failed", 1, "not_run")
    assert found["proof"] == {**proof, "proven_age_s": found["proof"]["proven_age_s"]}


@pytest.mark.every_major
def test_metrics_are_there_where_drills_are_declared(deployed: Server) -> None:
    passed(deployed, "2 days")
    assert deployed.value("SELECT interval_hours FROM pgops.recovery_proof", "pgops") == 0
    with pytest.raises(AssertionError):  # no row
        measure(deployed, "drills", "pgops")
    deployed.value(DECLARED.format("9 days"), "pgops")
    (row,) = measure(deployed, "drills", "pgops")
    assert 172_800 <= row["recovery_proof_age_seconds"] < 172_800 + deployed.age()
    assert 2 <= row["recovery_proof_late_ratio"] < 2 + deployed.age() / 86400
    assert (row["recovery_proven_seconds"], row["recovery_proven_loss_seconds"]) == (12, 30)
    assert (row["drill_failed"], row["drills_not_run"]) == (0, 0)
    drilled(deployed, "failed", "1 hour", reason="verify", error_message="a page")
    drilled(deployed, "not_run", "1 min", reason="busy", error_message="another")
    (row,) = measure(deployed, "drills", "pgops")
    assert (row["drill_failed"], row["drills_not_run"]) == (1, 1)


def test_without_any_proof_it_counts_since_drills_were_declared(deployed: Server) -> None:
    deployed.value(DECLARED.format("36 hours"), "pgops")
    (row,) = measure(deployed, "drills", "pgops")
    assert (row["recovery_proof_age_seconds"], row["drill_failed"]) == (None, None)
    assert 1.5 <= row["recovery_proof_late_ratio"] < 1.5 + deployed.age() / 86400


def test_declaring_drills_begins_anew_when_the_interval_changes(undeployed: Server) -> None:
    since = "SELECT valid_since FROM pgops.setting WHERE name = 'drill_interval_hours'"
    deploy(undeployed)
    undeployed.value(DECLARED.format("9 days"), "pgops")
    before = undeployed.value(since, "pgops")
    assert not deploy(undeployed, drill_interval_hours=24.0)["changed"]
    assert undeployed.value(since, "pgops") == before
    assert deploy(undeployed, drill_interval_hours=48.0)["changed"]
    assert str(undeployed.value(since, "pgops")) > str(before)


def test_a_drill_is_an_event(deployed: Server) -> None:
    deployed.value(
        "INSERT INTO pgops.node (cluster, node, system_identifier, is_primary) VALUES ('c', 'n', '1', true)", "pgops"
    )
    drilled(deployed, "failed", "1 hour", reason="verify", error_message="a page is wrong")
    passed(deployed, "2 hours")
    note = "SELECT pgops.note_events(max(node_id)) FROM pgops.node"
    assert deployed.value(note, "pgops") is not None
    told = "SELECT string_agg(event_text, '; ' ORDER BY occurred_at) FROM pgops.event WHERE kind = 'drill'"
    assert deployed.value(told, "pgops") == "recovery drill passed; recovery drill failed (verify): a page is wrong"
    assert deployed.value(note, "pgops") == 0
