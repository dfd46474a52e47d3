# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Settings over a fleet: in the right order, stopped by the first failure, finished after a kill, and taken back."""

from __future__ import annotations

import json
import os
import signal
import subprocess

import pytest
from hosts import INVENTORY, Fleet

from playbooks import Run

pytestmark = pytest.mark.xdist_group("pg17")
PAIR = ("--limit", "pg17,pg17b")
WAITS = "Report what the host waits for"
STANDBY_FIRST = [
    ("pg17b", "Apply the server settings"),
    ("pg17", "Apply the server settings"),
]


@pytest.fixture(scope="module", autouse=True)
def _deployed(fleet: Fleet) -> None:
    fleet.deployed("pg17", "pg17b")


def site(fleet: Fleet, *arguments: str, **settings: object) -> Run:
    """A run of site.yml that may restart servers."""
    declared = json.dumps({"pgops_settings": settings, "pgops_restart": "if_required"})
    return fleet.play("pgops.fleet.site", *PAIR, "--diff", "-e", declared, *arguments)


def order(run: Run) -> list[tuple[str, str]]:
    """The hosts whose settings were changed, in their order."""
    return [(said["host"], said["task"]) for said in run.outcomes if said["changed"]]


def show(fleet: Fleet, name: str) -> list[str]:
    return [fleet.sql(host, f"SHOW {name}", "postgres") for host in ("pg17", "pg17b")]


def automatic(fleet: Fleet) -> list[str]:
    path = "/var/lib/postgresql/17/main/postgresql.auto.conf"
    return [fleet.on(host, "cat", path) for host in ("pg17", "pg17b")]


def test_raised_on_standbys_first_and_lowered_on_primaries_first(fleet: Fleet) -> None:
    raised = {"max_connections": 120, "work_mem": "8MB"}
    predicted = site(fleet, "--check", **raised)
    done = site(fleet, **raised)
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    assert order(done) == STANDBY_FIRST
    assert show(fleet, "max_connections") == ["120", "120"]
    second = site(fleet, **raised)
    assert (second.code, second.changes) == (0, {})
    assert max(second.modules.values()) <= 8
    lowered = {"max_connections": 90, "work_mem": "8MB"}
    predicted = site(fleet, "--check", **lowered)
    done = site(fleet, **lowered)
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    assert order(done) == STANDBY_FIRST[::-1]
    assert show(fleet, "max_connections") == ["90", "90"]
    assert site(fleet, **lowered).changes == {}


def test_a_primary_waits_for_a_standby_that_the_run_does_not_reach(fleet: Fleet) -> None:
    declared = json.dumps({"pgops_settings": {"max_connections": 92}, "pgops_restart": "if_required"})
    alone = ("--limit", "pg17", "-e", declared)
    refused = fleet.play("pgops.fleet.site", *alone)
    (failed,) = [said for said in refused.outcomes if said["code"]]
    assert (failed["host"], failed["code"]) == ("pg17", "conflict")
    assert "pg17b runs with max_connections = 90" in failed["msg"]
    assert "pgops_nodes_gone" in failed["msg"]
    without = fleet.play("pgops.fleet.site", *alone, "--check", "-e", '{"pgops_nodes_gone": ["pg17b"]}')
    assert ("pg17", "Apply the server settings", "17-main") in without.changes
    # Both are in the run, and the standby is lost where it is its turn.
    lost = "ansible_port={{ 1 if pgops_settings_role | default('') == 'standby' else 22 }}"
    assert fleet.play("pgops.fleet.site", *PAIR, "-e", declared, "-e", lost).code != 0
    # So it is from the beginning, and what can be asked of its server still is.
    away = "ansible_port={{ 1 if inventory_hostname == 'pg17b' else 22 }}"
    done = fleet.play("pgops.fleet.site", *PAIR, "-e", declared, "-e", away)
    assert ("pg17b", "unreachable") in [(said["host"], said["state"]) for said in done.outcomes]
    assert [said["host"] for said in done.outcomes if said["code"] == "conflict"] == ["pg17"]
    assert show(fleet, "max_connections") == ["90", "90"]


def test_statements_are_counted_after_one_restart(fleet: Fleet) -> None:
    declared = {"max_connections": 95, "work_mem": "8MB"}
    wanted = ("-e", '{"pgops_statements": true}')
    predicted = site(fleet, "--check", *wanted, **declared)
    done = site(fleet, *wanted, **declared)
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    assert show(fleet, "shared_preload_libraries") == ["pg_stat_statements"] * 2
    assert show(fleet, "max_connections") == ["95", "95"]
    assert int(fleet.sql("pg17", "SELECT count(*) FROM public.pg_stat_statements")) > 0
    there = "SELECT to_regclass('public.pg_stat_statements') IS NOT NULL"
    fleet.wait("the extension on the standby", lambda: fleet.sql("pg17b", there) == "t")
    assert int(fleet.sql("pg17b", "SELECT count(*) FROM public.pg_stat_statements")) > 0
    second = site(fleet, *wanted, **declared)
    assert (second.code, second.changes) == (0, {})
    assert max(second.modules.values()) <= 8


