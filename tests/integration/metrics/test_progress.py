# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Maintenance that runs now, as the view of the ops database shows it."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from deploying import SHIPPED, deploy, withdraw
from servers import Server
from waiting import PATIENCE, until

STOP = """
CREATE FUNCTION public.stopped(n integer) RETURNS integer LANGUAGE plpgsql IMMUTABLE AS
    $$BEGIN IF n = 1000 THEN PERFORM pg_catalog.pg_advisory_xact_lock(1000); END IF; RETURN n; END$$;
CREATE FUNCTION public.stop() RETURNS trigger LANGUAGE plpgsql AS
    $$BEGIN PERFORM public.stopped(new.n); RETURN new; END$$
"""
"""What comes to the number 1000 waits as long as somebody holds a lock."""

COLLECTED = next(one.query for one in SHIPPED if one.name == "vacuum_progress")


@pytest.fixture(name="deployed", scope="module")
def _deployed(server: Server) -> Iterator[Server]:
    deploy(server)
    server.value(STOP, "pgops")
    yield server
    withdraw(server)


def seen(server: Server, what: str, where: str) -> str | None:
    """What the view shows of the operations that a condition is true for."""
    found = server.value(f"SELECT ({what})::text FROM pgops.maintenance_progress WHERE {where}", "pgops")
    return None if found is None else str(found)


@contextlib.contextmanager
def running(server: Server, *statements: str) -> Iterator[None]:
    """A session in the ops database that runs the last of the statements, and another one that holds the lock;
    cancelled at the end of the `with`."""
    with (
        server.connect("pgops") as holder,
        server.connect("pgops") as session,
        ThreadPoolExecutor() as threads,
    ):
        holder.execute("SELECT pg_advisory_lock(1000)")
        for statement in statements[:-1]:
            session.execute(statement.encode())
        done = threads.submit(session.execute, statements[-1].encode())
        try:
            yield
        finally:
            session.cancel()
            with contextlib.suppress(psycopg.errors.QueryCanceled):
                done.result(PATIENCE)
    until(lambda: seen(server, "pid", "true"), "over", None)


@pytest.mark.every_major
def test_a_slow_index_is_seen_on_its_way(deployed: Server) -> None:
    deployed.value("CREATE TABLE public.long AS SELECT n FROM generate_series(1, 2000) AS n", "pgops")
    what = "operation, datname, relation, percent > 0 AND percent < 100, unit, started_at < now()"
    with running(deployed, "CREATE INDEX ON public.long (public.stopped(n))"):
        expected = '("CREATE INDEX",pgops,long,t,blocks,t)'
        until(lambda: seen(deployed, what, "percent > 0 AND pid <> 0"), "seen", expected)
    assert seen(deployed, "pid", "operation = 'CREATE INDEX'") is None


@pytest.mark.every_major
@pytest.mark.parametrize(("command", "phase"), [("VACUUM", "scanning heap"), ("ANALYZE", "acquiring sample rows")])
def test_a_slow_vacuum_is_seen_on_its_way(deployed: Server, command: str, phase: str) -> None:
    deployed.value("CREATE TABLE public.wide AS SELECT repeat('x', 1500) FROM generate_series(1, 2000)", "pgops")
    what = "operation, relation, phase, percent > 0 AND percent < 100, unit"
    slowly = ("SET vacuum_cost_delay = '100ms'", "SET vacuum_cost_limit = 20", "SET vacuum_cost_page_hit = 10")
    with running(deployed, *slowly, f"{command} public.wide"):
        expected = f'({command},wide,"{phase}",t,blocks)'
        until(lambda: seen(deployed, what, "percent > 0"), "seen", expected)
    deployed.value("DROP TABLE public.wide", "pgops")


