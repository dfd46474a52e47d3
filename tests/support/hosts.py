# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The fleet of containers, playbooks run on it, and what a host looks like as a whole."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from waiting import until

from playbooks import ROOT, Run, play

HOSTS = ("pg15", "pg17", "pg17b", "pg18")
INVENTORY = ROOT / "build" / "fleet" / "inventory.yml"

STATE = r"""
cd /
echo '== files'
find /etc /usr/local /var/lib /opt /root /home /var/spool -xdev \
    \( -path /var/lib/postgresql -o -path /var/lib/systemd -o -path /var/lib/dbus -o -path '/home/admin/.ansible' \
       -o -path /var/lib/apt -o -path /var/lib/dpkg -o -name '*-' -o -path /etc/.pwd.lock \) -prune \
    -o -type f -printf '%p %m %u %g ' -exec sha256sum {} \; -o -type l -printf '%p -> %l\n' \
    -o -type d -printf '%p/ %m %u %g\n' | sed 's/  .*//' | sort
echo '== units'
systemctl list-unit-files --no-legend --no-pager 'pgops*' | sort
systemctl list-units --all --no-legend --no-pager 'pgops*' | sort
echo '== server'
runuser -u postgres -- psql -XAtq -d postgres <<'SQL'
SELECT 'role', rolname, rolsuper, rolcanlogin, rolconfig FROM pg_roles ORDER BY 2;
SELECT 'member', roleid::regrole, member::regrole FROM pg_auth_members ORDER BY 2::text, 3::text;
SELECT 'database', datname, pg_get_userbyid(datdba), datacl FROM pg_database ORDER BY 2;
SELECT 'setting', name, setting FROM pg_settings
WHERE source NOT IN ('default', 'override', 'client', 'session', 'environment variable') ORDER BY 2;
SELECT 'hba', type, database, user_name, address, auth_method, options FROM pg_hba_file_rules ORDER BY line_number;
SQL
"""
"""Prints all of a host that a deployment could leave behind."""
ROUNDS = """
SELECT string_agg(DISTINCT to_char(collected_at, 'HH24:MI'), ' ') FROM pgops.system_metrics
WHERE metric_name = 'active_connections' AND node LIKE '{node}/%' AND collected_at >= '{since}'
"""


@dataclass(frozen=True)
class Fleet:
    """The hosts, and what one does with them."""

    directory: Path

    def play(self, playbook: str, *arguments: str, collections: Path | None = None) -> Run:
        """Run a playbook of the installed collection, or of another state of it."""
        return play(INVENTORY, self.directory, playbook, *arguments, collections=collections)

    def on(self, host: str, *command: str, check: bool = True, text: str | None = None) -> str:
        """What a command on a host prints; ``text`` is its standard input."""
        done = subprocess.run(
            ["podman", "--runtime", "runc", "exec", "-i", host, *command],
            input=text,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{host}: {command}: {done.stdout}{done.stderr}")
        return done.stdout

    def sql(self, host: str, statement: str, database: str = "pgops") -> str:
        """What a statement gives, as the superuser, unaligned."""
        command = ("runuser", "-u", "postgres", "--", "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database)
        return self.on(host, *command, text=statement).strip()

    def collect(self, host: str, instance: str) -> None:
        """Collect now, once a collection that a timer started has ended, and see it succeed."""
        busy = 75
        command = f"while pgops --instance {instance} collect; [ $? -eq {busy} ]; do sleep 0.2; done"
        done = json.loads(self.on(host, "sh", "-c", command, check=False).splitlines()[-1])
        assert done["ok"], done

    def states(self) -> dict[str, list[str]]:
        """All of every host that a deployment could leave behind."""
        return {host: self.on(host, "sh", text=STATE).splitlines() for host in HOSTS}

    def wait(self, what: str, holds: Callable[[], Any], seconds: int = 120) -> Any:
        """Wait until something holds, and fail in words if it never does."""
        return until(holds, what, pause=2, patience=seconds)

    def facts(self, host: str, *arguments: str) -> dict[str, Any]:
        """The facts of a host, ad hoc."""
        done = subprocess.run(
            ["ansible", host, "-i", str(INVENTORY), "-m", "pgops.fleet.pg_ops_facts", *arguments],
            env={
                **os.environ,
                "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
                "ANSIBLE_NOCOLOR": "1",
                "ANSIBLE_PIPELINING": "1",
            },
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        found: dict[str, Any] = json.loads(done.stdout[done.stdout.index("{") :])["ansible_facts"]["pg_ops"]
        return found

    def rounds(self, primary: str, node: str, since: str) -> set[str]:
        """The minutes in which a node collected."""
        return set(self.sql(primary, ROUNDS.format(node=node, since=since)).split())

    def reset(self, *hosts: str) -> None:
        """Pristine hosts: those that are named, or all."""
        command = [sys.executable, str(ROOT / "tests/fleet/fleet.py"), "reset", *hosts]
        subprocess.run(command, check=True, timeout=600)

    def reboot(self, host: str) -> None:
        """Restart a host as its administrator would, and wait until its services are up."""
        subprocess.run(["podman", "--runtime", "runc", "restart", "--time", "30", host], check=True, timeout=120)
        state = ("systemctl", "is-system-running")
        self.wait("the boot", lambda: self.on(host, *state, check=False).strip() in ("running", "degraded"))

    def deployed(self, *hosts: str) -> None:
        """Pristine hosts with what site.yml brings by itself."""
        self.reset(*hosts)
        run = self.play("pgops.fleet.site", "--limit", ",".join(hosts))
        assert run.code == 0, run.text
