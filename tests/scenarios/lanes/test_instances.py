# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Several instances on a host, whatever becomes of them: two runs at once, killed runs, upgrades, removals, cron."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator

import pytest
from hosts import INVENTORY, ROOT, Fleet

pytestmark = pytest.mark.xdist_group("pg15")
SITE = ["ansible-playbook", "-i", str(INVENTORY), "pgops.fleet.site", "--limit", "pg15"]


@pytest.fixture(scope="module", autouse=True)
def _deployed(fleet: Fleet) -> None:
    fleet.deployed("pg15")


def test_two_runs_at_the_same_time_both_end_well(fleet: Fleet) -> None:
    fleet.play("pgops.fleet.remove", "--limit", "pg15")
    both = [subprocess.Popen(SITE, stdout=subprocess.PIPE, text=True) for _run in range(2)]
    said = [run.communicate(timeout=300)[0] for run in both]
    assert [run.returncode for run in both] == [0, 0], said
    assert fleet.play("pgops.fleet.site", "--limit", "pg15").changes == {}


@pytest.mark.parametrize(
    "sign",
    [
        "test -d /usr/local/lib/pgops/versions",
        "runuser -u postgres -- psql -XAtqc 'SELECT datname FROM pg_database' | grep -x pgops",
        "ls /etc/systemd/system/pgops-15-main-*.service",
    ],
    ids=["agent", "database", "units"],
)
def test_a_run_killed_in_the_middle_is_finished_by_the_next(fleet: Fleet, sign: str) -> None:
    assert fleet.play("pgops.fleet.remove", "--limit", "pg15", "-e", "pgops_purge=true").code == 0
    with subprocess.Popen(SITE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True) as run:
        fleet.on("pg15", "sh", "-c", f"until {sign} >/dev/null 2>&1; do sleep 0.02; done")
        os.killpg(run.pid, signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL
    fleet.on("pg15", "sh", "-c", "pkill -9 -f '[A]nsiballZ' || true")
    again = fleet.play("pgops.fleet.site", "--limit", "pg15")
    assert again.code == 0, again.text
    assert fleet.play("pgops.fleet.site", "--limit", "pg15").changes == {}


@pytest.fixture(name="second_instance")
def _second_instance(fleet: Fleet) -> Iterator[None]:
    fleet.on("pg15", "pg_createcluster", "15", "other", "--start", "--", "--encoding=UTF8")
    yield
    fleet.on("pg15", "pg_dropcluster", "--stop", "15", "other")


JOBS = {"alerts", "catalogue", "collect", "export", "inspect", "maintain", "queries", "watch"}
WHOLE = {
    "pgops_settings": {"work_mem": "8MB"},
    "pgops_statements": True,
    "pgops_repository": "/srv/shared/wal",
    "pgops_restart": "if_required",
}
"""All capabilities, for a host that the others do not wait for."""

LOOKS = """
SELECT name, setting, pending_restart FROM pg_settings
WHERE source NOT IN ('default', 'client', 'override', 'session') ORDER BY 1;
SELECT rolname FROM pg_roles WHERE rolcanlogin ORDER BY 1;
SELECT database, user_name, auth_method FROM pg_hba_file_rules ORDER BY line_number;
"""


def other(fleet: Fleet, database: str, statement: str) -> str:
    """What a statement gives in the second instance of pg15."""
    command = ("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-p", "5433", "-d", database)
    return fleet.on("pg15", *command, text=statement).strip()


def commands(chapter: str, **names: str) -> list[list[str]]:
    """The commands of a chapter of the first page, with other names in them."""
    text = (ROOT / "docs/start.md").read_text().partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    for name, value in names.items():
        text = text.replace(name.replace("_", "-"), value)
    return [shlex.split(line) for line in text.splitlines() if line.startswith("ansible ")]


def test_each_instance_of_a_host_has_its_own_and_one_of_them_can_be_taken_away(
    fleet: Fleet, second_instance: None
) -> None:
    assert fleet.play("pgops.fleet.remove", "--limit", "pg15", "-e", "pgops_purge=true").code == 0
    fleet.on("pg15", "mkdir", "-p", "/srv/shared/wal")
    looks = other(fleet, "postgres", LOOKS)
    limit = ("--limit", "pg15", "--diff", "-e", json.dumps({**WHOLE, "pgops_purge": True}))
    predicted = fleet.play("pgops.fleet.site", *limit, "--check")
    run = fleet.play("pgops.fleet.site", *limit)
    assert run.code == 0, run.text
    assert run.changes == predicted.changes
    assert fleet.play("pgops.fleet.site", *limit).changes == {}
    timers = fleet.on("pg15", "systemctl", "list-timers", "--no-legend", "pgops-*")
    assert "pgops-15-main-collect" in timers
    assert "pgops-15-other-collect" in timers
    for name in ("15-main", "15-other"):
        fleet.collect("pg15", name)
    nodes = "SELECT DISTINCT cluster, node FROM pgops.system_metrics"
    assert fleet.sql("pg15", nodes) == "billing-15-main|pg15/15-main"
    assert other(fleet, "pgops", nodes) == "billing-15-other|pg15/15-other"
    assert other(fleet, "postgres", LOOKS) != looks

    away = commands("Removal", db1="pg15", **{"17_archive": "15-other"})
    assert len(away) == 6
    for command in away:
        command[-1] += " restart=if_required" if "instance=15-other login_port" in command[-1] else ""
        done = subprocess.run(
            [*command, "-i", str(INVENTORY)], capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert other(fleet, "postgres", LOOKS) == looks
    left = "find / -xdev -path /proc -prune -o -name '*15-other*' -print | grep pgops || true"
    assert fleet.on("pg15", "sh", "-c", left) == ""
    # The other one keeps the name of its cluster, although it is alone now.
    alone = json.dumps({"pgops_instances": [{"name": "15-main"}]})
    assert fleet.play("pgops.fleet.site", *limit, "-e", alone).changes == {}

    assert fleet.play("pgops.fleet.site", *limit).code == 0
    predicted = fleet.play("pgops.fleet.remove", *limit, "--check")
    removed = fleet.play("pgops.fleet.remove", *limit)
    assert removed.code == 0, removed.text
    assert removed.changes == predicted.changes
    assert other(fleet, "postgres", LOOKS) == looks
    assert (
        fleet.on("pg15", "sh", "-c", "ls -d /etc/pgops /usr/local/lib/pgops /var/lib/pgops 2>/dev/null || true") == ""
    )


def test_what_was_upgraded_is_measured_no_more_by_its_old_name(fleet: Fleet) -> None:
    """As pg_upgradecluster leaves it: down, by its configuration not to be started, and its port its successor's."""
    fleet.on("pg15", "mkdir", "-p", "/srv/textfile")
    limit = ("--limit", "pg15", "-e", "pgops_textfile_directory=/srv/textfile")
    assert fleet.play("pgops.fleet.site", *limit).code == 0
    old = "/etc/postgresql/14/main"
    for command in (
        f"mkdir -p {old} && echo manual >{old}/start.conf && echo port = 5439 >{old}/postgresql.conf",
        f"chown -R postgres: {old}",
        "mkdir -p /var/lib/postgresql/14/main",
        "sed 's/15-main/14-main/g; s:/15/main:/14/main:g' /etc/pgops/15-main/agent.json >/tmp/agent.json",
        "cp -a /etc/pgops/15-main /etc/pgops/14-main && cp /tmp/agent.json /etc/pgops/14-main/",
        "mkdir /var/lib/pgops/14-main && echo '{\"format\": 1}' >/var/lib/pgops/14-main/before.json",
    ):
        fleet.on("pg15", "sh", "-c", command)
    job = {"name": "collect", "arguments": ["collect"], "calendar": "minutely", "user": "pgops"}
    jobs = json.dumps({"instances": [{"name": "14-main", "jobs": [job]}]})
    given = ["ansible", "pg15", "-i", str(INVENTORY), "-b", "-m", "pgops.fleet.pg_ops_schedule", "-a", jobs]
    subprocess.run(given, check=True, timeout=120)
    fleet.on("pg15", "ln", "-s", "/var/lib/pgops/14-main/export/pgops.prom", "/srv/textfile/pgops_14-main.prom")
    run = fleet.play("pgops.fleet.site", *limit)
    assert run.code == 0, run.text
    assert {task for _host, task, _item in run.changes} == {
        "Install the agent",
        "Schedule the jobs",
    }
    assert fleet.on("pg15", "ls", "/srv/textfile").split() == ["pgops_15-main.prom"]
    assert "14-main" not in fleet.on("pg15", "systemctl", "list-timers", "--all", "--no-legend", "pgops-*")
    assert fleet.play("pgops.fleet.site", *limit).changes == {}
    # What its settings were before can only be put back where it is started again.
    removed = fleet.play("pgops.fleet.remove", "--limit", "pg15")
    assert removed.code == 0, removed.text
    assert fleet.on("pg15", "ls", "/etc/pgops").split() == ["14-main"]
    assert "14-main: replaced by pg_upgradecluster" in removed.text
    assert fleet.play("pgops.fleet.site", "--limit", "pg15").code == 0
    fleet.on("pg15", "rm", "-r", "/etc/postgresql/14", "/var/lib/postgresql/14")
    for command in commands("Upgrades", db1="pg15", **{"15_main": "14-main"}):
        subprocess.run([*command, "-i", str(INVENTORY)], check=True, timeout=120)
    assert fleet.on("pg15", "ls", "/etc/pgops").split() == ["15-main"]


def test_what_is_left_of_an_instance_that_is_gone_is_removed(fleet: Fleet) -> None:
    fleet.on("pg15", "pg_createcluster", "15", "gone", "--start", "--", "--encoding=UTF8")
    settings = json.dumps({"pgops_settings": {"work_mem": "8MB"}})
    assert fleet.play("pgops.fleet.site", "--limit", "pg15", "-e", settings).code == 0
    fleet.on("pg15", "pg_dropcluster", "--stop", "15", "gone")
    agents = fleet.facts("pg15", "--become")["host"]["agents"]
    assert [agent["name"] for agent in agents] == ["15-gone", "15-main"]
    removed = fleet.play("pgops.fleet.remove", "--limit", "pg15", "-e", "pgops_purge=true")
    assert removed.code == 0, removed.text
    warned = "The server of 15-gone no longer exists. These original settings cannot be restored: work_mem."
    assert warned in " ".join(removed.text.split())
    left = "ls -d /etc/pgops /usr/local/lib/pgops /var/lib/pgops /etc/systemd/system/pgops* 2>/dev/null || true"
    assert fleet.on("pg15", "sh", "-c", left) == ""


def test_cron_starts_the_jobs_where_systemd_is_not_to(fleet: Fleet) -> None:
    # Without a collector that keeps the job for a minute, its log line comes at once.
    each_minute = {name: {"interval": 60} for name in ("activity", "blocking", "wait_events")}
    fleet.on("pg15", "mkdir", "-p", "/srv/shared/wal", "/srv/textfile")
    cron = {"pgops_schedule_backend": "cron", "pgops_collector_settings": each_minute}
    whole = json.dumps({**WHOLE, **cron, "pgops_textfile_directory": "/srv/textfile"})
    run = fleet.play("pgops.fleet.site", "--limit", "pg15", "-e", whole)
    assert run.code == 0, run.text
    assert fleet.on("pg15", "systemctl", "list-timers", "--no-legend", "pgops-*").strip() == ""
    count = "SELECT count(*) FROM pgops.system_metrics"
    fleet.wait("a round started by cron", lambda: fleet.sql("pg15", count) not in ("", "0"), 130)
    log = "cat /var/lib/pgops/15-main/state/agent.log || true"
    fleet.wait("its log line", lambda: '"ok": true' in fleet.on("pg15", "sh", "-c", log), 30)
    crontab = fleet.on("pg15", "cat", "/etc/cron.d/pgops-15-main").splitlines()
    lines = [line for line in crontab if "--scheduled" in line]
    assert {re.split(r"--scheduled (\w+)", line)[1] for line in lines} == JOBS
    for line in lines:
        *_fields, user, command = line.split(maxsplit=6)
        now = re.sub(r"sleep \d+; ", "", command.partition(" 2>&1 | logger")[0])
        busy = 75  # cron has just started it
        fleet.on("pg15", "runuser", "-u", user, "--", "sh", "-c", f"{now} || [ $? -eq {busy} ]")
    back = fleet.play("pgops.fleet.site", "--limit", "pg15")
    assert back.code == 0, back.text
    assert fleet.on("pg15", "sh", "-c", "ls /etc/cron.d | grep pgops || true") == ""
