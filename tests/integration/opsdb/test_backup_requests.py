# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""SQL may ask for backups, and for nothing else: where they go and what goes is not for it to say."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from deploying import deploy
from psycopg import errors
from servers import Server

COLUMNS = """
SELECT jsonb_object_agg(a.attname, format_type(a.atttypid, a.atttypmod))
FROM pg_attribute AS a WHERE a.attrelid = 'pgops.{}'::regclass AND a.attnum > 0
"""
HISTORY = {
    "backup_id": "uuid",
    "backup_type": "text",
    "backup_method": "text",
    "database_name": "text",
    "backup_file_path": "text",
    "backup_file_size": "bigint",
    "compression_type": "text",
    "checksum": "text",
    "started_at": "timestamp with time zone",
    "completed_at": "timestamp with time zone",
    "duration_seconds": "double precision",
    "status": "text",
    "error_message": "text",
    "retention_until": "timestamp with time zone",
    "wal_start_lsn": "pg_lsn",
    "wal_end_lsn": "pg_lsn",
    "created_by": "text",
}
POINTS = {
    "recovery_id": "uuid",
    "recovery_name": "text",
    "target_lsn": "pg_lsn",
    "target_time": "timestamp with time zone",
    "base_backup_id": "uuid",
    "required_wal_files": "text[]",
    "created_at": "timestamp with time zone",
    "description": "text",
}
REQUESTED = "SELECT count(*) FROM pgops.backup_history WHERE status = 'requested'"


@pytest.fixture(name="backing")
def _backing(deployed: Server) -> Server:
    """A server whose ops database takes requests."""
    deployed.value("UPDATE pgops.setting SET value = 'true' WHERE name = 'backup'", "pgops")
    deployed.value("GRANT EXECUTE ON FUNCTION pg_create_restore_point(text) TO pgops_owner", "pgops")
    return deployed


@pytest.fixture(name="operator")
def _operator(backing: Server) -> Iterator[psycopg.Connection]:
    """A session of somebody who may ask for backups."""
    backing.psql("CREATE ROLE olga LOGIN; GRANT pgops_operator TO olga")
    with backing.connect("pgops", user="olga") as session:
        session.autocommit = True
        yield session


@pytest.mark.every_major
def test_the_contract(backing: Server) -> None:
    for view, wanted in (("backup_history", HISTORY), ("recovery_points", POINTS)):
        found = backing.value(COLUMNS.format(view), "pgops")
        assert isinstance(found, dict)
        assert {name: found.get(name) for name in wanted} == wanted
    for call, kind in (
        ("create_database_backup(text, boolean, text)", "uuid"),
        ("cleanup_old_backups()", "integer"),
        ("create_recovery_point(text, text)", "uuid"),
    ):
        returned = f"SELECT prorettype::regtype::text FROM pg_proc WHERE oid = 'pgops.{call}'::regprocedure"
        assert backing.value(returned, "pgops") == kind


@pytest.mark.every_major
def test_a_request_is_a_row_and_an_open_one_is_given_again(operator: psycopg.Connection, backing: Server) -> None:
    first = operator.execute("SELECT pgops.create_database_backup()").fetchone()
    assert operator.execute("SELECT pgops.create_database_backup('full', true, NULL)").fetchone() == first
    other = operator.execute(
        "SELECT pgops.create_database_backup(p_backup_type => 'incremental', p_compression => false)"
    ).fetchone()
    assert other != first
    rows = operator.execute(
        "SELECT backup_id, backup_type, status, created_by, backup_file_size, completed_at FROM pgops.backup_history "
        "ORDER BY requested_at"
    ).fetchall()
    assert [row[1:] for row in rows] == [
        ("full", "requested", "olga", None, None),
        ("incremental", "requested", "olga", None, None),
    ]
    # One that is being taken is given as well.
    backing.value("UPDATE pgops.backup SET status = 'running'", "pgops")
    assert operator.execute("SELECT pgops.create_database_backup()").fetchone() == first
    backing.value("UPDATE pgops.backup SET status = 'completed'", "pgops")
    assert operator.execute("SELECT pgops.create_database_backup()").fetchone() != first


