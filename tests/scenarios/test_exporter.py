# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An oracle: what prometheus-postgres-exporter says of a server, ours says as well. And every job of a host runs."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import exporter
import pytest
from deploying import SHIPPED
from hosts import HOSTS, Fleet

pytestmark = pytest.mark.slow
INSTANCES = {"pg15": "15-main", "pg17": "17-main", "pg17b": "17-main", "pg18": "18-main"}
PRIMARIES = ("pg15", "pg17", "pg18")
JOBS = {
    "alerts": "minutes",
    "catalogue": "complete",
    "collect": "samples",
    "export": "samples",
    "inspect": "samples",
    "maintain": "dropped",
    "queries": "statements",
    "watch": "heartbeat",
}
"""What the host is to do, and a word of its outcome."""
SETTINGS = {
    "autovacuum": "off",
    "track_io_timing": "on",
    "deadlock_timeout": "200ms",
    "max_standby_streaming_delay": "0",
    "max_slot_wal_keep_size": "1GB",
}
ACTIVITY = """
CREATE TABLE busy (a integer PRIMARY KEY, b integer, t text) WITH (fillfactor = 50);
ALTER TABLE busy ALTER COLUMN t SET STORAGE EXTERNAL;
CREATE INDEX ON busy (b);
INSERT INTO busy SELECT g, g, repeat('x', 5000) FROM generate_series(1, 500) AS g;
VACUUM ANALYZE busy;
UPDATE busy SET t = 'y' WHERE a <= 50;
UPDATE busy SET b = -b WHERE a BETWEEN 51 AND 90;
DELETE FROM busy WHERE a > 450;
SET enable_seqscan = off;
SELECT count(*), sum(length(t)) FROM busy WHERE a < 40;
SELECT count(*) FROM busy WHERE b = 7;
RESET enable_seqscan;
SELECT count(*) FROM busy;
SET work_mem = '64kB';
SELECT count(*) FROM (SELECT g FROM generate_series(1, 50000) AS g ORDER BY -g OFFSET 0) AS sorted;
SELECT pg_create_physical_replication_slot('left_behind', true);
BEGIN; INSERT INTO busy SELECT g, g, '' FROM generate_series(1001, 1010) AS g; ROLLBACK;
CREATE TABLE gone AS SELECT 1 AS a;
SELECT pg_switch_wal();
CHECKPOINT;
"""
ENDS = (
    "SELECT pg_terminate_backend(pg_backend_pid());",
    "SET idle_in_transaction_session_timeout = 1; BEGIN;\n\\! sleep 0.1\nSELECT 1;",
    "SELECT 1;\n\\! kill -9 $PPID\n",
)
"""Sessions that are killed, end with a fatal error, and whose client dies."""
LOCKS = """
SET statement_timeout = '60s';
SELECT pg_advisory_lock({0});
DO $$BEGIN
    WHILE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = {1}) LOOP
        PERFORM pg_sleep(0.05);
    END LOOP;
END$$;
SELECT pg_advisory_lock({1});
"""
"""Two sessions that hold what the other one asks for next."""
SCRAPE = """
import sys, time, urllib.request
until = time.monotonic() + 20
while True:
    try:
        with urllib.request.urlopen("http://127.0.0.1:19187/metrics") as answer:
            sys.stdout.write(answer.read().decode())
        break
    except OSError:
        if time.monotonic() > until:
            raise
        time.sleep(0.1)
"""
UNSEEN = {"pg_stat_database_checksum_failures"}
"""What only 0.11 tells, and only where checksums are on: not by Debian 12's default."""
WITHOUT = ("buffercache_summary", "stat_statements", "xlog_location")
"""Collectors that need an extension, would tell of queries, or are for PostgreSQL 9."""


