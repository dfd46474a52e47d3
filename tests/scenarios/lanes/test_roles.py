# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Each role alone, and parts of site.yml by tags: what is not asked for is left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hosts import Fleet

from playbooks import Run

HOST = "pg18"
pytestmark = pytest.mark.xdist_group(HOST)
ALONE = """
- name: One role
  hosts: pg18
  become: true
  gather_facts: false
  tasks:
    - name: Import it
      ansible.builtin.import_role:
        name: pgops.fleet.{role}
"""


@pytest.fixture(scope="module", autouse=True)
def _bare(fleet: Fleet) -> None:
    """Hosts that have nothing of ours; other scenarios leave standbys promoted and servers stopped."""
    fleet.reset(HOST)
    fleet.on(HOST, "mkdir", "-p", "/srv/shared/roles")


def alone(fleet: Fleet, folder: Path, role: str, *arguments: str, **variables: object) -> Run:
    """A run of one role, as of a playbook of somebody's own."""
    playbook = folder / f"{role}.yml"
    playbook.write_text(ALONE.format(role=role))
    run = fleet.play(str(playbook), "-e", json.dumps(variables), *arguments)
    assert run.code == 0, run.text
    return run


def tasks(run: Run) -> set[str]:
    """The tasks that changed something."""
    return {task for _host, task, _item in run.changes}


ROLES = [
    ("pgops_settings", {"pgops_settings": {"work_mem": "9MB"}}, "SHOW work_mem", "9MB"),
    ("pgops_agent", {"pgops_repository": "/srv/shared/roles"}, "SELECT 1", "1"),
    ("pgops_monitoring", {}, "SELECT count(*) FROM pg_database WHERE datname = 'pgops'", "1"),
    ("pgops_alerting", {}, "SELECT 1", "1"),
    (
        "pgops_statements",
        {"pgops_restart": "if_required"},
        "SELECT current_setting('shared_preload_libraries') || count(*) FROM pg_stat_statements_info",
        "pg_stat_statements1",
    ),
    (
        "pgops_archiving",
        {"pgops_repository": "/srv/shared/roles", "pgops_restart": "if_required"},
        "SELECT current_setting('archive_mode') || (archived_count > 0) FROM pg_stat_archiver",
        "ontrue",
    ),
    ("pgops_schedule", {}, "SELECT 1", "1"),
]


@pytest.mark.parametrize(("role", "variables", "query", "value"), ROLES, ids=[role for role, *_rest in ROLES])
def test_a_role_alone_does_its_part(
    fleet: Fleet, tmp_path: Path, role: str, variables: dict[str, object], query: str, value: str
) -> None:
    predicted = alone(fleet, tmp_path, role, "--check", **variables)
    done = alone(fleet, tmp_path, role, **variables)
    assert done.changes
    assert done.changes == predicted.changes
    database = "pgops" if role == "pgops_statements" else "postgres"
    assert fleet.sql(HOST, query, database) == value
    assert alone(fleet, tmp_path, role, **variables).changes == {}


def test_all_roles_together_are_what_site_brings(fleet: Fleet) -> None:
    together = {name: value for _role, variables, *_rest in ROLES for name, value in variables.items()}
    declared = json.dumps({**together, "pgops_statements": True})
    run = fleet.play("pgops.fleet.site", "--limit", HOST, "-e", declared)
    assert run.code == 0, run.text
    # The jobs and alert rules of statements, and the jobs of the repository, were not switched on for a role alone.
    assert tasks(run) == {"Schedule the jobs", "Install alert rules, channels and maintenance windows"}


@pytest.mark.parametrize(
    ("tags", "changed"),
    [("settings", {"Apply the server settings"}), ("monitoring", {"Create or update the ops database"})],
)
def test_tags_choose_parts_of_site(fleet: Fleet, tags: str, changed: set[str]) -> None:
    together = {name: value for _role, variables, *_rest in ROLES for name, value in variables.items()}
    settings = {"work_mem": "9MB", "maintenance_work_mem": "70MB"}
    other = {
        "pgops_settings": settings,
        "pgops_retention_days": 29,
        "pgops_statements": "yes",
        "pgops_lists": "replace",
    }
    run = fleet.play("pgops.fleet.site", "--limit", HOST, "--tags", tags, "-e", json.dumps({**together, **other}))
    assert run.code == 0, run.text
    assert tasks(run) == changed
    # With the others, since a list of libraries is replaced as a whole.
    assert fleet.sql(HOST, "SHOW shared_preload_libraries", "postgres") == "pg_stat_statements"


def test_what_is_switched_off_by_a_text_is_off(fleet: Fleet) -> None:
    for name in ("pgops_statements", "pgops_repository"):
        run = fleet.play("pgops.fleet.site", "--limit", HOST, "--check", "-e", f"{name}=", "-e", f"{name}=false")
        assert run.code == 0, run.text


def test_the_run_goes_on_where_a_server_listens_now(fleet: Fleet) -> None:
    together = {name: value for _role, variables, *_rest in ROLES for name, value in variables.items()}
    settings = {"work_mem": "9MB", "maintenance_work_mem": "70MB", "port": 5433}
    declared = json.dumps({**together, "pgops_settings": settings, "pgops_statements": True})
    arguments = ("--limit", HOST, "-e", declared)
    predicted = fleet.play("pgops.fleet.site", *arguments, "--check")
    done = fleet.play("pgops.fleet.site", *arguments)
    assert done.code == 0, done.text
    assert done.changes == predicted.changes
    assert {"Apply the server settings", "Install the agent"} <= tasks(done)
    assert [said["state"] for said in done.outcomes if said["task"] == "Check that WAL is archived"][-1] == "ok"
    fleet.collect(HOST, "18-main")
    second = fleet.play("pgops.fleet.site", *arguments)
    assert (second.code, second.changes) == (0, {})
    # Who has declared where it was is not wrong.
    named = ("-e", json.dumps({"pgops_instances": [{"name": "18-main", "port": 5432}]}))
    third = fleet.play("pgops.fleet.site", *arguments, *named, "--check")
    assert (third.code, third.changes) == (0, {})
    removed = fleet.play("pgops.fleet.remove", "--limit", HOST, "-e", "pgops_restart=if_required")
    assert removed.code == 0, removed.text
    assert fleet.sql(HOST, "SHOW port", "postgres") == "5432"