def test_two_sessions_at_once_make_one_request(operator: psycopg.Connection, backing: Server) -> None:
    operator.execute("BEGIN")
    first = operator.execute("SELECT pgops.create_database_backup()").fetchone()
    with backing.connect("pgops") as other:
        other.execute("SET lock_timeout = '100ms'")
        with pytest.raises(errors.LockNotAvailable):
            other.execute("SELECT pgops.create_database_backup()")
        other.rollback()
        operator.execute("COMMIT")
        assert other.execute("SELECT pgops.create_database_backup()").fetchone() == first
    assert backing.value(REQUESTED, "pgops") == 1


def test_requests_are_bounded(operator: psycopg.Connection, backing: Server) -> None:
    for _request in range(10):
        operator.execute("SELECT pgops.create_database_backup()")
        backing.value("UPDATE pgops.backup SET status = 'completed'", "pgops")
    with pytest.raises(errors.ProgramLimitExceeded, match="ten backups were requested within an hour"):
        operator.execute("SELECT pgops.create_database_backup()")


@pytest.mark.parametrize(
    "call",
    [
        "create_database_backup('everything')",
        "create_database_backup(NULL)",
        "create_database_backup('full', NULL)",
        "create_database_backup('full', true, '/tmp/mine')",
        "create_database_backup('full', true, '')",
        "create_database_backup('full', true, '/base/shop/../../etc')",
        "create_recovery_point(NULL)",
        "create_recovery_point('')",
        "create_recovery_point(repeat('a', 64))",
        "create_recovery_point(E'a\\nb')",
        "create_recovery_point('a', repeat('a', 4001))",
    ],
)
def test_what_cannot_be_meant_is_refused(operator: psycopg.Connection, call: str) -> None:
    with pytest.raises(errors.InvalidParameterValue):
        operator.execute(f"SELECT pgops.{call}".encode())


def test_only_the_configured_path_may_be_named(operator: psycopg.Connection, backing: Server) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="cannot be written to '/base/shop'") as caught:
        operator.execute("SELECT pgops.create_database_backup('full', true, '/base/shop')")
    assert caught.value.diag.message_hint == "Omit p_backup_path."
    backing.value(
        "INSERT INTO pgops.generation (name, segment_bytes, repository) "
        "VALUES (pgops.server_generation(), 16777216, '/base/shop')",
        "pgops",
    )
    operator.execute("SELECT pgops.create_database_backup('full', true, '/base/shop')")
    with pytest.raises(errors.InvalidParameterValue) as caught:
        operator.execute("SELECT pgops.create_database_backup('full', true, '/base/shop2')")
    assert "They go to /base/shop." in (caught.value.diag.message_hint or "")


@pytest.mark.every_major
def test_an_expiry_is_asked_for_once_and_tells_the_forecast(operator: psycopg.Connection, backing: Server) -> None:
    told: list[str] = []
    operator.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    assert operator.execute("SELECT pgops.cleanup_old_backups()").fetchone() == (0,)
    assert told == ["how many backups it will remove is not known yet"]
    asked = "SELECT requested_at FROM pgops.expiry"
    first = backing.value(asked, "pgops")
    backing.value("UPDATE pgops.expiry SET releasable = 3, forecast_at = now()", "pgops")
    assert operator.execute("SELECT pgops.cleanup_old_backups()").fetchone() == (3,)
    assert backing.value(asked, "pgops") == first
    backing.value("UPDATE pgops.expiry SET started_at = clock_timestamp()", "pgops")
    operator.execute("SELECT pgops.cleanup_old_backups()")
    assert backing.value(asked, "pgops") != first


