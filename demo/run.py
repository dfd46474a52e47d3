# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""`make demo`: a throw-away server, site.yml on it, real load, collection, an alert, a backup, an accident, a restore
to just before it, and a page to open."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / room) for room in ("support", "workshop")]

import artifact  # noqa: E402
from alarm import AlarmError, Desk, alarm  # noqa: E402
from server import DemoServer  # noqa: E402

from playbooks import Run, play  # noqa: E402

PAGE = ROOT / "build" / "demo" / "index.html"
LOG = ROOT / "build" / "demo" / "ansible.log"
LOAD_SECONDS = 30
SHOWN_SECONDS = 120
"""On the page: the load, and what came after it."""
LOST = "pgbench_accounts"
"""The table that is dropped, in the database shop."""
MOMENT = "before the accident"
COLLECTORS = (
    *("activity", "blocking", "checkpoints", "connections", "database_activity", "database_size"),
    *("disks", "locks", "table_size", "transactions", "wal"),
)
"""Those that are asked as often as the demo collects."""


class DemoError(Exception):
    """A step that did not work."""


def say(text: str) -> None:
    """A line for who watches."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def inventory(work: Path, server: DemoServer, desk: Desk) -> Path:
    """The one host of the demo, below a directory of its own."""
    variables = {
        **desk.variables,
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "pgops_python": interpreter(work, server),
        "pgops_become": False,
        "pgops_prefix": str(work / "agent"),
        "pgops_user": server.os_user,
        "pgops_packages": [],
        "pgops_schedule_backend": "none",
        "pgops_cluster": "demo",
        "pgops_instances": [{"name": "demo", "port": server.port, "socket_directory": str(server.socket_dir)}],
        "pgops_collector_settings": {name: {"interval": 1} for name in COLLECTORS},
        "pgops_repository": str(work / "repository"),
        "pgops_restart": "if_required",
        "pgops_backup": True,
        "pgops_statements": True,
        "pgops_bin_directory": str(server.bin_dir),
    }
    path = work / "inventory.json"
    path.write_text(json.dumps({"all": {"hosts": {"demo": variables}}}))
    return path


def interpreter(work: Path, server: DemoServer) -> str:
    """The demo's Python. Where the server's user may not run it, since it is in root's home, the archive program,
    which is started with -IS and needs no packages, gets the system's."""
    try:
        server.run(sys.executable, "-c", "")
    except (OSError, RuntimeError):
        either = work / "python3"
        either.write_text(f'#!/bin/sh\n[ "$1" != -IS ] || exec /usr/bin/python3 "$@"\nexec {sys.executable} "$@"\n')
        either.chmod(0o755)
        return str(either)
    return sys.executable


def played(work: Path, hosts: Path, playbook: str, *arguments: str) -> Run:
    """A run of a playbook that went well."""
    run = play(hosts, work, f"pgops.fleet.{playbook}", *arguments)
    with LOG.open("a") as log:
        log.write(run.text)
    if run.code:
        raise DemoError(f"ansible-playbook pgops.fleet.{playbook} {' '.join(arguments)} failed; {LOG} says why")
    return run


def deploy(work: Path, hosts: Path) -> None:
    """Predict, change, and see that a second run changes nothing."""
    predicted = played(work, hosts, "site", "--check", "--diff")
    say(f"site.yml --check --diff: {details(predicted)} changes predicted")
    first = played(work, hosts, "site", "--diff")
    same = "exactly as predicted" if first.changes == predicted.changes else "NOT as predicted"
    say(f"site.yml: {details(first)} changes, {same}")
    second = played(work, hosts, "site")
    say(f"site.yml again: changed={len(second.changes)}")
    if first.changes != predicted.changes or second.changes:
        raise DemoError("a prediction did not come true")


def details(run: Run) -> int:
    """How many single changes the tasks of a run tell of."""
    return sum(len(changed or ()) for changed in run.changes.values())


