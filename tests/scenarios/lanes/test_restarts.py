# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server is restarted by what started it, or not stopped at all."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
from hosts import INVENTORY, Fleet

pytestmark = pytest.mark.xdist_group("pg15")
HOST = "pg15"
UNIT = "postgresql@15-main.service"
START = "/etc/postgresql/15/main/start.conf"
SERVER = (
    "/usr/lib/postgresql/15/bin/postgres -D /var/lib/postgresql/15/main "
    "-c config_file=/etc/postgresql/15/main/postgresql.conf"
)
WRAPPED = f"""
[Service]
User=postgres
ExecStart=/bin/sh -c 'sleep 1; {SERVER}; true'
KillSignal=SIGINT
"""
STARTED = """
[Service]
User=postgres
ExecStart=/bin/sh -c '/usr/lib/postgresql/15/bin/pg_ctl -w -D /var/lib/postgresql/15/main -l /tmp/started.log \
-o "-c config_file=/etc/postgresql/15/main/postgresql.conf" start; exec sleep 9999'
KillMode=process
"""


@pytest.fixture(scope="module", autouse=True)
def _pristine(fleet: Fleet) -> None:
    fleet.reset(HOST)


def settings(fleet: Fleet, connections: int, check: bool = False) -> dict[str, Any]:
    """What pg_ops_settings returns, or its error."""
    arguments = {"settings": {"max_connections": connections}, "restart": "if_required", "instance": "15-main"}
    command = ["ansible", HOST, "-i", str(INVENTORY), "-b", "-m", "pgops.fleet.pg_ops_settings"]
    done = subprocess.run(
        [*command, "-a", json.dumps(arguments), *(["--check"] if check else [])],
        env={**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    # Newer versions of Ansible print the error and the task first.
    found, _end = json.JSONDecoder().raw_decode(done.stdout.partition(" => ")[2])
    return dict(found)


def postmaster(fleet: Fleet) -> str:
    return fleet.on(HOST, "head", "-n1", "/var/lib/postgresql/15/main/postmaster.pid").strip()


def unit_of(fleet: Fleet) -> str:
    """The unit in whose cgroup the server is."""
    found = re.findall(
        r"([^/\n]+\.(?:service|scope))$", fleet.on(HOST, "cat", f"/proc/{postmaster(fleet)}/cgroup"), re.M
    )
    return str(found[0]) if found else ""


def refused(fleet: Fleet, connections: int) -> str:
    """The error of a change that is refused in check mode and in a run, with the server running as it did."""
    before = postmaster(fleet), fleet.on(HOST, "cat", "/var/lib/postgresql/15/main/postgresql.auto.conf")
    predicted, done = settings(fleet, connections, check=True), settings(fleet, connections)
    assert "Nothing was changed." in done["msg"]
    assert done["msg"] == predicted["msg"]
    assert before == (postmaster(fleet), fleet.on(HOST, "cat", "/var/lib/postgresql/15/main/postgresql.auto.conf"))
    assert fleet.sql(HOST, "SELECT 1", "postgres") == "1"
    return str(done["msg"])


def test_a_cluster_that_is_disabled_is_not_stopped(fleet: Fleet) -> None:
    fleet.on(HOST, "sh", "-c", f"echo disabled > {START}")
    assert "start.conf of cluster 15-main says disabled" in refused(fleet, 120)
    fleet.on(HOST, "sh", "-c", f"echo manual > {START}")
    assert settings(fleet, 120)["restarted"]
    assert fleet.sql(HOST, "SHOW max_connections", "postgres") == "120"
    fleet.on(HOST, "sh", "-c", f"echo auto > {START}")


@pytest.fixture(name="drop_in")
def _drop_in(fleet: Fleet) -> Iterator[str]:
    folder = f"/run/systemd/system/{UNIT}.d"
    fleet.on(HOST, "mkdir", "-p", folder)
    yield f"{folder}/no.conf"
    fleet.on(HOST, "rm", "-r", folder)
    fleet.on(HOST, "systemctl", "daemon-reload")


def test_a_unit_that_systemd_would_not_restart_is_not_stopped(fleet: Fleet, drop_in: str) -> None:
    fleet.on(HOST, "systemctl", "mask", "--runtime", UNIT)
    assert "it is masked" in refused(fleet, 121)
    fleet.on(HOST, "systemctl", "unmask", "--runtime", UNIT)
    fleet.on(HOST, "sh", "-c", f"printf '[Unit]\\nRefuseManualStop=yes\\n' > {drop_in}; systemctl daemon-reload")
    assert "RefuseManualStop=yes" in refused(fleet, 121)


def test_a_server_that_a_wrapper_has_started_is_restarted_by_its_unit(fleet: Fleet) -> None:
    fleet.on(HOST, "systemctl", "stop", UNIT)
    fleet.on(HOST, "sh", "-c", "cat > /run/systemd/system/wrapped.service; systemctl daemon-reload", text=WRAPPED)
    fleet.on(HOST, "systemctl", "start", "wrapped")
    fleet.wait("the server", lambda: fleet.sql(HOST, "SELECT 1", "postgres") == "1" if running(fleet) else False)
    assert unit_of(fleet) == "wrapped.service"
    former = postmaster(fleet)
    done = settings(fleet, 122)
    assert done.get("restarted"), done
    assert (postmaster(fleet) != former, unit_of(fleet)) == (True, "wrapped.service")
    assert fleet.sql(HOST, "SHOW max_connections", "postgres") == "122"
    fleet.on(HOST, "systemctl", "stop", "wrapped")


def running(fleet: Fleet) -> bool:
    return bool(fleet.on(HOST, "sh", "-c", "ls /run/postgresql/.s.PGSQL.5432 2>/dev/null", check=False))


def test_a_server_in_the_cgroup_of_something_else_is_not_stopped(fleet: Fleet) -> None:
    fleet.on(HOST, "sh", "-c", "cat > /run/systemd/system/started.service; systemctl daemon-reload", text=STARTED)
    fleet.on(HOST, "systemctl", "start", "started")
    fleet.wait("the server", lambda: running(fleet))
    said = refused(fleet, 123)
    assert "The server is in the cgroup of started.service" in said
    fleet.on(HOST, "systemctl", "stop", "started")
    fleet.on(HOST, "runuser", "-u", "postgres", "--", "pg_ctlcluster", "15", "main", "stop", check=False)
    fleet.on(HOST, "systemctl", "restart", UNIT)
    assert settings(fleet, 124)["restarted"]