@pytest.mark.every_major
def test_a_recovery_point_is_a_real_one(operator: psycopg.Connection, backing: Server) -> None:
    before = backing.value("SELECT pg_current_wal_insert_lsn()")
    operator.execute("SELECT pgops.create_recovery_point('release 7', 'before the release')")
    row = operator.execute(
        f"SELECT recovery_name, description, created_by, timeline, target_lsn > '{before}', "
        "target_lsn <= pg_current_wal_insert_lsn() FROM pgops.recovery_points".encode()
    ).fetchone()
    assert row == ("release 7", "before the release", "olga", 1, True, True)
    told: list[str] = []
    operator.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    operator.execute("SELECT pgops.create_recovery_point('release 7')")
    assert told == ["there is a recovery point 'release 7' already"]
    operator.execute("SELECT pgops.create_recovery_point(repeat('é', 31))")


def test_recovery_points_are_bounded(operator: psycopg.Connection, backing: Server) -> None:
    backing.value(
        "INSERT INTO pgops.recovery_point (recovery_name, generation, timeline, target_lsn, target_time, created_at, "
        "created_by) SELECT 'p' || n, 'g', 1, '0/1', now(), now() - n * interval '1 s', 'olga' "
        "FROM generate_series(1, 1000) AS n",
        "pgops",
    )
    operator.execute("SELECT pgops.create_recovery_point('newest')")
    assert backing.value("SELECT count(*) FROM pgops.recovery_points", "pgops") == 1000
    assert backing.value("SELECT count(*) FROM pgops.recovery_points WHERE recovery_name = 'newest'", "pgops") == 1


CALLS = ("create_database_backup()", "cleanup_old_backups()", "create_recovery_point('x')", "check_backup_request()")


@pytest.mark.parametrize("role", ["mallory", "pgops", "pgops_reader"])
def test_nobody_else_may_ask(backing: Server, role: str) -> None:
    backing.psql("CREATE ROLE mallory LOGIN; GRANT CONNECT ON DATABASE pgops TO mallory")
    with backing.connect("pgops") as session:
        session.execute(f"SET ROLE {role}".encode())
        session.commit()
        for call in CALLS:
            with pytest.raises(errors.InsufficientPrivilege):
                session.execute(f"SELECT pgops.{call}".encode())
            session.rollback()
            session.execute(f"SET ROLE {role}".encode())
            session.commit()


def test_who_may_ask_may_do_nothing_else(operator: psycopg.Connection) -> None:
    for query in (
        "INSERT INTO pgops.backup (status, backup_type) VALUES ('requested', 'full')",
        "UPDATE pgops.expiry SET releasable = 99",
        "DELETE FROM pgops.recovery_point",
        "SELECT * FROM pgops.backup",
        "BEGIN; LOCK TABLE pgops.backup",
        "SELECT * FROM pgops.system_metrics",
        "SELECT pg_create_restore_point('mine')",
        "CREATE TABLE pgops.mine (a integer)",
        "SET ROLE pgops_owner",
        "UPDATE pgops.backup_history SET status = 'expired'",
    ):
        with pytest.raises((errors.InsufficientPrivilege, errors.ObjectNotInPrerequisiteState)):
            operator.execute(query.encode())
        operator.rollback()


def test_without_backups_and_on_a_standby_nothing_is_asked_for(deployed: Server) -> None:
    for call in CALLS[:3]:
        with pytest.raises(errors.ObjectNotInPrerequisiteState, match="not backed up by pgops"):
            deployed.value(f"SELECT pgops.{call}", "pgops")
    with deployed.standby() as standby:
        for call in CALLS[:3]:
            with pytest.raises(errors.ReadOnlySqlTransaction, match="standby"):
                standby.value(f"SELECT pgops.{call}", "pgops")


def test_a_second_run_changes_nothing(undeployed: Server) -> None:
    deploy(undeployed, backup=True)
    undeployed.value("SELECT pgops.create_database_backup()", "pgops")
    undeployed.value("SELECT pgops.create_recovery_point('here')", "pgops")
    assert not deploy(undeployed, backup=True)["changed"]
    assert undeployed.value(REQUESTED, "pgops") == 1
