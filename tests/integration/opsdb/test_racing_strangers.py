# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Somebody acts as the owner of our objects, and no catalogue shows it any more: what they change while a superuser's
session works in the ops database comes too late, or is seen."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from deploying import configured, deploy
from servers import Server
from waiting import until

from pgops.errors import Busy, Conflict
from pgops.repository import archiver, catalogue
from pgops.server import guard

pytestmark = pytest.mark.every_major
TRAP = """
CREATE SCHEMA pgops_trap;
CREATE FUNCTION pgops_trap.go() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('application_name') LIKE 'pgops%' THEN
        RESET ROLE;
        INSERT INTO public.caught VALUES (current_user);
    END IF;
END
$$;
CREATE FUNCTION pgops_trap.snap() RETURNS trigger LANGUAGE plpgsql AS
    'BEGIN PERFORM pgops_trap.go(); RETURN NULL; END';
CREATE FUNCTION pgops_trap.act(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
    'BEGIN PERFORM pgops_trap.go(); RETURN true; END'
"""
WAITS = """
SELECT EXISTS (SELECT FROM pg_locks AS l JOIN pg_stat_activity AS a ON a.pid = l.pid
               WHERE NOT l.granted AND a.application_name LIKE 'pgops%' AND a.usename = 'postgres')
"""
TRIGGER = "CREATE TRIGGER snap AFTER INSERT OR UPDATE OR DELETE ON pgops.{} EXECUTE FUNCTION pgops_trap.snap()"
SWAPPED = """
ALTER SCHEMA pgops RENAME TO former; CREATE SCHEMA pgops;
CREATE TABLE pgops.fingerprint (LIKE former.fingerprint INCLUDING ALL);
CREATE TRIGGER snap AFTER INSERT OR UPDATE OR DELETE ON pgops.fingerprint EXECUTE FUNCTION pgops_trap.snap()
"""
REPLACED = """
CREATE OR REPLACE FUNCTION pgops.renew_shapes() RETURNS integer LANGUAGE plpgsql AS
    'BEGIN PERFORM pgops_trap.go(); RETURN 0; END'
"""
TOO_LATE = {
    "a trigger": TRIGGER.format("fingerprint"),
    "a rule": "CREATE RULE snap AS ON DELETE TO pgops.fingerprint DO ALSO SELECT pgops_trap.act('')",
    "an heir": "CREATE TABLE pgops_trap.heir () INHERITS (pgops.fingerprint)",
    "a constraint": "ALTER TABLE pgops.fingerprint ADD CONSTRAINT snap CHECK (pgops_trap.act(object))",
    "another schema": SWAPPED,
    "another function": REPLACED,
}
NOT_NOW = (psycopg.errors.LockNotAvailable, psycopg.errors.InternalError_)


@pytest.fixture(name="intruder")
def _intruder(deployed: Server) -> Iterator[psycopg.Connection]:
    """A session that became the owner while it was a member, which it no longer is."""
    deployed.value("CREATE TABLE public.caught (what text)", "pgops")
    deployed.value("CREATE ROLE mallory LOGIN; GRANT pgops_owner TO mallory")
    with deployed.connect("pgops", user="mallory") as session:
        session.execute("SET ROLE pgops_owner")
        deployed.value("REVOKE pgops_owner FROM mallory")
        session.execute(TRAP.encode())
        yield session
    deployed.value("DROP OWNED BY mallory", "pgops")


@contextlib.contextmanager
def begun(work: Callable[[], Any], server: Server) -> Iterator[Future[Any]]:
    """Some work, which is waiting for a lock by then."""
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(work)
        until(lambda: server.value(WAITS) or running.done(), "waiting for a lock")
        assert not running.done(), running.result()
        yield running


def caught(server: Server) -> int:
    return int(server.value("SELECT count(*) FROM public.caught", "pgops"))


@pytest.fixture(name="patient")
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Deployments that wait as long as it takes."""
    monkeypatch.setattr(guard, "PATIENCE", 60.0)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("table", ["setting", "fingerprint"])
def test_what_is_not_yet_committed_is_waited_for_and_seen(
    deployed: Server, intruder: psycopg.Connection, table: str
) -> None:
    intruder.execute("BEGIN")
    intruder.execute(TRIGGER.format(table).encode())
    with begun(lambda: deploy(deployed, retention_days=12), deployed) as running:
        intruder.execute("COMMIT")
        with pytest.raises(Conflict, match=f"trigger snap on pgops.{table}"):
            running.result()
    assert caught(deployed) == 0


@pytest.mark.usefixtures("patient")
def test_so_is_another_schema(deployed: Server, intruder: psycopg.Connection) -> None:
    intruder.execute("BEGIN")
    intruder.execute(SWAPPED.encode())
    with begun(lambda: deploy(deployed, retention_days=12), deployed) as running:
        intruder.execute("COMMIT")
        with pytest.raises(Exception, match=r"does not exist|fingerprint"):
            running.result()
    assert caught(deployed) == 0


@pytest.mark.usefixtures("patient")
def test_what_is_planted_while_a_deployment_works_comes_too_late(
    deployed: Server, intruder: psycopg.Connection
) -> None:
    intruder.execute("SET lock_timeout = 50")
    with deployed.connect("pgops") as holder:
        holder.execute("BEGIN; SELECT FROM pgops.setting FOR UPDATE")
        wanted = {"retention_days": 12, "metric_retention": {"database_size_mb": 20}}
        with begun(lambda: deploy(deployed, **wanted), deployed) as running:
            for what, statements in TOO_LATE.items():
                try:
                    with intruder.transaction():
                        intruder.execute(statements.encode())
                except NOT_NOW:
                    continue
                holder.execute("COMMIT")
                running.exception()
                pytest.fail(f"{what} was planted; caught: {caught(deployed)}")
            holder.execute("COMMIT")
            assert running.result()["changed"]
    assert caught(deployed) == 0
    assert not deploy(deployed, **wanted)["changed"]


def test_who_is_in_the_way_is_named(
    deployed: Server, intruder: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(guard, "PATIENCE", 0.2)
    intruder.execute("BEGIN; LOCK TABLE pgops.setting IN ACCESS EXCLUSIVE MODE")
    with pytest.raises(Busy, match="of role mallory"):
        deploy(deployed)


@pytest.mark.usefixtures("patient")
def test_the_catalogue_sees_what_is_not_yet_committed(
    deployed: Server, intruder: psycopg.Connection, tmp_path: Path
) -> None:
    configuration, _layout = configured(deployed, tmp_path, repository=str(tmp_path), superuser="postgres")
    folder = tmp_path / str(deployed.value("SELECT system_identifier FROM pg_control_system()"))
    folder = folder.with_name(f"{folder.name}-{deployed.major}")
    (folder / "wal").mkdir(parents=True)
    (folder / archiver.IDENTITY).write_text('{"wal_segment_size": 16777216}')
    assert catalogue.update(configuration)["errors"] == []
    intruder.execute("BEGIN")
    intruder.execute(TRIGGER.format("generation").encode())
    with begun(lambda: catalogue.update(configuration), deployed) as running:
        intruder.execute("COMMIT")
        with pytest.raises(Conflict, match=r"trigger snap on pgops\.generation"):
            running.result()
    assert caught(deployed) == 0
