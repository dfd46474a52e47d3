# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What capabilities.py says is there: packages, functions of jobs, options, facts, upkeep."""

from __future__ import annotations

import dataclasses
import inspect
import re
from fnmatch import fnmatchcase

import artifact
import pytest
import yaml

from pgops import capabilities, cli
from pgops.backup import options as backup
from pgops.capabilities import ALL, JOBS, OPTIONS, REMOVAL, Capability, Job
from pgops.facts import instance
from pgops.host import calendars
from pgops.metrics import options as metrics
from pgops.metrics.collectors import SELF
from pgops.recovery import drill_options as drills
from pgops.statements import deploy as extension
from pgops.statements import options as statements

OWNERS = {
    "backup": backup.Options,
    "metrics": metrics.Options,
    "recovery": drills.Options,
    "statements": statements.Options,
}
each = pytest.mark.parametrize("capability", ALL, ids=lambda one: one.name)
each_job = pytest.mark.parametrize("job", JOBS.values(), ids=lambda one: one.name)


@each
def test_a_capability_is_a_package(capability: Capability) -> None:
    assert (artifact.LIBRARY / capability.name / "__init__.py").exists()


def roles_of(playbook: str) -> list[str]:
    """The roles of a playbook in their order, each once."""
    text = (artifact.ROOT / "playbooks" / playbook).read_text()
    return list(dict.fromkeys(re.findall(r"(?:role|name): pgops\.fleet\.(\w+)", text)))


def test_the_playbooks_bring_and_remove_each_in_its_turn() -> None:
    assert set(roles_of("site.yml")) == {"pgops_targets", *(one.role for one in ALL)}
    assert sorted(one.name for one in REMOVAL) == sorted(one.name for one in ALL)
    assert roles_of("remove.yml") == ["pgops_targets", *(one.role for one in REMOVAL)]


def test_every_module_is_in_its_action_groups() -> None:
    modules = {path.stem: path.read_text() for path in (artifact.ROOT / "plugins" / "modules").glob("*.py")}
    groups = yaml.safe_load((artifact.ROOT / "meta" / "runtime.yml").read_text())["action_groups"]
    assert set(groups["pg_ops"]) == set(modules) - {"pg_ops_door"}
    # One that logs in has to get the connection options of module_defaults.
    assert set(groups["pg_ops_server"]) == {name for name, text in modules.items() if "arguments.CONNECTION" in text}


def test_the_settings_of_a_capability_are_those_that_it_asks_for() -> None:
    params = {"max": 100, "track": "top", "compute_query_id": "on"}
    switches = dict.fromkeys(("track_planning", "track_utility", "track_io_timing"), True)
    asked = extension.wanted({**params, **switches})
    assert all(any(fnmatchcase(name, one) for one in capabilities.STATEMENTS.settings) for name in asked)


@each_job
def test_a_job_has_a_function_of_its_capability(job: Job) -> None:
    (owner,) = (one.name for one in ALL if job in one.jobs)
    # The watch has a file of its own, since the others' have sessions.
    assert job.run.startswith(f"{owner}.watch:" if job.name == "watch" else f"{owner}.job:")
    assert len(inspect.signature(cli.function(job)).parameters) == 3


@each_job
def test_a_job_can_be_scheduled_by_cron_as_well(job: Job) -> None:
    assert calendars.parse(job.cron or job.calendar).cron
    assert set(job.arguments) <= {flag.name for flag in job.flags}


def test_no_two_capabilities_have_one_job() -> None:
    assert len(JOBS) == sum(len(one.jobs) for one in ALL)


def test_options_are_those_that_their_owners_read() -> None:
    found = {name: {field.name for field in dataclasses.fields(owner)} for name, owner in OWNERS.items()}
    assert found == {name: set(options) for name, options in OPTIONS.items()}


def test_every_section_of_the_facts_of_a_capability_is_one() -> None:
    named = [section for one in ALL for section in one.facts]
    assert len(named) == len(set(named))
    assert set(named) == set(instance.SECTIONS) - set(instance.SERVER)


def test_upkeep_calls_functions_that_are_shipped() -> None:
    objects = artifact.LIBRARY / "sql" / "objects"
    for upkeep in (one for capability in ALL for one in capability.upkeep):
        (file,) = objects.rglob(f"{upkeep.function}.sql")
        assert f"-- object: function pgops.{upkeep.function}()" in file.read_text()


def test_what_jobs_measure_of_themselves_has_a_description() -> None:
    metrics_of_jobs = [metric for found in SELF.values() for metric in found.metrics]
    assert len(metrics_of_jobs) >= 9
    assert [metric.name for metric in metrics_of_jobs if not metric.help] == []
    assert all(re.search(r"-- collector: ", one.metrics) for one in capabilities.ALL if one.metrics)
