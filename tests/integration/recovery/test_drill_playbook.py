# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The playbooks bring drills, make one now, tell each host's result, and take all of it away."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import binaries
import pytest
from backed import own
from servers import Server

import playbooks


def python(root: Path) -> str:
    """A Python for root, with our packages, and for the server's user, who may not read those."""
    path = root / "python3"
    path.write_text(f'#!/bin/sh\n[ "$1" != -IS ] || exec /usr/bin/python3 "$@"\nexec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)


def declared(server: Server, root: Path) -> dict[str, Any]:
    """The variables of a server of tests, on this host, with drills."""
    return {
        "pgops_instances": [{"name": "main", "port": server.port, "socket_directory": str(server.socket_dir)}],
        "pgops_prefix": str(root / "prefix"),
        "pgops_schedule_backend": "none",
        "pgops_login_user": server.superuser,
        "pgops_user": server.os_user,
        "pgops_become": False,
        "pgops_packages": [],
        "pgops_restart": "if_required",
        "pgops_repository": str(root / "base"),
        "pgops_backup": True,
        "pgops_python": python(root),
        "pgops_bin_directory": str(server.client_dir),
        "pgops_drill": True,
        "pgops_drill_interval_hours": 24,
        "pgops_drill_reserve_mb": 0,
        "pgops_drill_max_load": 0,
        "pgops_drill_amcheck": False,
        "pgops_drill_assertions": {"it is there": {"database": "postgres", "query": "SELECT count(*) = 3 FROM item"}},
    }


def test_a_host_gets_drills_and_loses_them(major: int, new_server: Callable[..., Server], root: Path) -> None:
    if major not in binaries.TOOLED:
        pytest.skip("pg_waldump reads the WAL of its own version only")
    server = new_server(major).start()
    server.psql("CREATE TABLE item AS SELECT generate_series(1, 3)")
    hosts = root / "hosts"
    hosts.write_text(f"here ansible_connection=local ansible_python_interpreter={sys.executable}\n")
    given = ["-e", json.dumps(declared(server, root))]

    def play(name: str, *more: str) -> playbooks.Run:
        return playbooks.play(hosts, root, f"pgops.fleet.{name}", *given, *more)

    run = play("site")
    assert run.code == 0, run.text
    run = play("site")
    assert (run.code, run.changes) == (0, {}), run.text
    # Below a prefix all is whose who installs it; on a host of its own it is the server's user's.
    own(root / "prefix/var/lib/pgops/main/keeping", server)
    run = play("drill")
    assert run.code != 0
    assert "No backup leads to timeline 1" in run.text
    run = play("backup")
    assert run.code == 0, run.text
    run = play("drill")
    assert run.code == 0, run.text
    assert "Passed with backup " in run.text
    results = "SELECT string_agg(status, ' ' ORDER BY completed_at) FROM pgops.restore_drills"
    assert server.value(results, "pgops") == "failed passed"
    assert server.value("SELECT recovery || ' ' || interval_hours FROM pgops.recovery_proof", "pgops") == "proven 24"
    enabled = "SELECT bool_and(is_enabled) FROM pgops.alert_rules WHERE rule_name ~ '^recovery_'"
    assert server.value(enabled, "pgops") is True
    run = play("site", "-e", "pgops_drill=false")
    assert run.code == 0, run.text
    assert server.value(enabled, "pgops") is False
    run = play("remove")
    assert run.code == 0, run.text
    assert not (root / "prefix/var/lib/pgops/main/keeping").exists()