@pytest.mark.every_major
@pytest.mark.parametrize("command", ["CLUSTER", "VACUUM FULL"])
def test_a_table_that_is_written_anew_is_seen_with_no_share_where_none_is_known(
    deployed: Server, command: str
) -> None:
    deployed.value("CREATE TABLE public.old AS SELECT n FROM generate_series(991, 1010) AS n", "pgops")
    deployed.value("CREATE INDEX place ON public.old (n)", "pgops")
    deployed.value("CREATE INDEX ON public.old (public.stopped(n))", "pgops")
    statement = {"CLUSTER": "CLUSTER public.old USING place", "VACUUM FULL": "VACUUM FULL public.old"}[command]
    try:
        with running(deployed, statement):
            until(lambda: seen(deployed, "phase", "true"), "seen", "rebuilding index")
            what = "relation, percent, done, started_at < now()"
            assert seen(deployed, what, f"operation = '{command}'") == "(old,,,t)"
    finally:
        deployed.value("DROP TABLE public.old", "pgops")


@pytest.mark.every_major(since=19)
@pytest.mark.parametrize("options", ["", "(CONCURRENTLY)"])
def test_a_repack_is_called_by_its_name(deployed: Server, options: str) -> None:
    """The server's older view shows it as VACUUM FULL, which locks all others out."""
    deployed.value("CREATE TABLE public.loose AS SELECT n FROM generate_series(991, 1010) AS n", "pgops")
    deployed.value("ALTER TABLE public.loose ADD PRIMARY KEY (n)", "pgops")
    deployed.value("CREATE INDEX ON public.loose (public.stopped(n))", "pgops")
    try:
        with running(deployed, f"REPACK {options} public.loose"):
            until(lambda: seen(deployed, "operation, phase", "true"), "seen", '(REPACK,"rebuilding index")')
            select = f"SELECT maintenance_running FROM ({COLLECTED}) AS found WHERE operation = 'CLUSTER'"
            assert deployed.value(select) == 1
    finally:
        deployed.value("DROP TABLE public.loose", "pgops")


@pytest.mark.every_major
def test_a_file_that_is_copied_is_seen_on_its_way(deployed: Server) -> None:
    deployed.value("CREATE TABLE public.copied (n integer, line text)", "pgops")
    deployed.value(
        "CREATE TRIGGER stop BEFORE INSERT ON public.copied FOR EACH ROW EXECUTE FUNCTION public.stop()", "pgops"
    )
    lines = (f"{number}\t{'x' * 500}\n" for number in range(2000))
    file = deployed.write(deployed.directory / "lines", "".join(lines))
    what = "operation, relation, phase, percent > 0 AND percent < 100, unit"
    with running(deployed, f"COPY public.copied FROM '{file}'"):
        expected = '("COPY FROM",copied,file,t,bytes)'
        until(lambda: seen(deployed, what, "true"), "seen", expected)


def test_what_a_client_copies_has_no_known_end(deployed: Server) -> None:
    deployed.value("CREATE TABLE public.given (line text)", "pgops")
    with deployed.connect("pgops") as session, session.cursor().copy("COPY public.given FROM STDIN") as copy:
        for _part in range(4):
            copy.write(b"x" * 99_999 + b"\n")
        what = "operation, relation, phase, percent, done >= 65536"
        until(lambda: seen(deployed, what, "true"), "seen", '("COPY FROM",given,pipe,,t)')
        select = f"SELECT (maintenance_running, maintenance_percent)::text FROM ({COLLECTED}) AS found"
        assert deployed.value(f"{select} WHERE operation = 'COPY'") == "(1,)"


@pytest.mark.every_major
def test_a_base_backup_is_seen_on_its_way(deployed: Server, tmp_path: Path) -> None:
    command = [deployed.client("pg_basebackup"), "-d", deployed.dsn(""), "-D", str(tmp_path / "copy"), "--progress"]
    options = ["--checkpoint=fast", "--no-sync", "--wal-method=none", "--max-rate=1M"]
    what = "operation, datname, relation, percent > 0 AND percent < 100, unit, backend_type, started_at < now()"
    expected = '("BASE BACKUP",,,t,bytes,walsender,t)'
    with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as backup:
        try:
            until(lambda: seen(deployed, what, "done > 0"), "seen", expected)
        finally:
            backup.terminate()
    until(lambda: seen(deployed, "pid", "true"), "over", None)
