# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which databases are due to be dumped."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

from pgops.backup import databases
from pgops.backup.databases import Database
from pgops.backup.dump_options import Dumps
from pgops.repository.dumps import Dump, Dumped, Stored

NOON = datetime(2026, 11, 29, 12, tzinfo=timezone.utc)
LOCALE = {"provider": "c", "collate": "C", "ctype": "C", "locale": ""}


def database(key: str, oid: int = 16385) -> Database:
    return Database(oid, key, "UTF8", "clerk", LOCALE, open=True, template=False, bytes=100)


def dumped(key: str, oid: int = 16385, ago: timedelta = timedelta(hours=1)) -> Dumped:
    told: dict[str, Any] = {
        "id": "one",
        "database": key,
        "oid": oid,
        "encoding": "UTF8",
        "owner": "clerk",
        "locale": LOCALE,
        "cluster": "orders",
        "node": "db1/main",
        "system_identifier": "1",
        "server_version": "17.4",
        "versions": {},
        "timeline": 1,
        "snapshot_lsn": 1000,
        "compression": "gzip",
        "checksum": "ab",
        "started_at": NOON - ago,
        "completed_at": NOON - ago,
        "stored_bytes": 1,
        "data_bytes": 1,
        "entries": 3,
    }
    return Dumped(key, f"/there/{key}", (Stored("first", Dump(**told)),))


def due(there: list[Database], found: list[Dumped], **declared: Any) -> list[str]:
    wanted = replace(Dumps(databases="all"), **declared)
    chosen = databases.choose(there, wanted, (), {one.key: one for one in found}, NOON)
    return [one.key for one in chosen.due]


def test_a_database_is_due_an_interval_after_its_last_dump() -> None:
    assert due([database("shop"), database("new")], [dumped("shop")]) == ["new"]
    assert due([database("shop")], [dumped("shop", ago=timedelta(hours=23))]) == ["shop"]


def test_the_dump_of_another_database_of_that_name_does_not_count() -> None:
    assert due([database("shop", 16385), database("crm", 16390)], [dumped("shop", 16390), dumped("crm", 16385)]) == [
        *("shop", "crm")
    ]


def test_a_byte_in_a_name_is_not_declared_by_letters() -> None:
    there = [database("%E4"), database("%5Cxe4")]
    assert [one.shown for one in there] == ["\\xe4", "\\\\xe4"]
    assert due(there, [], databases=("\\xe4",)) == ["%E4"]
