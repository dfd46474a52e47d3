# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host as it may be: of another language, without the driver, upgraded, with a mistake in its inventory."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from hosts import Fleet

from playbooks import Run

pytestmark = pytest.mark.xdist_group("pg18")


@pytest.fixture(scope="module", autouse=True)
def _deployed(fleet: Fleet) -> None:
    fleet.deployed("pg18")


@pytest.mark.slow
def test_an_upgrade_loses_no_round_and_leaves_the_version_before(fleet: Fleet) -> None:
    since = fleet.sql("pg18", "SELECT date_trunc('minute', now())")
    before = fleet.on("pg18", "pgops", "version")
    # Another Python makes another version of the agent.
    other = fleet.on("pg18", "readlink", "-f", "/usr/bin/python3").strip()
    current = fleet.on("pg18", "readlink", "/usr/local/lib/pgops/current")
    for interpreter in (other, "/usr/bin/python3", other):
        run = fleet.play("pgops.fleet.site", "--limit", "pg18", "-e", f"pgops_python={interpreter}")
        assert run.code == 0, run.text
        switched = fleet.sql("pg18", "SELECT now()")
        fleet.wait("a round of this version", lambda switched=switched: fleet.rounds("pg18", "pg18", switched))
    assert fleet.on("pg18", "readlink", "/usr/local/lib/pgops/current") != current
    assert fleet.on("pg18", "pgops", "version") == before
    versions = fleet.on("pg18", "ls", "/usr/local/lib/pgops/versions").split()
    assert len(versions) <= 2
    # The first minute may have had its round before the first upgrade, and the last may still get its.
    last = fleet.sql("pg18", "SELECT date_trunc('minute', now())")
    within = f"generate_series('{since}'::timestamptz + '1 minute', '{last}'::timestamptz, '1 minute') AS minute"
    minutes = set(fleet.sql("pg18", f"SELECT to_char(minute, 'HH24:MI') FROM {within}").split())
    assert len(minutes) >= 1
    fleet.wait("every minute's round", lambda: minutes <= fleet.rounds("pg18", "pg18", since), 70)
    assert fleet.play("pgops.fleet.site", "--limit", "pg18").code == 0


def test_a_host_without_the_driver_is_told_of_and_then_given_it(fleet: Fleet) -> None:
    fleet.play("pgops.fleet.remove", "--limit", "pg18", "-e", "pgops_purge=true")
    fleet.on("pg18", "apt-get", "update", "-q")  # without lists of packages apt predicts nothing
    fleet.on("pg18", "apt-get", "remove", "-q", "-y", "python3-psycopg")
    whole = ("--limit", "pg18", "-e", '{"pgops_statements": true, "pgops_settings": {"work_mem": "7MB"}}')
    refused = fleet.play("pgops.fleet.site", "--limit", "pg18", "-e", '{"pgops_packages": []}')
    (failed,) = [said for said in refused.outcomes if said["code"]]
    assert failed["code"] == "driver_missing"
    assert "python3-psycopg" in failed["msg"]
    predicted = fleet.play("pgops.fleet.site", *whole, "--check")
    assert predicted.code == 0, predicted.text
    schema = [
        said["predictable"] for said in predicted.outcomes if said["task"] == "Create or update the ops database"
    ]
    assert schema == [False]
    assert ("pg18", "Install packages", "") in predicted.changes
    done = fleet.play("pgops.fleet.site", "--limit", "pg18")
    assert done.code == 0, done.text
    assert fleet.play("pgops.fleet.site", "--limit", "pg18").changes == {}


@pytest.fixture(name="in_german")
def _in_german(fleet: Fleet) -> Iterator[None]:
    for value in ("'de_DE.UTF-8'", "DEFAULT"):
        fleet.sql("pg18", f"ALTER SYSTEM SET lc_messages = {value}", "postgres")
        fleet.sql("pg18", "SELECT pg_reload_conf()", "postgres")
        if value != "DEFAULT":
            fleet.wait("German", lambda: fleet.sql("pg18", "SHOW lc_messages", "postgres") == "de_DE.UTF-8")
            yield