def pgops(work: Path, *words: str) -> dict[str, Any]:
    """What the agent's command says that it has done."""
    agent = work / "agent"
    command = [str(agent / "usr/local/bin/pgops"), "--instance", "demo", "--prefix", str(agent), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise DemoError(f"pgops {' '.join(words)} failed: {done.stdout}{done.stderr}")
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def collect(work: Path, server: DemoServer) -> int:
    """Collect every other second while pgbench works; returns how many samples were stored."""
    pgops(work, "queries")
    load = server.load(LOAD_SECONDS)
    samples = 0
    try:
        while load.poll() is None:
            outcome = pgops(work, "collect")
            if outcome["errors"]:
                raise DemoError(f"pgops collect: {outcome['errors']}")
            samples += outcome["samples"]
            time.sleep(2)
    finally:
        load.terminate()
        load.wait()
    pgops(work, "queries")
    return samples


def recover(work: Path, hosts: Path, server: DemoServer) -> None:
    """Take a backup, drop a table, and restore to just before that, into a directory beside the server."""
    (cluster,) = (work / "repository").iterdir()
    # Below a prefix, all of the agent is whose who installed it.
    shutil.chown(work / "agent/var/lib/pgops/demo/keeping", server.os_user)
    played(work, hosts, "backup")
    balance = f"SELECT sum(abalance) FROM {LOST}"
    before = server.ask(balance, *server.options)
    played(work, hosts, "recovery_point", "-e", json.dumps({"pgops_recovery_point": MOMENT}))
    server.ask(f"DROP TABLE {LOST}", *server.options)
    say(f"Backup taken. Table {LOST} dropped ...")
    copy = work / "copy" / "data"
    copy.parent.mkdir()
    shutil.chown(copy.parent, server.os_user)
    wanted = {
        "pgops_restore_host": "demo",
        "pgops_restore_repository": str(cluster),
        "pgops_restore_directory": str(copy),
        "pgops_restore_name": MOMENT,
    }
    began = time.monotonic()
    played(work, hosts, "restore", "-e", json.dumps(wanted))
    seconds = time.monotonic() - began
    try:
        after = server.ask(balance, "-h", str(copy))
    finally:
        server.run(server.bin_dir / "pg_ctl", "-D", copy, "-m", "fast", "stop")
    if after != before:
        raise DemoError(f"the restored balance is {after}, and was {before}")
    pgops(work, "catalogue")
    say(f"Restored to just before that in {seconds:.0f} seconds, into a copy: the same balance, {after}")


def show(work: Path, hosts: Path) -> None:
    """Write the page."""
    document = work / "report.json"
    wanted = {
        "pgops_report_instances": ["demo"],
        "pgops_report_path": str(PAGE),
        "pgops_report_json": str(document),
        "pgops_report_hours": SHOWN_SECONDS / 3600,
        "pgops_report_points": SHOWN_SECONDS // 2,
    }
    played(work, hosts, "report", "-e", json.dumps(wanted))
    (instance,) = json.loads(document.read_text())["instances"]
    facts = instance["facts"]
    say(f"report.yml: PostgreSQL {facts['version']}, {facts['role']}, {instance['status']}")
    for reason in instance["reasons"]:
        say(f"  {reason['level']}: {reason['text']}")
    say(f"Open {PAGE}")


def main() -> int:
    """Run the demo; it ends by itself and leaves the page only."""
    signal.signal(signal.SIGTERM, lambda *_signal: sys.exit(143))
    os.environ["ANSIBLE_COLLECTIONS_PATH"] = str(artifact.COLLECTIONS)
    os.environ["ANSIBLE_LOCALHOST_WARNING"] = "False"
    began = time.monotonic()
    PAGE.parent.mkdir(parents=True, exist_ok=True)
    LOG.write_text("")
    work = Path(tempfile.mkdtemp(prefix="pgops-demo-", dir="/tmp"))
    work.chmod(0o755)
    for folder in ("agent", "repository"):
        (work / folder).mkdir()
    server: DemoServer | None = None
    try:
        server = DemoServer.make()
        shutil.chown(work / "repository", server.os_user)
        say(f"PostgreSQL 18 runs on port {server.port}, as {server.os_user}")
        with Desk() as desk:
            hosts = inventory(work, server, desk)
            deploy(work, hosts)
            say(f"{LOAD_SECONDS} seconds of pgbench, and pgops collect every other second ...")
            samples = collect(work, server)
            say(f"{samples} samples collected")
            alarm(server, desk, functools.partial(pgops, work), say)
        recover(work, hosts, server)
        show(work, hosts)
    except (AlarmError, DemoError, RuntimeError) as error:
        say(f"The demo failed: {error}")
        return 1
    except KeyboardInterrupt:
        say("Interrupted.")
        return 130
    finally:
        if server is not None:
            server.delete()
        shutil.rmtree(work, ignore_errors=True)
    say(f"Done in {time.monotonic() - began:.0f} seconds; the server is gone.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
