# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The section `backups` of the facts."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from deploying import target
from facts_contract import differences
from psycopg import sql
from servers import Server

from pgops.backup import native
from pgops.facts import gathering

OPS = ("schema", "monitoring", "archiving", "backups")
PARTS = [
    {"part": "copy", "seconds": 10.5, "basis": "here"},
    {"part": "replay", "seconds": 2, "basis": "assumed"},
]
REST = {"database": "pgops", "database_sizes": False, "prefix": "/absent", "max_bytes": 0}


def gathered(server: Server, *sections: str) -> dict[str, Any]:
    """The sections of a server, by the contract."""
    facts = gathering.gather(target(server, statement_timeout=5.0), {**REST, "gather_subset": list(sections or OPS)})[
        "ansible_facts"
    ]["pg_ops"]
    assert differences(facts) == []
    found: dict[str, Any] = facts["instances"][0]
    return found


def backup(server: Server, status: str, **columns: Any) -> None:
    """A row of a backup of this server."""
    row = {"status": status, "backup_type": "full", **columns}
    names = sql.SQL(", ").join(map(sql.Identifier, ["generation", *row]))
    values = sql.SQL(", ").join([sql.SQL("pgops.server_generation()"), *map(sql.Literal, row.values())])
    with server.connect("pgops") as session:
        session.execute(sql.SQL("INSERT INTO pgops.backup ({}) VALUES ({})").format(names, values))


@pytest.mark.every_major
def test_nothing_is_known_before_anything_is_there(deployed: Server) -> None:
    found = gathered(deployed, "backups")["backups"]
    assert found["error"] is None
    assert (found["recoverable"], found["backups"], found["newest"], found["windows"]) == (None, 0, [], [])
    assert (found["recovery"], found["failure"]) == ("unproven", None)
    assert (found["recovery_s"], found["recovery_basis"], found["recovery_parts"]) == (None, None, [])
    major, minor = divmod(int(str(deployed.value("SHOW server_version_num"))), 10000)
    assert found["incremental_unsafe"] == (minor < native.MENDED.get(major, 0))


@pytest.mark.every_major
def test_what_is_known_of_backups(deployed: Server) -> None:
    hour = {"started_at": "2026-01-01 00:00Z", "ended_at": "2026-01-01 00:01Z", "timeline": 1, "node": "db1/main"}
    deployed.value(
        "INSERT INTO pgops.generation (name, segment_bytes, repository, stored_bytes, backup_bytes, recoverable, "
        "obstacle) VALUES (pgops.server_generation(), 16777216, '/base/shop', 1000, 70, false, 'missing segment X')",
        "pgops",
    )
    sizes = {"stored_bytes": 50, "data_bytes": 600}
    backup(deployed, "completed", stop_lsn="0/200", pinned="audit", **sizes, **hour)
    backup(deployed, "completed", stop_lsn="0/100", **{**sizes, "stored_bytes": 20}, **hour)
    later = {**hour, "backup_type": "incremental", "ended_at": "2026-01-02 00:01Z", "stored_bytes": 5}
    backup(deployed, "completed", stop_lsn="0/300", data_bytes=1200, **later)
    backup(deployed, "running", started_at="2026-01-03 00:00Z", node="db1/main")
    backup(deployed, "failed", ended_at="2026-01-02 12:00Z", error_message="no room")
    found = gathered(deployed, "backups")["backups"]
    assert (found["recoverable"], found["obstacle"], found["repository_bytes"]) == (False, "missing segment X", 1070)
    assert [(one["type"], one["stored_bytes"], one["duration_s"], one["pinned"]) for one in found["newest"]] == [
        ("incremental", 5, 86460.0, None),
        ("full", 50, 60.0, "audit"),
    ]
    assert (found["backups"], len(found["running"]), found["recovery_s"]) == (3, 1, None)
    assert (found["failure"]["message"], found["failure"]["newest"]) == ("no room", True)
    deployed.value(
        "INSERT INTO pgops.recovery_window SELECT pgops.server_generation(), 1, '0/200', '0/1000', now(), now(), "
        f"'X', array_agg(b.backup_id), true, 12.5, 'assumed', '{json.dumps(PARTS)}' FROM pgops.backup AS b "
        "WHERE b.status = 'completed'",
        "pgops",
    )
    (window,) = (found := gathered(deployed, "backups")["backups"])["windows"]
    assert (window["missing_wal"], window["backups"], found["replay_bytes"]) == ("X", 3, 0x1000 - 0x300)
    assert (window["recovery_s"], window["recovery_basis"]) == (12.5, "assumed")
    assert (found["recovery_s"], found["recovery_basis"]) == (12.5, "assumed")
    assert found["recovery_parts"] == [
        {"part": "copy", "predicted_s": 10.5, "basis": "here"},
        {"part": "replay", "predicted_s": 2, "basis": "assumed"},
    ]


