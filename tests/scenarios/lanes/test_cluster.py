# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A primary and its standby: what they tell, one user for another, a promotion, a server that is down."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from browsing import opened
from hosts import Fleet

pytestmark = pytest.mark.xdist_group("pg17")
PAIR = ("pg17", "pg17b")


@pytest.fixture(scope="module", autouse=True)
def _deployed(fleet: Fleet) -> None:
    fleet.deployed(*PAIR)


def test_facts_are_told_to_anybody_who_may_log_in(fleet: Fleet) -> None:
    as_root = fleet.facts("pg17", "--become")
    as_postgres = fleet.facts("pg17", "--become", "--become-user", "postgres")
    for found in (as_root, as_postgres):
        (instance,) = found["instances"]
        assert (instance["name"], instance["role"]) == ("17-main", "primary")
    assert fleet.facts("pg17b", "--become")["instances"][0]["role"] == "standby"
    fleet.sql("pg17", "CREATE ROLE watcher LOGIN PASSWORD 'wa:tch'; GRANT CONNECT ON DATABASE postgres TO watcher")
    login = "login_host=127.0.0.1 login_user=watcher login_password=wa:tch"
    assert fleet.facts("pg17", "-a", login)["instances"][0]["role"] == "primary"
    fleet.sql("pg17", "DROP OWNED BY watcher; DROP ROLE watcher", "postgres")


def test_a_report_has_both_nodes_as_their_facts_have_them(fleet: Fleet, tmp_path: Path) -> None:
    for host in PAIR:
        fleet.collect(host, "17-main")
        fleet.wait("its samples in its own copy", lambda host=host: fleet.rounds(host, host, "-infinity"))
    page, document = tmp_path / "report.html", tmp_path / "report.json"
    places = {"pgops_report_path": str(page), "pgops_report_json": str(document), "pgops_report_hours": 0.5}
    done = fleet.play("pgops.fleet.report", "--limit", ",".join(PAIR), "-e", json.dumps(places))
    assert done.code == 0, done.text
    found = {one["host"]: one for one in json.loads(document.read_text())["instances"]}
    assert {host: one["facts"]["role"] for host, one in found.items()} == {"pg17": "primary", "pg17b": "standby"}
    for host, one in found.items():
        facts = fleet.facts(host, "--become")["instances"][0]
        assert one["facts"]["system_identifier"] == facts["system_identifier"]
        assert one["node"] == facts["agent"]["node"]
        assert {name: panel["error"] for name, panel in one["panels"].items() if panel["error"]} == {}
        # Each node has its own samples, the standby by its copy of what the primary stores.
        assert any(value is not None for value in one["history"]["charts"]["sessions"]["lines"][0]["values"])
    with opened(page) as visit:
        assert visit.texts("tbody td:nth-child(2)") == [
            one["id"] for one in json.loads(document.read_text())["instances"]
        ]
        for host in PAIR:
            visit.page.get_by_role("link", name=f"{host}/17-main").click()
            visit.page.wait_for_selector(".grid canvas")
            visit.page.keyboard.press("Escape")
        assert (visit.said, visit.asked) == ([], [])


def test_a_standby_whose_samples_do_not_arrive_is_told_of(fleet: Fleet) -> None:
    pair = ("--limit", "pg17,pg17b")
    alone = ("-e", '{"pgops_cluster_hosts": ["{{ inventory_hostname }}"]}')
    lonely = fleet.play("pgops.fleet.site", *pair, *alone, "--check")
    assert "no other node of its cluster is known" in " ".join(lonely.text.split())
    itself = fleet.play("pgops.fleet.site", *pair, "-e", "pgops_address=127.0.0.1")
    (failed,) = [said for said in itself.outcomes if said["code"]]
    assert (failed["host"], failed["code"]) == ("pg17b", "not_delivered")
    assert "does not arrive at 127.0.0.1:5432" in failed["msg"]
    mended = fleet.play("pgops.fleet.site", *pair)
    assert mended.code == 0, mended.text
    assert fleet.play("pgops.fleet.site", *pair).changes == {}


def test_a_removal_and_a_deployment_can_follow_each_other_in_one_run(fleet: Fleet, tmp_path: Path) -> None:
    playbook = tmp_path / "anew.yml"
    books = ("remove", "site", "remove", "site")
    playbook.write_text("".join(f"- ansible.builtin.import_playbook: pgops.fleet.{book}\n" for book in books))
    pair = ("--limit", "pg17,pg17b", "-e", '{"pgops_restart": "if_required"}')
    done = fleet.play(str(playbook), *pair)
    assert done.code == 0, done.text
    assert fleet.play("pgops.fleet.site", *pair).changes == {}
    for host in ("pg17", "pg17b"):
        fleet.collect(host, "17-main")


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


def test_a_password_of_ones_own_replaces_the_generated_one_on_all_nodes(fleet: Fleet) -> None:
    given = ("--limit", "pg17,pg17b", "-e", "pgops_password=correct-horse")
    predicted = fleet.play("pgops.fleet.site", *given, "--check")
    done = fleet.play("pgops.fleet.site", *given)
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    assert fleet.play("pgops.fleet.site", *given).changes == {}
    since = fleet.sql("pg17", "SELECT now()")
    fleet.wait("a round of the standby", lambda: fleet.rounds("pg17", "pg17b", since))


def test_a_node_that_joins_later_is_let_in(fleet: Fleet) -> None:
    assert fleet.play("pgops.fleet.remove", "--limit", "pg17b").code == 0
    joined = fleet.play("pgops.fleet.site", "--limit", "pg17,pg17b")
    assert joined.code == 0, joined.text
    assert {host for host, _task, _item in joined.changes} == {"pg17b"}
    fleet.collect("pg17b", "17-main")


@pytest.mark.slow
def test_what_a_standby_measured_outlives_its_reboot(fleet: Fleet) -> None:
    fleet.on("pg17", "systemctl", "stop", "postgresql@17-main")
    since = fleet.on("pg17b", "date", "+%Y-%m-%d %H:%M:%S%z").strip()
    kept = "cat /var/lib/pgops/17-main/state/spool.jsonl 2>/dev/null || true"
    fleet.wait("a round that cannot be delivered", lambda: fleet.on("pg17b", "sh", "-c", kept))
    booted = fleet.on("pg17b", "date", "+%Y-%m-%d %H:%M:%S%z").strip()
    fleet.reboot("pg17b")
    fleet.on("pg17", "systemctl", "start", "postgresql@17-main")
    there = "SELECT count(*) > 0 FROM pgops.system_metrics WHERE node LIKE 'pg17b/%' AND collected_at BETWEEN"
    fleet.wait("the round from before", lambda: fleet.sql("pg17", f"{there} '{since}' AND '{booted}'") == "t")
    fleet.wait("a round from after", lambda: fleet.sql("pg17", f"{there} '{booted}' AND now()") == "t")
    assert fleet.play("pgops.fleet.site", "--limit", "pg17,pg17b").changes == {}


def test_a_promoted_standby_goes_on_with_nobodys_help(fleet: Fleet) -> None:
    fleet.wait("samples of the standby", lambda: fleet.rounds("pg17", "pg17b", "-infinity"))
    fleet.on("pg17", "systemctl", "stop", "postgresql@17-main")
    fleet.on("pg17b", "pg_ctlcluster", "17", "main", "promote")
    fleet.wait("the promotion", lambda: fleet.sql("pg17b", "SELECT pg_is_in_recovery()") == "f")
    since = fleet.sql("pg17b", "SELECT now()")
    fleet.wait("a round after the promotion", lambda: fleet.rounds("pg17b", "pg17b", since), 120)
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
