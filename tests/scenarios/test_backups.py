# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Backups over a fleet, by playbooks, timers and SQL, and restores: of copies to a name, and of a server in place."""

from __future__ import annotations

import json
import shlex
from typing import Any

import pytest
from hosts import HOSTS, Fleet

from playbooks import Run

MAJORS = {"pg15": "15", "pg17": "17", "pg18": "18"}
"""Of the primaries."""
BASE = "/srv/shared/wal"
COMPRESSION = "{{ {'pg15': 'gzip', 'pg17': 'none', 'pg17b': 'none', 'pg18': 'zstd'}[inventory_hostname] }}"
DECLARED = {
    "pgops_repository": BASE,
    "pgops_repository_mount": "/srv/shared",
    "pgops_restart": "if_required",
    "pgops_backup": True,
    "pgops_backup_compression": COMPRESSION,
    "pgops_backup_dumps": {"databases": "all"},
}
RUNUSER = ("runuser", "-u", "postgres", "--")


@pytest.fixture(scope="module", autouse=True)
def _pristine(fleet: Fleet) -> None:
    fleet.reset()
    fleet.on("pg18", "mkdir", BASE)


def play(fleet: Fleet, playbook: str, *arguments: str, **variables: object) -> Run:
    """A run of a playbook with backups."""
    return fleet.play(f"pgops.fleet.{playbook}", "--diff", "-e", json.dumps({**DECLARED, **variables}), *arguments)


def job(fleet: Fleet, host: str, name: str) -> dict[str, Any]:
    """What a job says when systemd runs it now."""
    unit = f"pgops-{MAJORS[host]}-main-{name}.service"
    fleet.on(host, "systemctl", "start", unit)
    said = fleet.on(host, "journalctl", "-q", "-o", "cat", "-t", "pgops", "-u", unit, "-n", "1")
    found: dict[str, Any] = json.loads(said)
    return found


def repository(fleet: Fleet, host: str) -> str:
    """That of a host's cluster."""
    generation = fleet.sql(host, "SELECT generation FROM pgops.wal_archive_generations")
    return f"{BASE}/" + fleet.on(host, "sh", "-c", f"cd {BASE} && ls -d */{generation}").split("/")[0]


def test_all_clusters_are_set_up_as_predicted(fleet: Fleet) -> None:
    predicted = play(fleet, "site", "--check")
    done = play(fleet, "site")
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    second = play(fleet, "site")
    assert (second.code, second.changes) == (0, {})


def test_a_playbook_takes_a_backup_of_each_cluster(fleet: Fleet) -> None:
    predicted = play(fleet, "backup", "--check")
    assert predicted.code == 0, predicted.text
    done = play(fleet, "backup")
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    assert {host for host, _task, _item in done.changes} == set(MAJORS)  # and not of the standby
    for host in MAJORS:
        assert job(fleet, host, "catalogue")["ok"]
        row = "SELECT status, backup_type, compression_type FROM pgops.backup_history WHERE database_name IS NULL"
        assert fleet.sql(host, row) == f"completed|full|{ {'pg15': 'gzip', 'pg17': 'none', 'pg18': 'zstd'}[host] }"


@pytest.mark.parametrize("host", MAJORS)
def test_the_facts_say_that_it_can_be_recovered(fleet: Fleet, host: str) -> None:
    section = fleet.facts(host, "--become")["instances"][0]["backups"]
    assert section["error"] is None
    assert section["recoverable"] is True


@pytest.mark.parametrize("host", MAJORS)
def test_a_backup_is_taken_at_the_request_of_sql(fleet: Fleet, host: str) -> None:
    asked = fleet.sql(host, "SELECT pgops.create_database_backup('full')")
    state = f"SELECT status FROM pgops.backup_history WHERE backup_id = '{asked}'"

    def served() -> bool:
        job(fleet, host, "requests")  # or the timer's run does it
        return fleet.sql(host, state) == "completed"

    fleet.wait("the backup", served)
    path = fleet.sql(host, f"SELECT backup_file_path FROM pgops.backup_history WHERE backup_id = '{asked}'")
    assert fleet.on(host, "test", "-f", f"{path}/manifest.json") == ""


@pytest.mark.parametrize("name", ["backup", "dump", "verify", "expire", "requests"])
def test_timers_run_the_jobs(fleet: Fleet, name: str) -> None:
    for host, major in MAJORS.items():
        timer = f"pgops-{major}-main-{name}.timer"
        assert fleet.on(host, "systemctl", "is-active", timer).strip() == "active"
        assert job(fleet, host, name)["ok"]


@pytest.mark.parametrize("host", MAJORS)
def test_each_database_is_dumped(fleet: Fleet, host: str) -> None:
    dumped = fleet.sql(
        host,
        "SELECT count(DISTINCT b.database_name) FROM pgops.backup_history AS b WHERE b.backup_method = 'pg_dump'",
    )
    there = fleet.sql(host, "SELECT count(*) FROM pg_database WHERE datallowconn AND NOT datistemplate")
    assert dumped == there


