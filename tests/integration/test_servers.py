"""The servers that the other tests stand on do what they promise."""

from __future__ import annotations

import psycopg
import pytest
from copies import Copies
from deploying import deploy


@pytest.mark.every_major
def test_server_is_of_its_major(server):
    assert int(server.value("SHOW server_version_num")) // 10000 == server.major


def test_each_test_gets_a_database_of_its_own(connection, database):
    assert connection.execute("SELECT current_database()").fetchone() == (database,)
    assert connection.execute("SELECT count(*) FROM pg_class WHERE relname = 'mine'").fetchone() == (0,)
    connection.execute("CREATE TABLE mine ()")


def test_contrib_is_there(connection):
    connection.execute("CREATE EXTENSION pg_stat_statements")


def test_standby_follows_and_is_promoted(server, keep):
    standby = keep(server.standby()).start()
    assert standby.value("SELECT pg_is_in_recovery()") is True
    standby.promote()
    assert standby.value("SELECT pg_is_in_recovery()") is False


def test_tls_with_a_password(major, new_server):
    server = new_server(major, settings={"password_encryption": "scram-sha-256"})
    authority = server.enable_tls()
    server.start()
    with server.connect() as connection:
        connection.execute("CREATE ROLE someone LOGIN PASSWORD 'secret'")
    server.write_hba("local all all trust\nhostssl all all 127.0.0.1/32 scram-sha-256\n")
    server.reload()
    parameters = {"user": "someone", "sslmode": "verify-full", "sslrootcert": str(authority)}
    with psycopg.connect(server.tcp(password="secret", **parameters)) as connection:
        query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert connection.execute(query).fetchone() == (True,)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(server.tcp(password="wrong", **parameters))


@pytest.mark.every_major
def test_each_server_is_another_one(major, new_server):
    identifier = "SELECT system_identifier FROM pg_control_system()"
    one, other = (new_server(major).start() for _ in range(2))
    assert one.value(identifier) != other.value(identifier)
    one.psql("CREATE TABLE mine (); SELECT pg_switch_wal()")
    one.kill()
    one.start()  # recovers from its WAL, which knows it by its identifier
    assert one.value("SELECT count(*) FROM mine") == 0


def test_a_copy_is_as_it_was_deployed(deployed):
    assert not deploy(deployed, check=True)["changed"]


def test_a_copy_leaves_nothing_to_the_next(major, new_server):
    server = new_server(major).start()
    copies = Copies(server, "CREATE TABLE pgops.prepared ()")
    with copies.one():
        for statement in ("CREATE ROLE theirs", "CREATE DATABASE theirs", "ALTER ROLE pgops CONNECTION LIMIT 1"):
            server.value(statement)
        deploy(server, retention_days=3)
    with copies.one():
        left = "SELECT (SELECT count(*) FROM pg_roles WHERE rolname = 'theirs') + count(*) FROM pg_database"
        assert server.value(f"{left} WHERE datname = 'theirs'") == 0
        assert not deploy(server, check=True)["changed"]
        assert server.value("SELECT count(*) FROM pgops.prepared", "pgops") == 0


def test_crash_and_restart(major, new_server):
    server = new_server(major).start()
    server.kill()
    assert not server.running
    with pytest.raises(psycopg.OperationalError):
        server.connect()
    server.start()
    assert server.value("SELECT 1") == 1


def test_a_server_that_cannot_start_says_why(major, new_server):
    server = new_server(major, settings={"shared_buffers": "nonsense"})
    with pytest.raises(RuntimeError, match="shared_buffers"):
        server.start()


@pytest.mark.every_major
def test_client_tools_work_with_every_major(server, database):
    server.psql("CREATE TABLE t (a int); INSERT INTO t VALUES (1)", database)
    assert server.psql("SELECT a FROM t", database) == "1"