def test_a_server_of_another_language_is_understood(fleet: Fleet, in_german: None) -> None:
    command = ("runuser", "-u", "postgres", "--", "sh", "-c", "psql -XAtqc 'SELECT no_such' 2>&1 || true")
    assert "existiert nicht" in fleet.on("pg18", *command)
    assert fleet.play("pgops.fleet.remove", "--limit", "pg18", "-e", "pgops_purge=true").code == 0
    predicted = fleet.play("pgops.fleet.site", "--limit", "pg18", "--check")
    done = fleet.play("pgops.fleet.site", "--limit", "pg18")
    assert (done.code, done.changes) == (0, predicted.changes), done.text
    assert fleet.play("pgops.fleet.site", "--limit", "pg18").changes == {}
    fleet.collect("pg18", "18-main")
    # Errors that are told apart: a session without rights, a wrong password, a schema that is not there.
    fleet.sql("pg18", "CREATE ROLE watcher LOGIN PASSWORD 'wa:tch'", "postgres")
    login = "login_host=127.0.0.1 login_user=watcher login_password={} login_db=postgres"
    found = fleet.facts("pg18", "-a", login.format("wa:tch"))["instances"][0]
    assert found["schema"]["error"]["code"] == "login_refused"
    found = fleet.facts("pg18", "-a", login.format("wrong"))["instances"][0]
    assert (found["error"]["code"], found["running"]) == ("login_refused", True)
    fleet.sql("pg18", "DROP ROLE watcher", "postgres")
    found = fleet.facts("pg18", "--become", "-a", "database=postgres")["instances"][0]
    assert (found["schema"]["installed"], found["schema"]["error"]) == (False, None)


def test_an_invalid_calendar_changes_nothing(fleet: Fleet) -> None:
    jobs = '{"pgops_jobs": {"collect": {"calendar": "every full moon"}}}'
    before = fleet.on(
        "pg18", "sh", "-c", "systemctl cat 'pgops-*' --no-pager; systemctl list-timers 'pgops-*' | wc -l"
    )
    run = fleet.play("pgops.fleet.site", "--limit", "pg18", "-e", jobs)
    (failed,) = [said for said in run.outcomes if said["code"]]
    assert failed["code"] == "invalid_input"
    assert "every full moon" in failed["msg"]
    after = fleet.on(
        "pg18", "sh", "-c", "systemctl cat 'pgops-*' --no-pager; systemctl list-timers 'pgops-*' | wc -l"
    )
    assert after == before


def test_a_python_in_roots_home_is_not_that_of_the_jobs(fleet: Fleet) -> None:
    """Ansible uses it as root, whose home is closed to the users who run the agent."""
    fleet.on("pg18", "chmod", "0700", "/root")
    fleet.on("pg18", "/usr/bin/python3", "-m", "venv", "--without-pip", "--system-site-packages", "/root/python")
    inside = "/root/python/bin/python"
    run = ("pgops.fleet.site", "--limit", "pg18", "-e", f"ansible_python_interpreter={inside}")
    current = fleet.on("pg18", "readlink", "/usr/local/lib/pgops/current")
    refused = fleet.play(*run, "-e", f"pgops_python={inside}")
    (failed,) = [said for said in refused.outcomes if said["code"]]
    assert "user pgops cannot start it" in failed["msg"]
    assert fleet.on("pg18", "readlink", "/usr/local/lib/pgops/current") == current
    predicted = fleet.play(*run, "--check")
    done = fleet.play(*run)
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    assert fleet.play(*run).changes == {}
    assert fleet.on("pg18", "head", "-1", "/usr/local/lib/pgops/current/bin/pgops").strip() == "#!/usr/bin/python3 -I"
    for job in ("collect", "inspect"):
        fleet.on("pg18", "systemctl", "start", f"pgops-18-main-{job}.service")
    fleet.on("pg18", "rm", "-r", "/root/python")


