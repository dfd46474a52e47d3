# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A server is restarted by what started it."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest
from hosts import INVENTORY, Fleet

pytestmark = pytest.mark.xdist_group("pg15")
HOST = "pg15"
UNIT = "postgresql@15-main.service"
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


@pytest.fixture(scope="module", autouse=True)
def _pristine(fleet: Fleet) -> None:
    fleet.reset(HOST)


def settings(connections: int) -> dict[str, Any]:
    """What pg_ops_settings returns, or its error."""
    arguments = {"settings": {"max_connections": connections}, "restart": "if_required", "instance": "15-main"}
    command = ["ansible", HOST, "-i", str(INVENTORY), "-b", "-m", "pgops.fleet.pg_ops_settings"]
    done = subprocess.run(
        [*command, "-a", json.dumps(arguments)],
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


def test_a_server_that_a_wrapper_has_started_is_restarted_by_its_unit(fleet: Fleet) -> None:
    fleet.on(HOST, "systemctl", "stop", UNIT)
    fleet.on(HOST, "sh", "-c", "cat > /run/systemd/system/wrapped.service; systemctl daemon-reload", text=WRAPPED)
    fleet.on(HOST, "systemctl", "start", "wrapped")
    fleet.wait("the server", lambda: fleet.sql(HOST, "SELECT 1", "postgres") == "1" if running(fleet) else False)
    assert unit_of(fleet) == "wrapped.service"
    former = postmaster(fleet)
    done = settings(122)
    assert done.get("restarted"), done
    assert (postmaster(fleet) != former, unit_of(fleet)) == (True, "wrapped.service")
    assert fleet.sql(HOST, "SHOW max_connections", "postgres") == "122"
    fleet.on(HOST, "systemctl", "stop", "wrapped")


def running(fleet: Fleet) -> bool:
    return bool(fleet.on(HOST, "sh", "-c", "ls /run/postgresql/.s.PGSQL.5432 2>/dev/null", check=False))
