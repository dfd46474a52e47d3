# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Shipped rules fire by the fault that they are for, on a real server, and resolve once it is gone.

Thresholds that are times or many bytes are lowered, as an inventory would, and nothing has to last. What a standby, a
job or minutes of time belong to is in the files beside this one: what is counted, in test_faults_counted.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import disks
import psycopg
import pytest
from backing import own
from deploying import SHIPPED, collect, deploy, inspect
from majors import make_server
from quick import declare, firing
from servers import Server
from waiting import until

from pgops.alerting.rules import DEFAULTS

SETTINGS = {
    "archive_command": "true",
    "archive_mode": "on",
    "autovacuum": "off",
    "autovacuum_freeze_max_age": "100000",
    "checkpoint_timeout": "1h",
    "max_connections": "22",
    "max_prepared_transactions": "5",
    "wal_level": "replica",
}
LOWERED = {
    **dict.fromkeys(("lock_wait", "idle_in_transaction", "long_transaction", "prepared_transaction"), 0.001),
    "slot_retention": 1_000_000.0,
}
MEASURED = {"standby_surplus": "replication"}
"""What is derived, by what it is made of."""
XIDS = "DO $$ BEGIN FOR i IN 1..130000 LOOP PERFORM pg_current_xact_id();COMMIT;END LOOP;END $$"


@dataclass
class Faulty:
    """A server with rules that have to last no time, and the directory of its agent."""

    server: Server
    state: Path

    def run(self, statements: str) -> None:
        """Statements in the database shop, each in its own transaction."""
        with self.server.connect("shop") as session:
            for one in statements.split("; "):
                session.execute(one.encode())

    def firing(self, name: str, labels: str) -> list[str]:
        """Collect what a rule is for, and evaluate all; at which severities it fires."""
        metric = next(one.metric for one in DEFAULTS if one.name == name)
        metric = MEASURED.get(metric, metric)
        found = [
            one
            for one in SHIPPED
            if metric in (one.name, *(known.name for known in one.metrics)) and one.for_version(self.server.major)
        ]
        gathered = (inspect if found[0].rights == "all_data" else collect)(self.server, self.state, found=found)
        assert gathered["errors"] == []
        return firing(self.server, name, labels)

    @contextlib.contextmanager
    def sessions(self, number: int, statement: str) -> Iterator[None]:
        """So many sessions in shop, each with statements that may wait."""
        made = [psycopg.pq.PGconn.connect(self.server.dsn("shop").encode()) for _number in range(number)]
        pids = [one.backend_pid for one in made]
        for one in made:
            one.send_query(statement.encode())
        try:
            yield
        finally:
            for one in made:
                one.finish()
            self.server.value(f"SELECT pg_terminate_backend(pid) FROM unnest(ARRAY{pids}) AS p (pid)")
            left = f"SELECT count(*) FROM pg_stat_activity WHERE pid = ANY (ARRAY{pids})"
            until(lambda: self.server.value(left), "ended", 0)


@pytest.fixture(name="faulty", scope="module")
def _faulty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Faulty]:
    with make_server(18, settings=SETTINGS) as server:
        deploy(server)
        server.value("CREATE DATABASE shop")
        declare(server, LOWERED)
        yield Faulty(server, tmp_path_factory.mktemp("agent"))


@contextlib.contextmanager
def statements(faulty: Faulty, cause: str, cure: str) -> Iterator[None]:
    """A fault by statements, and what ends it."""
    faulty.run(cause)
    try:
        yield
    finally:
        faulty.run(cure)


@contextlib.contextmanager
def waiting(faulty: Faulty, number: int) -> Iterator[None]:
    """Sessions that wait for a lock that another one holds."""
    faulty.run("CREATE TABLE held (a integer)")
    with faulty.sessions(1, "BEGIN; LOCK TABLE held; SELECT pg_sleep(0)"):
        held = "SELECT count(*) FROM pg_locks WHERE relation = 'held'::regclass AND granted"
        until(lambda: faulty.server.value(held, "shop"), "locked", 1)
        with faulty.sessions(number, "BEGIN; LOCK TABLE held"):
            yield
    gone = "SELECT count(*) FROM pg_locks WHERE relation = 'held'::regclass"
    until(lambda: faulty.server.value(gone, "shop"), "unlocked", 0)
    faulty.run("DROP TABLE held")


@contextlib.contextmanager
def old_snapshot(faulty: Faulty) -> Iterator[None]:
    """A transaction that is older than more than half of autovacuum_freeze_max_age."""
    with faulty.server.connect("shop") as session:
        session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        session.execute("SELECT 1")
        faulty.run(XIDS)
        yield
    faulty.run("VACUUM (FREEZE)")


