# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What happens to a deployed fleet: upgrades, killed runs, several instances, cron, failover, ad hoc facts."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hosts import ROOT, Fleet

INVENTORY = str(ROOT / "build/fleet/inventory.yml")
ROUNDS = """
SELECT string_agg(DISTINCT to_char(collected_at, 'HH24:MI'), ' ') FROM pgops.system_metrics
WHERE metric_name = 'active_connections' AND node LIKE '{node}/%' AND collected_at >= '{since}'
"""


@pytest.fixture(scope="module", autouse=True)
def _deployed(fleet: Fleet) -> None:
    fleet.reset()
    run = fleet.play("pgops.fleet.site")
    assert run.code == 0, run.text


def facts(fleet: Fleet, host: str, *arguments: str) -> dict[str, Any]:
    """The facts of a host, ad hoc."""
    done = subprocess.run(
        [
            "ansible",
            host,
            "-i",
            str(ROOT / "build/fleet/inventory.yml"),
            "-m",
            "pgops.fleet.pg_ops_facts",
            *arguments,
        ],
        env={
            **os.environ,
            "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_PIPELINING": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["ansible_facts"]["pg_ops"]
    return found


def rounds(fleet: Fleet, primary: str, node: str, since: str) -> set[str]:
    """The minutes in which a node collected."""
    return set(fleet.sql(primary, ROUNDS.format(node=node, since=since)).split())


def test_facts_are_told_to_anybody_who_may_log_in(fleet: Fleet) -> None:
    as_root = facts(fleet, "pg17", "--become")
    as_postgres = facts(fleet, "pg17", "--become", "--become-user", "postgres")
    for found in (as_root, as_postgres):
        (instance,) = found["instances"]
        assert (instance["name"], instance["role"]) == ("17-main", "primary")
    assert facts(fleet, "pg17b", "--become")["instances"][0]["role"] == "standby"
    fleet.sql("pg17", "CREATE ROLE watcher LOGIN PASSWORD 'wa:tch'; GRANT CONNECT ON DATABASE postgres TO watcher")
    login = "login_host=127.0.0.1 login_user=watcher login_password=wa:tch"
    assert facts(fleet, "pg17", "-a", login)["instances"][0]["role"] == "primary"
    fleet.sql("pg17", "DROP OWNED BY watcher; DROP ROLE watcher", "postgres")


def test_an_upgrade_loses_no_round_and_leaves_the_version_before(fleet: Fleet) -> None:
    since = fleet.sql("pg18", "SELECT date_trunc('minute', now())")
    before = fleet.on("pg18", "pgops", "version")
    # Another Python makes another version of the agent.
    other = fleet.on("pg18", "readlink", "-f", "/usr/bin/python3").strip()
    current = fleet.on("pg18", "readlink", "/usr/local/lib/pgops/current")
    for interpreter in (other, "/usr/bin/python3", other):
        run = fleet.play("pgops.fleet.site", "--limit", "pg18", "-e", f"pgops_python={interpreter}")
        assert run.code == 0, run.text
        time.sleep(25)
    assert fleet.on("pg18", "readlink", "/usr/local/lib/pgops/current") != current
    assert fleet.on("pg18", "pgops", "version") == before
    versions = fleet.on("pg18", "ls", "/usr/local/lib/pgops/versions").split()
    assert len(versions) <= 2
    # The first minute may have had its round before the first upgrade, and the last may still get its.
    last = fleet.sql("pg18", "SELECT date_trunc('minute', now())")
    within = f"generate_series('{since}'::timestamptz + '1 minute', '{last}'::timestamptz, '1 minute') AS minute"
    minutes = set(fleet.sql("pg18", f"SELECT to_char(minute, 'HH24:MI') FROM {within}").split())
    assert len(minutes) >= 1
    fleet.wait("every minute's round", lambda: minutes <= rounds(fleet, "pg18", "pg18", since), 70)
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
    found = facts(fleet, "pg18", "-a", login.format("wa:tch"))["instances"][0]
    assert found["schema"]["error"]["code"] == "login_refused"
    found = facts(fleet, "pg18", "-a", login.format("wrong"))["instances"][0]
    assert (found["error"]["code"], found["running"]) == ("login_refused", True)
    fleet.sql("pg18", "DROP ROLE watcher", "postgres")
    found = facts(fleet, "pg18", "--become", "-a", "database=postgres")["instances"][0]
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


def test_two_runs_at_the_same_time_both_end_well(fleet: Fleet) -> None:
    fleet.play("pgops.fleet.remove", "--limit", "pg15")
    command = [
        "ansible-playbook",
        "-i",
        str(ROOT / "build/fleet/inventory.yml"),
        "pgops.fleet.site",
        "--limit",
        "pg15",
    ]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _run in range(2)]
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
    command = [
        "ansible-playbook",
        "-i",
        str(ROOT / "build/fleet/inventory.yml"),
        "pgops.fleet.site",
        "--limit",
        "pg15",
    ]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as run:
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
        done = subprocess.run([*command, "-i", INVENTORY], capture_output=True, text=True, timeout=120, check=False)
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
    given = ["ansible", "pg15", "-i", INVENTORY, "-b", "-m", "pgops.fleet.pg_ops_schedule", "-a", jobs]
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
        subprocess.run([*command, "-i", INVENTORY], check=True, timeout=120)
    assert fleet.on("pg15", "ls", "/etc/pgops").split() == ["15-main"]


def test_what_is_left_of_an_instance_that_is_gone_is_removed(fleet: Fleet) -> None:
    fleet.on("pg15", "pg_createcluster", "15", "gone", "--start", "--", "--encoding=UTF8")
    settings = json.dumps({"pgops_settings": {"work_mem": "8MB"}})
    assert fleet.play("pgops.fleet.site", "--limit", "pg15", "-e", settings).code == 0
    fleet.on("pg15", "pg_dropcluster", "--stop", "15", "gone")
    agents = facts(fleet, "pg15", "--become")["host"]["agents"]
    assert [agent["name"] for agent in agents] == ["15-gone", "15-main"]
    removed = fleet.play("pgops.fleet.remove", "--limit", "pg15", "-e", "pgops_purge=true")
    assert removed.code == 0, removed.text
    warned = "The server of 15-gone no longer exists. These original settings cannot be restored: work_mem."
    assert warned in " ".join(removed.text.split())
    left = "ls -d /etc/pgops /usr/local/lib/pgops /var/lib/pgops /etc/systemd/system/pgops* 2>/dev/null || true"
    assert fleet.on("pg15", "sh", "-c", left) == ""


def test_another_user_for_the_agent_takes_over_all_of_it(fleet: Fleet) -> None:
    assert fleet.play("pgops.fleet.site", "--limit", "pg17,pg17b").code == 0
    other = ("--limit", "pg17,pg17b", "-e", "pgops_user=watchdog")
    predicted = fleet.play("pgops.fleet.site", *other, "--check")
    done = fleet.play("pgops.fleet.site", *other)
    assert done.code == 0, done.text
    assert done.changes.keys() == predicted.changes.keys()
    assert fleet.play("pgops.fleet.site", *other).changes == {}
    for host in ("pg17", "pg17b"):
        fleet.collect(host, "17-main")
    assert fleet.play("pgops.fleet.site", "--limit", "pg17,pg17b").code == 0
    for host in ("pg17", "pg17b"):
        fleet.collect(host, "17-main")


def test_cron_starts_the_jobs_where_systemd_is_not_to(fleet: Fleet) -> None:
    # Without a collector that keeps the job for a minute, its log line comes at once.
    each_minute = {name: {"interval": 60} for name in ("activity", "blocking", "wait_events")}
    cron = json.dumps({"pgops_schedule_backend": "cron", "pgops_collector_settings": each_minute})
    run = fleet.play("pgops.fleet.site", "--limit", "pg15", "-e", cron)
    assert run.code == 0, run.text
    assert fleet.on("pg15", "systemctl", "list-timers", "--no-legend", "pgops-*").strip() == ""
    count = "SELECT count(*) FROM pgops.system_metrics"
    fleet.wait("a round started by cron", lambda: fleet.sql("pg15", count) not in ("", "0"), 130)
    log = "cat /var/lib/pgops/15-main/state/agent.log || true"
    fleet.wait("its log line", lambda: '"ok": true' in fleet.on("pg15", "sh", "-c", log), 30)
    back = fleet.play("pgops.fleet.site", "--limit", "pg15")
    assert back.code == 0, back.text
    assert fleet.on("pg15", "sh", "-c", "ls /etc/cron.d | grep pgops || true") == ""


def test_a_promoted_standby_goes_on_with_nobodys_help(fleet: Fleet) -> None:
    fleet.wait("samples of the standby", lambda: rounds(fleet, "pg17", "pg17b", "-infinity"))
    fleet.on("pg17", "systemctl", "stop", "postgresql@17-main")
    fleet.on("pg17b", "pg_ctlcluster", "17", "main", "promote")
    fleet.wait("the promotion", lambda: fleet.sql("pg17b", "SELECT pg_is_in_recovery()") == "f")
    since = fleet.sql("pg17b", "SELECT now()")
    fleet.wait("a round after the promotion", lambda: rounds(fleet, "pg17b", "pg17b", since), 120)
    assert fleet.sql("pg17b", "SELECT is_primary FROM pgops.node WHERE node LIKE 'pg17b/%'") == "t"
    after = fleet.play("pgops.fleet.site", "--limit", "pg17b")
    assert after.code == 0, after.text


def test_the_run_says_in_words_what_to_do_when_a_server_is_down(fleet: Fleet) -> None:
    fleet.on("pg17", "systemctl", "stop", "postgresql@17-main")
    run = fleet.play("pgops.fleet.site", "--limit", "pg17")
    assert run.code != 0
    (failed,) = [said for said in run.outcomes if said["state"] == "failed" and said["code"]]
    assert failed["code"] == "unreachable"
    assert "Start" in failed["msg"]