def test_the_first_host_that_fails_stops_the_roll(fleet: Fleet) -> None:
    before = automatic(fleet)
    done = site(fleet, shared_buffers="7TB")
    assert done.code != 0
    (failed,) = [said for said in done.outcomes if said["code"]]
    assert (failed["host"], failed["code"]) == ("pg17b", "settings_refused")
    assert "cannot be allocated" in failed["msg"]
    assert automatic(fleet) == before
    assert show(fleet, "shared_buffers") == ["128MB", "128MB"]
    assert fleet.sql("pg17b", "SELECT pg_is_in_recovery()", "postgres") == "t"


def test_a_primary_that_fails_leaves_its_standby_as_it_is_to_be(fleet: Fleet) -> None:
    only_there = "{{ '7TB' if inventory_hostname == 'pg17' else '128MB' }}"
    done = site(fleet, "-e", "pgops_serial=2", shared_buffers=only_there, work_mem="9MB")
    assert done.code != 0
    (failed,) = [said for said in done.outcomes if said["code"]]
    assert (failed["host"], failed["code"]) == ("pg17", "settings_refused")
    assert show(fleet, "shared_buffers") == ["128MB", "128MB"]
    assert show(fleet, "work_mem") == ["8MB", "9MB"]
    mended = site(fleet, "-e", "pgops_serial=2", work_mem="8MB")
    assert mended.code == 0, mended.text
    assert show(fleet, "work_mem") == ["8MB", "8MB"]


def test_a_run_killed_while_the_server_is_down_is_repaired_by_the_next(fleet: Fleet) -> None:
    declared = json.dumps({"pgops_settings": {"max_connections": 130}, "pgops_restart": "if_required"})
    command = ["ansible-playbook", "-i", str(INVENTORY), "pgops.fleet.site"]
    with subprocess.Popen(
        [*command, *PAIR, "-e", declared],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as run:
        journal = "/var/lib/pgops/17-main/settings.journal.json"
        down = f"until grep -qs 'restarting.*true' {journal}; do sleep 0.01; done; pkill -9 -f '[A]nsiballZ'"
        fleet.on("pg17b", "sh", "-c", f"{down}; systemctl stop postgresql@17-main")
        os.killpg(run.pid, signal.SIGKILL)
    predicted = site(fleet, "--check", max_connections=130)
    assert ("pg17b", "Install the agent", "") in predicted.changes
    done = site(fleet, max_connections=130)
    assert done.code == 0, done.text
    assert done.changes[("pg17b", "Install the agent", "")] == predicted.changes[("pg17b", "Install the agent", "")]
    assert show(fleet, "max_connections") == ["130", "130"]
    assert site(fleet, max_connections=130).changes == {}


def test_removal_puts_back_what_was_there(fleet: Fleet) -> None:
    restarting = (*PAIR, "-e", "pgops_restart=if_required")
    predicted = fleet.play("pgops.fleet.remove", *restarting, "--check", "--diff")
    assert predicted.code == 0, predicted.text
    fleet.sql("pg17b", "ALTER SYSTEM SET recovery_min_apply_delay = '1h'", "postgres")
    fleet.sql("pg17b", "SELECT pg_reload_conf()", "postgres")
    # Only commits are replayed late, and what comes after them.
    fleet.sql("pg17", "CREATE TABLE something (); DROP TABLE something", "postgres")
    late = fleet.play("pgops.fleet.remove", *restarting, "--diff")
    (failed,) = [said for said in late.outcomes if said["task"] == WAITS and said["state"] == "failed"]
    assert (late.code != 0, failed["host"]) == (True, "pg17b")
    assert "keeps max_connections = 130 (primary: 130)" in failed["msg"]
    assert "recovery_min_apply_delay = 1h" in failed["msg"]
    assert show(fleet, "max_connections") == ["100", "130"]
    there = ("sh", "-c", "test -e /usr/local/bin/pgops && echo there || true")
    assert [fleet.on(host, *there).strip() for host in ("pg17", "pg17b")] == ["", "there"]
    fleet.sql("pg17b", "ALTER SYSTEM RESET recovery_min_apply_delay", "postgres")
    fleet.sql("pg17b", "SELECT pg_reload_conf()", "postgres")
    removed = fleet.play("pgops.fleet.remove", *restarting, "--diff")
    assert removed.code == 0, removed.text
    assert fleet.on("pg17b", *there).strip() == ""
    assert {key for run in (late, removed) for key in run.changes} == predicted.changes.keys()
    assert show(fleet, "max_connections") == ["100", "100"]
    assert show(fleet, "work_mem") == ["4MB", "4MB"]
    assert show(fleet, "shared_preload_libraries") == ["", ""]
    assert fleet.sql("pg17", "SELECT count(*) FROM pg_extension WHERE extname LIKE 'pg_stat%'") == "0"