@contextlib.contextmanager
def lost_slot(faulty: Faulty) -> Iterator[None]:
    """A slot whose WAL is gone."""
    faulty.run(
        "ALTER SYSTEM SET max_slot_wal_keep_size = '1MB'; SELECT pg_reload_conf(); "
        "SELECT pg_create_physical_replication_slot('lost', true)"
    )
    lost = "SELECT wal_status FROM pg_replication_slots WHERE slot_name = 'lost'"

    def switched() -> object:
        faulty.run("SELECT pg_switch_wal(); CHECKPOINT")
        return faulty.server.value(lost)

    until(switched, "lost", "lost")
    yield
    faulty.run(
        "SELECT pg_drop_replication_slot('lost'); ALTER SYSTEM RESET max_slot_wal_keep_size; SELECT pg_reload_conf()"
    )


@contextlib.contextmanager
def no_archive(faulty: Faulty, segments: int) -> Iterator[None]:
    """An archive_command that fails, while WAL is written."""
    faulty.run("ALTER SYSTEM SET archive_command = 'false'; SELECT pg_reload_conf()")
    for _number in range(segments):
        faulty.run("SELECT pg_logical_emit_message(false, 'test', 'x'); SELECT pg_switch_wal()")
    failed = "SELECT last_failed_time > coalesce(last_archived_time, '-infinity') FROM pg_stat_archiver"
    until(lambda: faulty.server.value(failed), "failing", True)
    yield
    faulty.run("ALTER SYSTEM RESET archive_command; SELECT pg_reload_conf()")


@contextlib.contextmanager
def expected(faulty: Faulty, number: int) -> Iterator[None]:
    """More standbys are expected than there are."""
    declare(faulty.server, LOWERED, expected_standbys=number)
    yield
    declare(faulty.server, LOWERED, expected_standbys=0)


@contextlib.contextmanager
def full_disk(faulty: Faulty) -> Iterator[None]:
    """A tablespace that has hardly any room left."""
    place = faulty.server.directory / "space"
    with disks.small(place, "20m") as mounted:
        if not mounted:
            pytest.skip("nothing can be mounted here")
        own(place, faulty.server)
        faulty.run(f"CREATE TABLESPACE roomy LOCATION '{place}'")
        assert faulty.firing("disk_usage", '{"tablespace": "roomy"}') == []
        disks.fill(place)
        yield
        (place / "filler").unlink()
        until(lambda: faulty.firing("disk_usage", '{"tablespace": "roomy"}'), "resolved", [])
        faulty.run("DROP TABLESPACE roomy")


