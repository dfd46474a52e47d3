# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""WAL archiving over a fleet: one file system for all clusters, a catalogue kept by timers, and a promotion."""

from __future__ import annotations

import json

import pytest
from hosts import HOSTS, Fleet

from playbooks import Run

INSTANCES = {"pg15": "15-main", "pg17": "17-main", "pg17b": "17-main", "pg18": "18-main"}
PRIMARIES = ("pg15", "pg17", "pg18")
BASE = "/srv/shared/wal"
ENDINGS = {"pg15": ".gz", "pg17": ".lz4", "pg17b": ".lz4", "pg18": ".zst"}
COMPRESSION = "{{ {'pg15': 'gzip', 'pg17': 'lz4', 'pg17b': 'lz4', 'pg18': 'zstd'}[inventory_hostname] }}"
CONTINUOUS = "SELECT continuous_since FROM pgops.wal_archive_generations"
PROGRAM = "/usr/local/lib/pgops/archiver"


@pytest.fixture(scope="module", autouse=True)
def _pristine(fleet: Fleet) -> None:
    fleet.reset()


def site(fleet: Fleet, *arguments: str, **variables: object) -> Run:
    """A run of site.yml with archiving and statements."""
    declared = {
        "pgops_repository": BASE,
        "pgops_repository_mount": "/srv/shared",
        "pgops_restart": "if_required",
        "pgops_statements": True,
        "pgops_archive_compression": COMPRESSION,
        **variables,
    }
    return fleet.play("pgops.fleet.site", "--diff", "-e", json.dumps(declared), *arguments)


def catalogue(fleet: Fleet, host: str) -> str:
    """What the job prints when systemd runs it now."""
    unit = f"pgops-{INSTANCES[host]}-catalogue.service"
    fleet.on(host, "systemctl", "start", unit)
    return fleet.on(host, "journalctl", "-q", "-o", "cat", "-t", "pgops", "-u", unit, "-n", "1")


def archived(fleet: Fleet, host: str) -> str:
    """Finish a segment, and wait until it is in the repository; its name."""
    # A segment without a record in it is not switched.
    fleet.sql(host, "SELECT pg_create_restore_point('here')", "postgres")
    name = fleet.sql(host, "SELECT pg_walfile_name(pg_switch_wal())", "postgres")
    fleet.wait(name, lambda: fleet.on(host, "find", BASE, "-name", f"{name}{ENDINGS[host]}"))
    return name


def test_where_the_repository_is_not_nothing_is_touched(fleet: Fleet) -> None:
    started = fleet.sql("pg18", "SELECT pg_postmaster_start_time()", "postgres")
    refused = site(fleet, "--limit", "pg18")
    (failed,) = [said for said in refused.outcomes if said["code"]]
    assert f"{BASE} does not exist" in failed["msg"]
    unmounted = site(fleet, "--limit", "pg18", pgops_repository="/srv/wal", pgops_repository_mount="/srv/wal")
    (failed,) = [said for said in unmounted.outcomes if said["code"]]
    assert "Nothing is mounted at /srv/wal" in failed["msg"]
    assert fleet.sql("pg18", "SELECT pg_postmaster_start_time()", "postgres") == started


def test_all_clusters_archive_after_one_run(fleet: Fleet) -> None:
    fleet.on("pg18", "mkdir", BASE)
    predicted = site(fleet, "--check")
    done = site(fleet)
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    proofs = [said for said in done.outcomes if said["task"] == "Check that WAL is archived" and said["item"]]
    assert {said["host"]: (said["state"], said["changed"]) for said in proofs} == dict.fromkeys(HOSTS, ("ok", False))
    second = site(fleet)
    assert (second.code, second.changes) == (0, {})
    assert max(second.modules.values()) <= 8
    for host in PRIMARIES:
        archived(fleet, host)


@pytest.mark.parametrize("host", PRIMARIES)
def test_the_timer_keeps_the_catalogue(fleet: Fleet, host: str) -> None:
    timer = f"pgops-{INSTANCES[host]}-catalogue.timer"
    assert fleet.on(host, "systemctl", "is-active", timer).strip() == "active"
    status = f"SELECT status FROM pgops.wal_archive_status WHERE wal_filename = '{archived(fleet, host)}'"
    # A run that the timer has just started may not have seen it yet.
    fleet.wait("the catalogue", lambda: catalogue(fleet, host) and fleet.sql(host, status) == "archived")
    assert json.loads(catalogue(fleet, host))["complete"]
    assert fleet.sql(host, CONTINUOUS) != ""
    assert fleet.sql(host, "SELECT count(*) FROM pgops.wal_archive_gaps") == "0"
    (said,) = fleet.on(host, "pgops", "catalogue").splitlines()
    assert json.loads(said)["ok"]


def test_a_standby_leaves_the_catalogue_to_its_primary(fleet: Fleet) -> None:
    assert "standby" in json.loads(catalogue(fleet, "pg17b"))["skipped"]
    assert json.loads(fleet.on("pg17b", "pgops", "collect").splitlines()[-1])["ok"]