@pytest.mark.parametrize("host", ["pg15", "pg18"])
def test_what_was_dropped_is_in_a_copy_of_the_moment_before(fleet: Fleet, host: str) -> None:
    fleet.sql(host, "CREATE TABLE precious AS SELECT generate_series(1, 1000) AS n", "postgres")
    named = play(fleet, "recovery_point", "--limit", host, pgops_recovery_point="before the accident")
    assert named.code == 0, named.text
    again = play(fleet, "recovery_point", "--limit", host, pgops_recovery_point="before the accident")
    assert (again.code, again.changes) == (0, {})
    fleet.sql(host, "DROP TABLE precious", "postgres")
    directory = "/var/lib/postgresql/copy"
    wanted = {
        "pgops_restore_host": host,
        "pgops_restore_repository": repository(fleet, host),
        "pgops_restore_directory": directory,
        "pgops_restore_name": "before the accident",
    }
    predicted = play(fleet, "restore", "--check", **wanted)
    done = play(fleet, "restore", **wanted)
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    asked = (*RUNUSER, "psql", "-XAtq", "-h", directory, "-d", "postgres", "-c", "SELECT count(*) FROM precious")
    try:
        assert fleet.on(host, *asked).strip() == "1000"
        assert fleet.sql(host, "SELECT to_regclass('precious') IS NULL", "postgres") == "t"
    finally:
        stop = (*RUNUSER, f"/usr/lib/postgresql/{MAJORS[host]}/bin/pg_ctl", "-D", directory, "-m", "fast", "stop")
        fleet.on(host, *stop, check=False)
        fleet.on(host, "rm", "-rf", directory)


def test_a_server_is_taken_back_in_place(fleet: Fleet) -> None:
    fleet.sql("pg18", "CREATE TABLE kept AS SELECT 1 AS n", "postgres")
    time = fleet.sql("pg18", "SELECT clock_timestamp()", "postgres")
    fleet.sql("pg18", "DROP TABLE kept", "postgres")
    # What comes after the target has to be archived: a recovery cannot tell otherwise that it has reached it.
    fleet.sql("pg18", "CREATE TABLE after ()", "postgres")
    segment = fleet.sql("pg18", "SELECT pg_walfile_name(pg_switch_wal())", "postgres")
    fleet.wait(segment, lambda: fleet.on("pg18", "find", BASE, "-name", f"{segment}*"))
    place = repository(fleet, "pg18")
    directory = "/var/lib/postgresql/18/main"
    command = ("pgops", "restore", "--repository", place, "--time", time, "--in-place", directory)
    refused = fleet.on("pg18", *command, check=False)
    assert fleet.sql("pg18", "SELECT to_regclass('after') IS NOT NULL", "postgres") == "t", refused
    fleet.on("pg18", "systemctl", "stop", "postgresql@18-main")
    # What comes from the image of a container cannot be renamed, which the first attempt finds out.
    unmoved = fleet.on("pg18", "sh", "-c", f"{shlex.join(command)} 2>&1; ls -d {directory}*", check=False)
    assert "cannot be moved aside" in unmoved
    assert unmoved.splitlines()[-1] == directory
    fleet.on(
        "pg18", "sh", "-c", f"cp -a {directory} {directory}.x && rm -r {directory} && mv {directory}.x {directory}"
    )
    fleet.on("pg18", *command)
    fleet.on("pg18", "systemctl", "start", "postgresql@18-main")
    fleet.wait("the server", lambda: fleet.on("pg18", "pg_isready", check=False).endswith("accepting connections\n"))
    assert fleet.sql("pg18", "SELECT n FROM kept", "postgres") == "1"
    assert fleet.sql("pg18", "SELECT to_regclass('after') IS NULL", "postgres") == "t"
    assert fleet.on("pg18", "sh", "-c", f"ls -d {directory}.before-restore-*").strip()
    # It goes on, archives its new timeline, and takes the next backup.
    second = play(fleet, "site", "--limit", "pg18")
    assert (second.code, second.changes) == (0, {}), second.text
    assert play(fleet, "backup", "--limit", "pg18").code == 0


def test_removal_leaves_the_backups(fleet: Fleet) -> None:
    place = repository(fleet, "pg15")
    gone = fleet.play("pgops.fleet.remove", "-e", "pgops_restart=if_required", "-e", f"pgops_repository={BASE}")
    assert gone.code == 0, gone.text
    for host in HOSTS:
        assert fleet.on(host, "systemctl", "list-unit-files", "--no-legend", "pgops*", check=False) == ""
    assert "manifest.json" in fleet.on("pg15", "find", place, "-name", "manifest.json")