@contextlib.contextmanager
def nearly_wrapped(faulty: Faulty) -> Iterator[None]:
    """Three quarters of all transaction ids are used, and a transaction keeps vacuum from freeing any."""
    server = faulty.server
    with server.connect("shop") as session:
        session.execute("BEGIN; SELECT pg_current_xact_id(); PREPARE TRANSACTION 'old'")
    server.stop()
    server.run(server.client("pg_resetwal"), "-x", str(MANY_XIDS), "-D", server.data_dir)
    status = server.data_dir / "pg_xact" / f"{MANY_XIDS // XIDS_OF_FILE:04X}"
    server.write(status, "\0" * (XIDS_OF_FILE // 4))
    server.start()
    yield
    # Autovacuum, which is allowed into every database, does the rest.
    faulty.run("ROLLBACK PREPARED 'old'; ALTER SYSTEM SET autovacuum_naptime = '1s'; SELECT pg_reload_conf()")


@contextlib.contextmanager
def multixacts_nearly_wrapped(faulty: Faulty) -> Iterator[None]:
    """Three quarters of all multixact ids are used, and a transaction keeps vacuum from freeing any."""
    server = faulty.server
    faulty.run("CREATE TABLE shared AS SELECT 1 AS a")
    with server.connect("shop") as session:
        session.execute("BEGIN; SELECT a FROM shared FOR SHARE; PREPARE TRANSACTION 'sharing'")
    server.stop()
    server.run(server.client("pg_resetwal"), "-m", f"{MANY_MULTIXACTS},1", "-D", server.data_dir)
    server.write(server.data_dir / "pg_multixact" / "offsets" / f"{MANY_MULTIXACTS // 65536:04X}", "\0" * 262_144)
    server.start()
    yield
    faulty.run(
        "ROLLBACK PREPARED 'sharing'; ALTER SYSTEM SET autovacuum_naptime = '1s'; SELECT pg_reload_conf(); "
        "DROP TABLE shared; SET vacuum_multixact_freeze_min_age = 0; VACUUM"
    )


SHOP = '{"database": "shop"}'
MANY_MULTIXACTS = 65536 * 25_000
MANY_XIDS = 1_700_000_000
XIDS_OF_FILE = 32_768 * 32
"""Transactions of which one file of pg_xact says what became of them, two bits each."""
DUPLICATES = "CREATE TABLE twice AS SELECT 1 AS a FROM generate_series(1, 2)"
BOTH = ["critical", "warning"]
Cause = Callable[[Faulty], AbstractContextManager[None]]


@contextlib.contextmanager
def invalid(faulty: Faulty) -> Iterator[None]:
    """An index that could not be built."""
    faulty.run(DUPLICATES)
    with contextlib.suppress(psycopg.errors.UniqueViolation):
        faulty.run("CREATE UNIQUE INDEX CONCURRENTLY broken ON twice (a)")
    yield
    faulty.run("DROP TABLE twice")


FAULTS: dict[str, tuple[str, list[str], Cause]] = {
    "connections": ("{}", BOTH, lambda faulty: faulty.sessions(18, "SELECT 1")),
    "lock_wait": (SHOP, BOTH, lambda faulty: waiting(faulty, 1)),
    "lock_queue": (SHOP, ["critical"], lambda faulty: waiting(faulty, 6)),
    "idle_in_transaction": (SHOP, BOTH, lambda faulty: faulty.sessions(1, "BEGIN; SELECT 1")),
    "long_transaction": (SHOP, BOTH, lambda faulty: faulty.sessions(1, "BEGIN; SELECT pg_sleep(600)")),
    "prepared_transaction": (
        SHOP,
        BOTH,
        lambda faulty: statements(
            faulty,
            "BEGIN; CREATE TABLE prepared (); PREPARE TRANSACTION 'left'",
            "ROLLBACK PREPARED 'left'",
        ),
    ),
    "xmin_horizon": ('{"holder": "session"}', BOTH, old_snapshot),
    # Without it, autovacuum freezes the database, though it is off.
    "xid_freeze_lag": (SHOP, BOTH, old_snapshot),
    "slot_retention": (
        '{"slot": "kept"}',
        BOTH,
        lambda faulty: statements(
            faulty,
            "SELECT pg_create_physical_replication_slot('kept', true); SELECT pg_switch_wal(); "
            "SELECT pg_logical_emit_message(false, 'test', 'x'); SELECT pg_switch_wal()",
            "SELECT pg_drop_replication_slot('kept')",
        ),
    ),
    "slot_status": ('{"slot": "lost"}', BOTH, lost_slot),
    "archiver": ("{}", BOTH, lambda faulty: no_archive(faulty, 1)),
    "archive_backlog": ("{}", BOTH, lambda faulty: no_archive(faulty, 22)),
    "sequence_exhaustion": (
        '{"sequence": "ids"}',
        BOTH,
        lambda faulty: statements(
            faulty, "CREATE SEQUENCE ids MAXVALUE 100; SELECT setval('ids', 95)", "SELECT setval('ids', 1)"
        ),
    ),
    "vacuum_starved": (
        '{"table": "starved"}',
        ["warning"],
        lambda faulty: statements(
            faulty,
            "CREATE TABLE starved AS SELECT generate_series(1, 1000) AS a; DELETE FROM starved; "
            "SELECT pg_stat_force_next_flush()",
            "VACUUM starved",
        ),
    ),
    "settings_drift": (
        '{"setting": "max_connections"}',
        ["warning"],
        lambda faulty: statements(
            faulty,
            "ALTER SYSTEM SET max_connections = 30; SELECT pg_reload_conf()",
            "ALTER SYSTEM RESET max_connections; SELECT pg_reload_conf()",
        ),
    ),
    "invalid_index": ('{"index": "broken"}', ["warning"], invalid),
    "standby_missing": ("{}", ["critical"], lambda faulty: expected(faulty, 1)),
    "disk_usage": ('{"tablespace": "roomy"}', BOTH, full_disk),
    "xid_wraparound": (SHOP, BOTH, nearly_wrapped),
    "multixact_wraparound": (SHOP, BOTH, multixacts_nearly_wrapped),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_rule_fires_by_its_fault_and_resolves_without_it(faulty: Faulty, name: str) -> None:
    labels, severities, cause = FAULTS[name]
    with cause(faulty):
        until(lambda: faulty.firing(name, labels), "firing", severities)
    until(lambda: faulty.firing(name, labels), "resolved", [])