def test_a_promoted_standby_goes_on(fleet: Fleet) -> None:
    since = fleet.sql("pg17", CONTINUOUS)
    last = fleet.sql("pg17", "SELECT pg_current_wal_lsn()")
    fleet.wait("replay", lambda: fleet.sql("pg17b", f"SELECT pg_last_wal_replay_lsn() >= '{last}'") == "t")
    fleet.on("pg17", "systemctl", "stop", "postgresql@17-main")
    fleet.on("pg17b", "pg_ctlcluster", "17", "main", "promote")
    fleet.wait("the promotion", lambda: fleet.sql("pg17b", "SELECT pg_is_in_recovery()") == "f")
    assert archived(fleet, "pg17b").startswith("00000002")
    assert json.loads(catalogue(fleet, "pg17b"))["complete"]
    assert fleet.sql("pg17b", CONTINUOUS) == since
    assert fleet.sql("pg17b", "SELECT count(*) FROM pgops.wal_archive_gaps") == "0"


def test_what_the_old_primary_still_archives_changes_nothing_for_the_new(fleet: Fleet) -> None:
    since = fleet.sql("pg17b", CONTINUOUS)
    fleet.on("pg17", "systemctl", "start", "postgresql@17-main")
    strays = [archived(fleet, "pg17") for _segment in range(2)]
    assert all(name.startswith("00000001") for name in strays)
    names = [*strays, archived(fleet, "pg17b")]
    seen = f"SELECT count(*) FROM pgops.wal_archive_status WHERE wal_filename IN ({str(names)[1:-1]})"
    fleet.wait("the catalogue", lambda: catalogue(fleet, "pg17b") and fleet.sql("pg17b", seen) == "3")
    assert fleet.sql("pg17b", CONTINUOUS) == since
    assert fleet.sql("pg17b", "SELECT count(*) FROM pgops.wal_archive_gaps") == "0"


def test_a_copy_recovers_from_the_repository(fleet: Fleet) -> None:
    """By hand, as docs/archiving.md has it: a base backup without WAL, and the rest from the repository."""
    fleet.sql("pg18", "CREATE TABLE recovered (n integer)", "postgres")
    runuser = ("runuser", "-u", "postgres", "--")
    copy = ("--wal-method=none", "--checkpoint=fast", "-D", "/var/lib/postgresql/copy")
    fleet.on("pg18", *runuser, "/usr/lib/postgresql/18/bin/pg_basebackup", *copy)
    fleet.sql("pg18", "INSERT INTO recovered VALUES (42)", "postgres")
    archived(fleet, "pg18")
    generation = fleet.sql("pg18", "SELECT generation FROM pgops.wal_archive_generations")
    cluster = fleet.on("pg18", "sh", "-c", f"cd {BASE} && ls -d */{generation}").split("/")[0]
    fetch = f'{PROGRAM} fetch {BASE}/{cluster} {generation} %f "%p"'
    settings = f"""
restore_command = '{fetch}'
recovery_target_action = promote
archive_mode = off
port = 6000
unix_socket_directories = '/tmp'
listen_addresses = ''
hba_file = '/etc/postgresql/18/main/pg_hba.conf'
"""
    fleet.on("pg18", *runuser, "sh", "-c", "cat > /var/lib/postgresql/copy/postgresql.conf", text=settings)
    fleet.on("pg18", *runuser, "rm", "-f", "/var/lib/postgresql/copy/postgresql.auto.conf")
    fleet.on("pg18", *runuser, "touch", "/var/lib/postgresql/copy/recovery.signal")
    control = (*runuser, "/usr/lib/postgresql/18/bin/pg_ctl", "-D", "/var/lib/postgresql/copy", "-w")
    try:
        fleet.on("pg18", *control, "-l", "/var/lib/postgresql/copy.log", "start")
        asked = (*runuser, "psql", "-XAtq", "-h", "/tmp", "-p", "6000", "-d", "postgres", "-c")
        promoted = (*asked, "SELECT pg_is_in_recovery()")
        fleet.wait("the end of recovery", lambda: fleet.on("pg18", *promoted, check=False).strip() == "f")
        assert fleet.on("pg18", *asked, "SELECT n FROM recovered").strip() == "42"
    finally:
        fleet.on("pg18", *control, "stop", check=False)
        fleet.on("pg18", "rm", "-rf", "/var/lib/postgresql/copy", "/var/lib/postgresql/copy.log")


def test_removal_leaves_the_repository(fleet: Fleet) -> None:
    name = archived(fleet, "pg15")
    hosts = ("--limit", "pg15,pg18", "-e", "pgops_restart=if_required")
    gone = fleet.play("pgops.fleet.remove", *hosts)
    assert gone.code == 0, gone.text
    for host in ("pg15", "pg18"):
        assert fleet.sql(host, "SHOW archive_mode", "postgres") == "off"
        assert fleet.on(host, "sh", "-c", "ls -d /usr/local/lib/pgops /var/lib/pgops 2>/dev/null || true") == ""
        assert fleet.on(host, "systemctl", "list-unit-files", "--no-legend", "pgops*", check=False) == ""
    assert name in fleet.on("pg15", "find", BASE, "-name", f"{name}*")
    fleet.on("pg15", "rm", "-rf", BASE)