def archiving(fleet: Fleet, **variables: object) -> Run:
    """A run of site.yml that may restart the server, with a repository."""
    declared = {"pgops_repository": "/srv/shared/host", "pgops_restart": "if_required", **variables}
    return fleet.play("pgops.fleet.site", "--limit", "pg18", "-e", json.dumps(declared))


def test_anothers_archive_command_is_replaced_only_when_asked_and_put_back(fleet: Fleet) -> None:
    fleet.on("pg18", "mkdir", "-p", "/srv/shared/host")
    for setting in ("archive_mode = on", "archive_command = '/bin/true'"):
        fleet.sql("pg18", f"ALTER SYSTEM SET {setting}", "postgres")
    fleet.on("pg18", "systemctl", "restart", "postgresql@18-main")
    refused = archiving(fleet)
    (failed,) = [said for said in refused.outcomes if said["code"]]
    assert "pgops_archive_replace" in failed["msg"]
    assert fleet.sql("pg18", "SHOW archive_command", "postgres") == "/bin/true"
    done = archiving(fleet, pgops_archive_replace=True)
    assert done.code == 0, done.text
    assert "/srv/shared/host" in fleet.sql("pg18", "SHOW archive_command", "postgres")
    assert archiving(fleet, pgops_archive_replace=True).changes == {}
    removed = fleet.play("pgops.fleet.remove", "--limit", "pg18", "-e", "pgops_restart=if_required")
    assert removed.code == 0, removed.text
    assert fleet.sql("pg18", "SHOW archive_command", "postgres") == "/bin/true"
    for setting in ("archive_mode", "archive_command"):
        fleet.sql("pg18", f"ALTER SYSTEM RESET {setting}", "postgres")
    fleet.on("pg18", "systemctl", "restart", "postgresql@18-main")


def test_a_compressor_is_installed_where_it_is_declared(fleet: Fleet) -> None:
    fleet.on("pg18", "mkdir", "-p", "/srv/shared/host")
    fleet.on("pg18", "apt-get", "update", "-q")
    fleet.on("pg18", "apt-get", "remove", "-q", "-y", "zstd")
    refused = archiving(fleet, pgops_archive_compression="zstd", pgops_packages=[])
    (failed,) = [said for said in refused.outcomes if said["state"] == "failed"]
    assert "Install the package zstd" in failed["msg"]
    assert not any(said["changed"] for said in refused.outcomes)
    done = archiving(fleet, pgops_archive_compression="zstd")
    assert done.code == 0, done.text
    assert ("pg18", "Install packages", "") in done.changes
    assert archiving(fleet, pgops_archive_compression="zstd").changes == {}
    assert fleet.play("pgops.fleet.remove", "--limit", "pg18", "-e", "pgops_restart=if_required").code == 0


def test_a_server_created_anew_goes_on_in_its_repository_only_when_asked(fleet: Fleet) -> None:
    fleet.on("pg18", "mkdir", "-p", "/srv/shared/host")
    assert archiving(fleet).code == 0
    assert archiving(fleet).changes == {}
    fleet.on("pg18", "pg_dropcluster", "--stop", "18", "main")
    fleet.on("pg18", "pg_createcluster", "18", "main", "--start")
    refused = archiving(fleet)
    (failed,) = [said for said in refused.outcomes if said["code"]]
    assert "pgops_archive_another_server" in failed["msg"]
    done = archiving(fleet, pgops_archive_another_server=True)
    assert done.code == 0, done.text
    archived = "SELECT archived_count > 0 FROM pg_stat_archiver"
    fleet.wait("a segment", lambda: fleet.sql("pg18", archived, "postgres") == "t")
    kept = fleet.on("pg18", "sh", "-c", "ls -d /srv/shared/host/search/*-18").split()
    assert len(kept) == 2
    assert archiving(fleet).changes == {}
