# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""pgbench's transactions with and without the jobs of a host, in turn, on a container host with all of site.yml."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from deployments import FLEET, HOST, INVENTORY, run
from figures import Figures
from hosts import Fleet

INSTANCE = "18-main"
PAIRS = 10
SECONDS = 20
SCALE = 10
CLIENTS = 4
SCRIPTS = ("tpcb-like", "select-only")
"""What pgbench runs: one waits for the disk, one takes all of the processor."""
WARM_UP = 10
"""Seconds."""
JOBS = ("inspect", "queries", "maintain", "export")
"""But for collect, which stays for a minute."""
# All collectors are due where nothing is known of their last runs.
RUN = f"""
rm -f /var/lib/pgops/{INSTANCE}/state/collect.json /var/lib/pgops/{INSTANCE}/keeping/inspect.json
systemctl start --no-block pgops-{INSTANCE}-collect.service
for job in {" ".join(JOBS)}; do systemctl start "pgops-{INSTANCE}-$job.service" || exit; done
"""
TEXTFILES = "/var/lib/prometheus/node-exporter"


def measure(venv: Path, pairs: int = PAIRS, seconds: int = SECONDS) -> Figures:
    """Transactions a second of both, and for each pair of runs with over without: the order changes with each pair.

    In a run with the jobs each of them is started once. Collect begins with every collector, and stays until the end:
    what is collected each ten seconds is as often as by default, what is each minute 60 / ``seconds`` times as often,
    and the rest much more often.
    """
    title = f"pgbench, {CLIENTS} clients, {pairs} pairs of {seconds} s, each job and collector once in those with"
    figures = Figures("throughput", f"{title}, {60 / seconds:g} times as often as what is collected each minute")
    fleet = Fleet(INVENTORY.parent)
    _deploy(venv, fleet)
    _transactions(fleet, SCRIPTS[0], WARM_UP, jobs=False)
    for script in SCRIPTS:
        for pair in range(pairs):
            order = (False, True) if pair % 2 == 0 else (True, False)
            found = {jobs: _transactions(fleet, script, seconds, jobs) for jobs in order}
            figures.add(f"{script}, transactions a second", "without", found[False])
            figures.add(f"{script}, transactions a second", "with", found[True])
            figures.add(f"{script}, with / without", "ratio", found[True] / found[False])
    return figures


def _deploy(venv: Path, fleet: Fleet) -> None:
    subprocess.run([sys.executable, str(FLEET), "reset", HOST], check=True, stdout=subprocess.DEVNULL)
    fleet.on(HOST, "mkdir", "-p", TEXTFILES)
    declared = {"pgops_statements": True, "pgops_restart": "if_required", "pgops_textfile_directory": TEXTFILES}
    site = ["pgops.fleet.site", "-e", json.dumps(declared)]
    run(venv, ["ansible-playbook", "-i", str(INVENTORY), "--limit", HOST, *site])
    fleet.on(HOST, "systemctl", "stop", "pgops-*.timer", "pgops-*.service")
    fleet.sql(HOST, "CREATE DATABASE bench", "postgres")
    _pgbench(fleet, "--initialize", "--quiet", f"--scale={SCALE}")


def _transactions(fleet: Fleet, script: str, seconds: int, jobs: bool) -> float:
    """How many a second pgbench makes, with each job or without."""
    fleet.sql(HOST, "CHECKPOINT", "postgres")  # or the one that comes by itself would hit some of the runs only
    load = ("--no-vacuum", f"--builtin={script}", f"--client={CLIENTS}", f"--time={seconds}")
    with ThreadPoolExecutor() as threads:
        running = threads.submit(_pgbench, fleet, *load)
        time.sleep(1)
        if jobs:
            fleet.on(HOST, "sh", text=RUN)
        in_time = not running.done()
        said = running.result()
    fleet.on(HOST, "systemctl", "stop", f"pgops-{INSTANCE}-collect.service")
    if not in_time:
        raise RuntimeError(f"the jobs took longer than {seconds} s")
    (found,) = re.findall(r"^tps = ([0-9.]+) \(without initial", said, re.MULTILINE)
    return float(found)


def _pgbench(fleet: Fleet, *arguments: str) -> str:
    return fleet.on(HOST, "runuser", "-u", "postgres", "--", "pgbench", *arguments, "bench")
