# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Which unit's restart restarts a server, and which systemd would refuse."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from pgops.host import systemd
from pgops.server import units


@pytest.mark.parametrize(
    ("cgroup", "found"),
    [
        ("0::/system.slice/postgresql.service\n", ("postgresql.service",)),
        ("0::/system.slice/system-postgresql.slice/postgresql@17-main.service\n", ("postgresql@17-main.service",)),
        ("0::/system.slice/postgresql.service/inner\n", ("postgresql.service",)),
        ("0::/user.slice/user-0.slice/session-3.scope\n", ("session-3.scope",)),
        (
            "0::/user.slice/user-26.slice/user@26.service/app.slice/pg.service\n",
            ("user@26.service", "pg.service"),
        ),
        ("4:memory:/a.service\n1:name=systemd:/system.slice/b.service\n0::/\n", ("b.service",)),
        ("0::/\n", ()),
        ("", ()),
    ],
)
def test_the_units_of_a_process_are_in_its_cgroup(cgroup, found):
    assert systemd.units_of(cgroup) == found


@pytest.mark.parametrize(
    ("state", "why"),
    [
        ({}, ""),
        ({"LoadState": "loaded", "UnitFileState": "enabled", "CanStart": "yes", "RefuseManualStop": "no"}, ""),
        ({"LoadState": "masked"}, "it is masked"),
        ({"LoadState": "loaded", "UnitFileState": "masked-runtime"}, "it is masked"),
        ({"LoadState": "not-found"}, "its file is not-found"),
        ({"LoadState": "loaded", "RefuseManualStop": "yes"}, "RefuseManualStop=yes"),
        ({"LoadState": "loaded", "RefuseManualStart": "yes"}, "RefuseManualStart=yes"),
        ({"LoadState": "loaded", "CanStop": "no"}, "CanStop=no"),
        ({"LoadState": "loaded", "CanStart": "no"}, "CanStart=no"),
    ],
)
def test_what_systemd_would_refuse(state, why):
    assert units.refusal(state) == why


def test_the_unit_of_a_server_is_that_of_its_main_process_or_of_what_started_it(monkeypatch):
    names = {10: "sh", 20: "postgres", 30: "cron", 40: "node"}
    parents = {20: 10, 10: 1, 1: 0, 21: 20, 40: 10}
    monkeypatch.setattr(units, "_parent", lambda process: parents.get(process, 0))
    monkeypatch.setattr(units, "name", lambda process: names.get(process, ""))
    monkeypatch.setattr(units, "_cgroup", lambda process: "there" if process in inside else "")
    monkeypatch.setattr(units.os, "listdir", lambda _path: ["self", *map(str, inside)])
    inside = [10, 20, 21]
    active = {"ActiveState": "active"}
    assert units.unit_of("a.service", {**active, "MainPID": "20"}, 20, "there") == ("a.service", "")
    assert units.unit_of("a.service", {**active, "MainPID": "10"}, 20, "there") == ("a.service", "")
    assert units.unit_of("a.service", {**active, "MainPID": "0"}, 20, "there") == ("a.service", "")
    unit, why = units.unit_of("a.service", {**active, "MainPID": "30"}, 20, "there")
    assert (unit, "whose main process (cron) did not start it" in why) == ("", True)
    unit, why = units.unit_of("a.service", {"ActiveState": "failed", "MainPID": "0"}, 20, "there")
    assert (unit, "which is failed" in why) == ("", True)
    inside.append(40)
    unit, why = units.unit_of("a.service", {**active, "MainPID": "10"}, 20, "there")
    assert (unit, "but also node" in why) == ("", True)


def test_processes_are_known_by_what_started_them():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        assert units.ancestors(child.pid)[:2] == [os.getpid(), os.getppid()]
        assert units.ancestors(child.pid)[-1] in (0, 1)
        assert units.name(child.pid).startswith("python")
        child.kill()
    assert units.name(child.pid) == ""
