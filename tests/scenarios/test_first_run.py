# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""From pristine hosts: what check mode predicts, a run changes, and a second run does not; removal leaves nothing."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hosts import HOSTS, Fleet, Run

SECONDS_TO_FIRST_SAMPLES = 120
OF_JOBS = re.compile(
    r"/var/lib/pgops/[^/]+/((state|keeping|inspection|export)/|(delivered\.json|deployments\.jsonl)$)"
)
"""What jobs write, which may have begun, what a standby notes once it has proved that its samples arrive, and what
modules note of their changes."""


@pytest.fixture(scope="module", name="pristine")
def _pristine(fleet: Fleet) -> dict[str, list[str]]:
    fleet.reset()
    return fleet.states()


@pytest.fixture(scope="module", name="predicted")
def _predicted(fleet: Fleet, pristine: dict[str, list[str]]) -> Run:
    run = fleet.play("pgops.fleet.site", "--check", "--diff")
    assert run.code == 0, run.text
    assert fleet.states() == pristine, "check mode changed something"
    return run


@pytest.fixture(scope="module", name="first")
def _first(fleet: Fleet, predicted: Run) -> Run:
    run = fleet.play("pgops.fleet.site", "--diff")
    assert run.code == 0, run.text
    return run


def test_a_run_changes_exactly_what_check_mode_predicted(predicted: Run, first: Run) -> None:
    assert predicted.changes
    assert first.changes == predicted.changes


@pytest.fixture(scope="module", name="reached")
def _reached(fleet: Fleet, first: Run) -> dict[str, list[str]]:
    """The hosts as the first run left them."""
    assert first.changes
    return fleet.states()


def subjects(run: Run, host: str) -> set[tuple[str, str]]:
    """What a run is to change on a host, each with its kind: file /etc/x, role pgops."""
    plans = [changes for (where, _task, _item), changes in run.changes.items() if where == host]
    whole = [change["subject"].partition(" ") for changes in plans for change in changes]
    return {(kind, name) for kind, _space, name in whole}


def places(lines: list[str]) -> set[str]:
    """The files, directories and links of a host's state."""
    return {line.split(" ")[0].rstrip("/") for line in lines if line.startswith("/")}


@pytest.mark.parametrize("host", HOSTS)
def test_what_appears_on_a_host_was_predicted(
    predicted: Run, pristine: dict[str, list[str]], reached: dict[str, list[str]], host: str
) -> None:
    named = subjects(predicted, host)
    files = {name for kind, name in named if kind in ("file", "directory", "link")}
    programs = tuple(f"/usr/local/lib/pgops/versions/{name}" for kind, name in named if kind == "agent")
    appeared = places(reached[host]) - places(pristine[host])
    others = {path for path in appeared - files if not path.startswith(programs) and not OF_JOBS.match(path)}
    assert (others, files - places(reached[host])) == (set(), set())
    if host != "pg17b":  # it has the roles and databases of its primary
        for kind in ("role", "database"):
            found = {
                line.split("|")[1] for line in set(reached[host]) - set(pristine[host]) if line.startswith(f"{kind}|")
            }
            assert found == {name for other, name in named if other == kind}


def test_a_second_run_changes_nothing_with_few_modules(fleet: Fleet, first: Run) -> None:
    assert first.changes
    second = fleet.play("pgops.fleet.site", "--diff")
    assert second.code == 0, second.text
    assert second.changes == {}
    assert set(second.modules) == set(HOSTS)
    assert max(second.modules.values()) <= 8


def test_samples_arrive_from_every_node_by_themselves(fleet: Fleet, first: Run) -> None:
    assert first.changes
    for primary, nodes in (("pg15", 1), ("pg17", 2), ("pg18", 1)):
        fleet.wait(
            f"samples of six metrics from {nodes} nodes on {primary}",
            lambda primary=primary, nodes=nodes: (
                fleet.sql(
                    primary,
                    "SELECT count(*) FROM (SELECT DISTINCT node, metric_name FROM pgops.system_metrics "
                    "WHERE metric_name IN ('database_size_mb', 'active_connections', 'waiting_locks', 'deadlocks', "
                    "'cache_hit_ratio', 'table_size_mb')) AS seen",
                )
                == str(6 * nodes)
            ),
            SECONDS_TO_FIRST_SAMPLES,
        )


def without(lines: list[str], *names: str) -> list[str]:
    """Lines that name none of the words."""
    return [line for line in lines if not any(f"|{name}|" in line for name in names)]


def test_removal_leaves_the_hosts_as_found_but_for_what_was_collected(
    fleet: Fleet, first: Run, pristine: dict[str, list[str]]
) -> None:
    assert first.changes
    predicted = fleet.play("pgops.fleet.remove", "--check", "--diff")
    removed = fleet.play("pgops.fleet.remove", "--diff")
    assert removed.code == 0, removed.text
    assert removed.changes == predicted.changes
    kept = ("pgops", "pgops_operator", "pgops_owner", "pgops_reader")
    after = {host: without(lines, *kept) for host, lines in fleet.states().items()}
    assert after == pristine
    assert int(fleet.sql("pg17", "SELECT count(*) FROM pgops.system_metrics")) > 0
    assert fleet.sql("pg17", "SELECT count(*) FROM pg_roles WHERE rolname = 'pgops'") == "0"
    assert fleet.play("pgops.fleet.remove").changes == {}


def test_what_was_kept_is_taken_up_again_and_purged_when_asked(
    fleet: Fleet, first: Run, pristine: dict[str, list[str]]
) -> None:
    assert first.changes
    before = int(fleet.sql("pg17", "SELECT count(*) FROM pgops.system_metrics"))
    again = fleet.play("pgops.fleet.site")
    assert again.code == 0, again.text
    assert int(fleet.sql("pg17", "SELECT count(*) FROM pgops.system_metrics")) >= before
    assert fleet.play("pgops.fleet.site").changes == {}
    purged = fleet.play("pgops.fleet.remove", "-e", "pgops_purge=true")
    assert purged.code == 0, purged.text
    assert fleet.states() == pristine


def test_facts_are_told_of_bare_hosts(fleet: Fleet, pristine: dict[str, Any]) -> None:
    assert pristine
    run = fleet.play("pgops.fleet.facts")
    assert run.code == 0, run.text
    assert run.changes == {}
