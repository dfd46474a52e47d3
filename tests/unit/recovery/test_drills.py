# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is decided of drills: whether one is due, where, and what came of it."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from pgops.errors import InvalidInput
from pgops.instance.configuration import Configuration
from pgops.recovery import drill, drill_options, isolation
from pgops.recovery.drill import Heard
from pgops.recovery.isolation import Production
from pgops.repository.drills import Drill

NOW = datetime(2026, 11, 30, 12, tzinfo=timezone.utc)
MADE = Drill("00000000-0000-4000-8000-000000000001", "db1/main", "db1", NOW)
THERE = Production("7", "10:00", "5432", "/data", 18, False, 100, 1, ("a", "b"), ("/space",), {"/data": (1, 2)})


def declared(**options: Any) -> drill_options.Options:
    return drill_options.options(Configuration("main", "shop", "db1/main", parts={"recovery": options}))


def known(status: str, hours: float) -> Drill:
    """A drill that began so many hours ago."""
    return replace(MADE, status=status, started_at=NOW - timedelta(hours=hours))


@pytest.mark.parametrize(
    ("drills", "expected"),
    [
        ([], True),
        ([known("passed", 20)], False),
        ([known("passed", 21)], True),
        ([known("passed", 30), known("passed", 1)], False),
        ([known("failed", 1), known("not_run", 1)], True),
    ],
)
def test_one_is_due_an_eighth_of_the_interval_earlier_than_after_it(drills: list[Drill], expected: bool) -> None:
    assert drill.due(drills, 24.0, NOW) == expected


@pytest.mark.parametrize(
    ("node", "in_recovery", "why"),
    [
        ("primary", False, ""),
        ("primary", True, "standby: the primary has drills (pgops_drill_node)"),
        ("db1/main", True, ""),
        ("db2/main", False, "db2/main has drills, and this is db1/main (pgops_drill_node)"),
    ],
)
def test_one_node_of_a_cluster_has_drills(node: str, in_recovery: bool, why: str) -> None:
    assert drill.elsewhere(declared(node=node), "db1/main", in_recovery) == why


@pytest.mark.parametrize(
    ("heard", "why", "expected"),
    [
        (Heard(), "", ("passed", "")),
        (Heard(phase="recover"), "killed", ("failed", "killed")),
        (Heard(phase="copy"), "time_limit", ("not_run", "time_limit")),
        (Heard(phase="copy"), "disk_space", ("not_run", "disk_space")),
        (Heard(phase="plan", error="there is none", kind="HostFailed"), "", ("failed", "plan")),
        (Heard(phase="plan", error="install it", kind="ToolMissing"), "", ("not_run", "programs")),
        (Heard(phase="plan", error="install it", kind="Lacking"), "", ("not_run", "programs")),
        (Heard(phase="plan", error="5 MB", kind="TooLittleSpace"), "", ("not_run", "disk_space")),
        (Heard(phase="copy", error="x: No space left on device", kind="HostFailed"), "", ("not_run", "disk_space")),
        (Heard(phase="isolation", error="a socket", kind="NotIsolated"), "", ("failed", "isolation")),
        (Heard(checks=[{"name": "a", "passed": None, "detail": ""}]), "", ("passed", "")),
        (Heard(checks=[{"name": "a", "passed": False, "detail": "b"}]), "", ("failed", "checks")),
        (Heard(checks=[{"name": "a", "passed": True, "detail": ""}]), "time_limit", ("not_run", "time_limit")),
    ],
)
def test_what_could_not_be_tried_never_passed_and_is_no_failure(
    heard: Heard, why: str, expected: tuple[str, str]
) -> None:
    assert drill.judge(heard, why)[:2] == expected


@pytest.mark.parametrize(
    "options",
    [
        {"interval_hours": 0.5},
        {"minutes": -1.0},
        {"max_load": float("nan")},
        {"reserve_mb": float("inf")},
        {"directory": "drills"},
        {"shared_buffers": "much"},
        {"assertions": {"a": "SELECT true"}},
        {"assertions": {"a": {"database": "shop"}}},
        {"assertions": {"a": {"database": "shop", "query": ""}}},
        {"assertions": {"a": {"database": "shop", "query": "SELECT true", "expect": 1}}},
    ],
)
def test_options_that_none_takes_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="pgops_drill_"):
        declared(**options)


def test_assertions_are_by_their_names() -> None:
    found = declared(assertions={"orders": {"database": "shop", "query": "SELECT true"}}).asked
    assert found == (drill_options.Assertion("orders", "shop", "SELECT true"),)


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"written": 200, "timeline": 2}, []),
        ({"slots": ("a", "b", "c")}, []),
        ({"slots": ("b",)}, ["replication slot a is gone"]),
        ({"started": "11:00"}, ["the start of the server was 10:00, and is 11:00"]),
        ({"inodes": {"/data": (1, 3)}}, ["/data is another directory"]),
        ({"spaces": ()}, ["the tablespaces was ('/space',), and is ()"]),
    ],
)
def test_production_may_work_and_not_change(after: dict[str, Any], said: list[str]) -> None:
    assert isolation.changed(THERE, replace(THERE, **after)) == said


SETTINGS = {
    **isolation.NOTHING,
    "data_directory": "/s/data",
    "hba_file": "/s/data/hba.conf",
    "unix_socket_directories": "/s/data",
    "shared_preload_libraries": '"$libdir/auto_explain", pg_stat_statements',
}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"archive_mode": "on"}, ["archive_mode is 'on'"]),
        ({"listen_addresses": "*"}, ["listen_addresses is '*'"]),
        ({"hba_file": "/etc/pg_hba.conf"}, ["hba_file is /etc/pg_hba.conf"]),
        ({"unix_socket_directories": "/run/postgresql"}, ["unix_socket_directories is /run/postgresql"]),
        ({"shared_preload_libraries": '"$libdir/pg_cron"'}, ["pg_cron is loaded"]),
    ],
)
def test_settings_that_reach_out_are_told(change: dict[str, str], said: list[str]) -> None:
    assert isolation.settings_at_fault({**SETTINGS, **change}, "/s") == said


def test_what_is_open_outside_is_told() -> None:
    there = ["/s/data/base/1", "/dev/shm/x", "/data2/a", "/data/base/1", "socket:[17]", "socket:[18]", "pipe:[17]"]
    assert isolation.outside(there, {"17"}, ("/data",)) == [
        "it has /data/base/1 open",
        "it has a socket of the network (socket:[17])",
    ]


def test_the_sockets_of_this_host_are_known() -> None:
    assert all(inode.isdigit() for inode in isolation.network_sockets())