@pytest.fixture(scope="module", autouse=True)
def _deployed(fleet: Fleet) -> None:
    fleet.reset()
    for host in HOSTS:
        fleet.on(host, "mkdir", "-p", "/srv/shared/wal", "/var/lib/prometheus/node-exporter")
    declared = {
        # The job `collect` would stay for its minute.
        "pgops_collector_settings": {one.name: {"interval": 60} for one in SHIPPED if one.interval < 60},
        "pgops_repository": "/srv/shared/wal",
        "pgops_repository_mount": "/srv/shared",
        "pgops_restart": "if_required",
        "pgops_statements": True,
        "pgops_textfile_directory": "/var/lib/prometheus/node-exporter",
    }
    run = fleet.play("pgops.fleet.site", "-e", json.dumps(declared))
    assert run.code == 0, run.text


def outcomes(fleet: Fleet, host: str) -> dict[str, dict[str, Any]]:
    """What each job says when systemd runs it now, or has just run it. One that had begun before the last restart may
    tell of that; the next one does not."""
    said = {}
    for job in JOBS:
        unit = f"pgops-{INSTANCES[host]}-{job}.service"
        for _attempt in range(2):
            fleet.on(host, "systemctl", "start", unit)
            line = fleet.on(host, "journalctl", "-q", "-o", "cat", "-t", "pgops", "-u", unit, "-n", "1")
            said[job] = json.loads(line)
            if not said[job].get("errors"):
                break
    return said


def test_every_job_of_a_host_runs_without_errors(fleet: Fleet) -> None:
    with ThreadPoolExecutor() as threads:
        said = dict(zip(HOSTS, threads.map(lambda host: outcomes(fleet, host), HOSTS)))
    for host, found in said.items():
        timers = fleet.on(host, "sh", "-c", "cd /etc/systemd/system && ls pgops-*.timer").split()
        assert timers == [f"pgops-{INSTANCES[host]}-{job}.timer" for job in sorted(JOBS)]
        for job, outcome in found.items():
            assert (outcome["job"], outcome["ok"], outcome.get("errors", [])) == (job, True, []), (host, outcome)
            left_to_the_primary = host not in PRIMARIES and "skipped" in outcome
            assert JOBS[job] in outcome or left_to_the_primary, (host, outcome)
        text = fleet.on(host, "cat", f"/var/lib/prometheus/node-exporter/pgops_{INSTANCES[host]}.prom")
        assert "pgops_active_connections{" in text


