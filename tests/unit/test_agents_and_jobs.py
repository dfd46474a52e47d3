# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the inventory's variables mean for agents and jobs; the command line gives all of them as texts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

pytest.importorskip("ansible.errors", reason="filters run on the controller only")

from ansible.errors import AnsibleFilterError

from ansible_collections.pgops.fleet.plugins.filter import capabilities
from ansible_collections.pgops.fleet.plugins.filter.capabilities import (
    agents,
    capability_variables,
    schedules,
    switched_on,
)
from ansible_collections.pgops.fleet.plugins.module_utils._pgops.capabilities import JOBS, REPOSITORY

LOCAL: dict[str, Any] = {
    "name": "17-main",
    "host": "",
    "port": 5432,
    "socket_directory": "/run/postgresql",
    "cluster": "orders",
    "node": "db1/17-main",
    "peers": [],
    "owner": "postgres",
}
REMOTE = {**LOCAL, "name": "far", "host": "far.example.org", "owner": "", "ssl_mode": "verify-full", "ca_cert": "/ca"}
PLACE = {"database": "pgops", "ssl_mode": "require", "ca_cert": "", "superuser": ""}


def jobs(target: dict[str, Any], declared: Any = (), backend: str = "systemd", **variables: Any) -> dict[str, Any]:
    """The jobs of an instance by their names."""
    (made,) = schedules([target], variables, dict(declared), "pgops", backend)
    assert made["name"] == target["name"]
    return {job["name"]: job for job in made["jobs"]}


@pytest.mark.parametrize("value", [True, "true", "True", "yes", "on", 1, "1", "/srv/wal", {"work_mem": "8MB"}])
def test_what_switches_a_capability_on(value):
    assert switched_on(value)


@pytest.mark.parametrize("value", [False, "false", "False", "no", "off", 0, "0", "", None, {}, "None", " FALSE "])
def test_what_does_not(value):
    assert not switched_on(value)


def test_jobs_are_those_of_what_is_switched_on():
    assert set(jobs(LOCAL)) == {"collect", "maintain", "inspect", "alerts", "watch"}
    assert "alerts" in jobs(LOCAL, pgops_alerting="")
    assert "alerts" not in jobs(LOCAL, pgops_alerting="false")
    addresses = {"desk": {"mail": "mailto://dba@example.com"}}
    assert "notify" in jobs(LOCAL, pgops_alert_addresses=addresses)
    assert "notify" not in jobs(LOCAL, pgops_alert_addresses=addresses, pgops_alerting="false")
    assert "notify" not in jobs(LOCAL, pgops_alert_addresses={})
    assert "queries" in jobs(LOCAL, pgops_statements="true")
    assert "queries" not in jobs(LOCAL, pgops_statements="false")
    assert "catalogue" in jobs(LOCAL, pgops_repository="/srv/wal")
    assert "export" in jobs(LOCAL, pgops_textfile_directory="/srv/textfile")


def test_jobs_of_the_servers_user_run_as_it_and_a_remote_instance_has_none():
    everything = {"pgops_statements": True, "pgops_repository": "/srv/wal", "pgops_textfile_directory": "/srv"}
    own = jobs({**LOCAL, "owner": "pg"}, **everything)
    assert {name for name, job in own.items() if job["user"] == "pg"} == {"inspect", "catalogue"}
    assert {job["user"] for job in own.values()} == {"pg", "pgops"}
    assert {job["user"] for job in jobs({**LOCAL, "owner": ""}).values()} == {"pgops", "postgres"}
    assert agents([{**LOCAL, "owner": ""}], {}, PLACE, {})[0]["owner"] == "postgres"
    assert set(jobs(REMOTE, **everything)) == {"collect", "maintain", "alerts", "watch", "queries", "export"}


def test_a_job_writes_into_the_repository_only_where_it_stores_something_there(monkeypatch):
    found = jobs(LOCAL, pgops_repository="/srv/wal/")
    assert {name: job["writable"] for name, job in found.items() if job["writable"]} == {}
    storing = dataclasses.replace(JOBS["catalogue"], stores=True)
    monkeypatch.setattr(capabilities, "ALL", [dataclasses.replace(REPOSITORY, jobs=(storing,))])
    assert jobs(LOCAL, pgops_repository="/srv/wal/")["catalogue"]["writable"] == ["/srv/wal/orders"]