def dump(server: Server, status: str, ended: str, **columns: Any) -> None:
    """A row of a dump of this server."""
    names = sql.SQL(", ").join(map(sql.Identifier, columns))
    query = (
        "INSERT INTO pgops.dump (dump_id, status, database_key, repository, generation, name, node, timeline, "
        "started_at, ended_at, {}) SELECT gen_random_uuid(), {status}, {key}, '/base/shop', "
        "pgops.server_generation(), 'one', 'db1/main', 1, {ended}::timestamptz - interval '1 min', {ended}, {}"
    )
    values = sql.SQL(", ").join(map(sql.Literal, columns.values()))
    key = columns["database_name"]
    with server.connect("pgops") as session:
        session.execute(
            sql.SQL(query).format(
                names, values, status=sql.Literal(status), key=sql.Literal(key), ended=sql.Literal(ended)
            )
        )


@pytest.mark.every_major
def test_what_is_known_of_dumps(deployed: Server) -> None:
    """They have a list of their own, and count as no backup."""
    deployed.value(
        "INSERT INTO pgops.generation (name, segment_bytes, repository, stored_bytes, backup_bytes) "
        "VALUES (pgops.server_generation(), 16777216, '/base/shop', 1000, 0)",
        "pgops",
    )
    good = {"database_name": "postgres", "stored_bytes": 50, "data_bytes": 600}
    dump(deployed, "completed", "2026-01-02 00:01Z", snapshot_lsn="0/200", **good)
    dump(deployed, "completed", "2026-01-01 00:01Z", snapshot_lsn="0/100", pinned="the other", **good)
    dump(deployed, "completed", "2026-01-03 00:01Z", snapshot_lsn="0/300", damage="toc.dat is missing", **good)
    dump(deployed, "failed", "2026-01-01 12:00Z", database_name="postgres", error_message="no room")
    dump(deployed, "failed", "2026-01-01 12:00Z", database_name="pgops", error_message="no lock")
    dump(deployed, "failed", "2026-01-01 12:00Z", database_name="dropped", error_message="no database")
    found = gathered(deployed, "backups")["backups"]
    never, one = found["dumps"]
    assert found["repository_bytes"] == 1000 + 3 * 50
    assert (never["database"], never["backup"], never["message"]) == ("pgops", None, "no lock")
    assert (one["database"], one["stored_bytes"], one["duration_s"], one["failed_at"]) == ("postgres", 50, 60.0, None)
    assert (never["pinned"], one["pinned"]) == (None, None)
    deployed.value("UPDATE pgops.dump SET pinned = 'audit' WHERE snapshot_lsn = '0/200'", "pgops")
    assert [one["pinned"] for one in gathered(deployed, "backups")["backups"]["dumps"]] == [None, "audit"]
    assert (found["backups"], found["newest"], found["failure"], found["running"]) == (0, [], None, [])
    dump(deployed, "failed", "2026-01-04 12:00Z", database_name="postgres", error_message="no room")
    _never, one = gathered(deployed, "backups")["backups"]["dumps"]
    assert (one["stored_bytes"], one["message"]) == (50, "no room")


def test_an_older_schema_lacks_this_section_alone(deployed: Server) -> None:
    deployed.value("DROP VIEW pgops.recovery_status", "pgops")
    found = gathered(deployed)
    assert {name: found[name]["error"] for name in OPS} == dict.fromkeys(OPS)
    assert (found["schema"]["installed"], found["backups"]["recoverable"]) == (True, None)


@pytest.mark.parametrize(
    "spoil", ["DROP VIEW pgops.recovery_status", "REVOKE SELECT ON pgops.backup_history FROM pgops, pgops_reader"]
)
def test_whatever_is_wrong_it_takes_no_more_than_three_queries_more(deployed: Server, spoil: str) -> None:
    deployed.value(spoil, "pgops")
    deployed.value("ALTER SYSTEM SET log_statement = 'all'")
    deployed.reload()
    try:
        before = deployed.log.stat().st_size
        found = gathered(deployed, "all")
        logged = deployed.logged(since=before)
    finally:
        deployed.value("ALTER SYSTEM RESET log_statement")
        deployed.reload()
    queries = re.findall(r"LOG:  (?:statement|execute [^:]*): ((?:.|\n\t)*)", logged)
    assert 5 <= len(queries) <= 13, queries
    assert found["schema"]["error"] is None