@contextlib.contextmanager
def session(fleet: Fleet, host: str, database: str, statements: str) -> Iterator[None]:
    """A session that is left open after its statements."""
    command = ("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database)
    with subprocess.Popen(
        ["podman", "--runtime", "runc", "exec", "-i", host, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as client:
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdin.write(f"{statements};\n\\echo ready\n")
        client.stdin.flush()
        assert any(line == "ready\n" for line in client.stdout)
        yield
        with contextlib.suppress(BrokenPipeError):
            client.stdin.close()


@pytest.fixture(scope="module", name="quiet")
def _quiet(fleet: Fleet) -> Iterator[None]:
    """Servers with something to tell, on which nothing happens any more but what is done here."""
    for host in HOSTS:
        fleet.on(host, "systemctl", "stop", "pgops-*.timer", "pgops-*.service")
        changes = "".join(f"ALTER SYSTEM SET {name} = '{value}';\n" for name, value in SETTINGS.items())
        fleet.sql(host, f"{changes}SELECT pg_reload_conf()", "postgres")
    with ThreadPoolExecutor() as threads, contextlib.ExitStack() as sessions:
        list(threads.map(lambda host: act(fleet, host), PRIMARIES))
        with session(fleet, "pg17b", "shop", "BEGIN; SELECT count(*) FROM gone"):
            fleet.sql("pg17", "DROP TABLE gone", "shop")
            cancelled = "SELECT confl_lock FROM pg_stat_database_conflicts WHERE datname = 'shop'"
            fleet.wait("a conflict", lambda: fleet.sql("pg17b", cancelled, "postgres") == "1")
        fleet.sql("pg17b", "CHECKPOINT", "postgres")
        for host in HOSTS:
            held = "BEGIN; SELECT 1" if host == "pg17b" else "BEGIN; LOCK TABLE crm.login IN SHARE MODE"
            sessions.enter_context(session(fleet, host, "accounts", held))
        yield


def act(fleet: Fleet, host: str) -> None:
    """Do a bit of everything on a primary."""
    fleet.sql(host, ACTIVITY, "shop")
    command = ("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-d", "shop")
    with ThreadPoolExecutor() as threads:
        failing = [LOCKS.format(1, 2), LOCKS.format(2, 1), *ENDS]
        list(threads.map(lambda text: fleet.on(host, *command, check=False, text=text), failing))
    archived = "SELECT archived_count > 0 FROM pg_stat_archiver"
    fleet.wait("an archived segment", lambda: fleet.sql(host, archived, "postgres") == "t")


@contextlib.contextmanager
def exporting(fleet: Fleet, host: str) -> Iterator[None]:
    """The exporter, with all its collectors that need no extension, as the server's user."""
    program = "prometheus-postgres-exporter"
    said = fleet.on(host, "sh", "-c", f"{program} --help 2>&1")
    known = {word.partition(".")[2] for word in said.split() if word.startswith("--collector.") and "=" not in word}
    flags = [f"--collector.{name}" for name in sorted(known - {*WITHOUT}) if "." not in name]
    source = f"DATA_SOURCE_NAME=user=postgres host=/var/run/postgresql dbname={exporter.DATABASE}"
    unit = ("systemd-run", "--quiet", "--unit=oracle", "--uid=postgres", f"--setenv={source}")
    fleet.on(host, *unit, program, "--web.listen-address=127.0.0.1:19187", *flags)
    try:
        yield
    finally:
        fleet.on(host, "systemctl", "stop", "oracle.service")


def ours(fleet: Fleet, host: str) -> list[exporter.Sample]:
    """What all our collectors say now."""
    instance = INSTANCES[host]
    # All of them are due where nothing is known of the last run.
    fleet.on(host, "rm", "-f", f"/var/lib/pgops/{instance}/state/collect.json")
    fleet.collect(host, instance)
    return exporter.parsed(fleet.on(host, "pgops", "export"))


def theirs(fleet: Fleet, host: str) -> list[exporter.Sample]:
    """What the exporter says now."""
    return exporter.parsed(fleet.on(host, "python3", "-", text=SCRAPE))


@pytest.fixture(scope="module", name="compared")
def _compared(fleet: Fleet, quiet: None) -> dict[str, exporter.Comparison]:
    """The exporter's values between ours before and after, of each host."""
    found = {}
    for host in HOSTS:
        with exporting(fleet, host):
            theirs(fleet, host)  # to connect
            for _attempt in range(3):
                measured = ours(fleet, host), theirs(fleet, host), ours(fleet, host)
                found[host] = exporter.compare(*measured, standby=host not in PRIMARIES)
                # Something that the server does of its own accord may come between, but not always.
                if not found[host].wrong:
                    break
    return found


@pytest.mark.parametrize("host", HOSTS)
def test_what_the_exporter_measures_is_what_we_measure(compared: dict[str, exporter.Comparison], host: str) -> None:
    assert compared[host].nameless == [], "add them to exporter.PAIRS or LEFT_OUT"
    assert compared[host].wrong == []


def test_all_that_is_known_of_the_exporter_was_compared(compared: dict[str, exporter.Comparison]) -> None:
    seen = set().union(*(one.compared for one in compared.values()))
    assert {name for pair in exporter.PAIRS for name in pair.theirs} - seen == UNSEEN
    moving = set().union(*(one.above_zero for one in compared.values()))
    assert {pair.ours.removeprefix("pgops_") for pair in exporter.PAIRS} - moving <= set(exporter.IDLE)