def test_drills_are_made_in_the_background_and_without_network_unless_backups_are_elsewhere():
    on = {"pgops_repository": "/srv/wal", "pgops_backup": True, "pgops_drill": True}
    assert "drill" not in jobs(LOCAL, **{**on, "pgops_backup": False})
    assert "drill" not in jobs(LOCAL, **{**on, "pgops_drill": ""})
    found = jobs(LOCAL, pgops_drill_directory="/srv/drills", **on)
    assert found["drill"]["writable"] == ["/srv/wal/orders", "/srv/drills"]
    assert (found["drill"]["background"], found["drill"]["network"]) == (True, False)
    assert (found["backup"]["background"], found["backup"]["network"]) == (False, True)
    assert jobs(LOCAL, pgops_backup_engine="pgbackrest", **on)["drill"]["network"]


def test_times_are_the_inventorys_where_it_has_any():
    declared = {
        "inspect": {"calendar": "hourly", "enabled": "false"},
        "nightly": {"arguments": ["x"], "calendar": "1:00"},
    }
    found = jobs(LOCAL, declared)
    assert (found["inspect"]["calendar"], found["inspect"]["enabled"]) == ("hourly", "false")
    assert found["inspect"]["time_limit"] == jobs(LOCAL)["inspect"]["time_limit"]
    assert (found["nightly"]["user"], found["nightly"]["arguments"]) == ("pgops", ["x"])


def test_cron_gets_calendars_that_it_knows():
    assert jobs(LOCAL, pgops_textfile_directory="/srv")["export"]["calendar"] == "*:*:30"
    assert jobs(LOCAL, backend="cron", pgops_textfile_directory="/srv")["export"]["calendar"] == "minutely"


@pytest.mark.parametrize(
    ("declared", "said"),
    [
        ([{"name": "collect"}], "pgops_jobs maps the names of jobs"),
        ({"collect": {"calender": "daily"}}, "did you mean calendar"),
        ({"collect": {"arguments": ["x"]}}, "arguments"),
        ({"colect": {"calendar": "daily"}}, "colect is not one of collect"),
        ({"collect": "daily"}, "is not a mapping"),
    ],
)
def test_times_that_say_nothing_are_refused(declared, said):
    with pytest.raises(AnsibleFilterError, match=said):
        schedules([LOCAL], {}, declared, "pgops")


def test_what_was_superseded_has_no_jobs():
    assert schedules([LOCAL], {}, {}, "pgops", "systemd", ["15-main"])[1:] == [{"name": "15-main", "jobs": []}]


def test_options_have_their_types_whatever_the_command_line_gives():
    variables = {
        "pgops_slow_query_ms": "250",
        "pgops_explain": "true",
        "pgops_query_texts": "no",
        "pgops_repository": "",
    }
    (made,) = agents([LOCAL], variables, PLACE, {})
    assert made["capabilities"] == {"statements": {"slow_query_ms": 250.0, "explain": True, "query_texts": False}}
    assert (made["repository"], made["password"], made["ssl_mode"]) == ("", None, "require")
    with pytest.raises(AnsibleFilterError, match="pgops_slow_query_ms has to be of the type float"):
        agents([LOCAL], {"pgops_slow_query_ms": "much"}, PLACE, {})


def test_a_default_is_the_same_whether_or_not_it_is_seen():
    seen = {
        "pgops_metric_retention": {},
        "pgops_query_texts": "true",
        "pgops_slow_query_ms": 1000,
        "pgops_explain": "no",
    }
    assert agents([LOCAL], seen, PLACE, {}) == agents([LOCAL], {}, PLACE, {})


def test_a_remote_instance_has_its_own_encryption_and_neither_repository_nor_plans():
    variables = {"pgops_explain": True, "pgops_repository": "/srv/wal"}
    local, remote = agents([LOCAL, REMOTE], variables, PLACE, {"far": "secret"})
    assert (local["repository"], local["capabilities"]) == ("/srv/wal/orders", {"statements": {"explain": True}})
    assert (remote["repository"], remote["capabilities"]) == ("", {})
    assert (remote["ssl_mode"], remote["ca_cert"], remote["password"]) == ("verify-full", "/ca", "secret")


def test_the_variables_are_those_of_all_capabilities():
    assert {"pgops_statements", "pgops_repository", "pgops_textfile_directory", "pgops_explain"} <= {
        *capability_variables()
    }


@pytest.mark.parametrize(
    ("target", "declared", "places"),
    [
        ({"role": "primary"}, {}, None),
        ({"role": "standby"}, {}, ["db2:5433"]),
        ({"role": "standby", "peers": []}, {}, []),
        ({"role": "standby"}, {"collect": {"enabled": False}}, None),
        ({"role": "standby"}, {"collect": {"enabled": "no"}}, None),
    ],
)
def test_the_samples_of_a_standby_have_to_arrive(target, declared, places):
    (made,) = schedules([{**LOCAL, "peers": [{"host": "db2", "port": 5433}], **target}], {}, declared, "pgops")
    assert made.get("delivers_to") == places
