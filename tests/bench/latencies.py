# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a backup with a limited rate costs the transactions that go on meanwhile."""

from __future__ import annotations

import functools
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import hosting
from backed import Backed
from figures import Figures
from hosting import pgops
from servers import Server
from waiting import until

MAJOR = 18
"""That of the programs of the tests."""
SCALE = 20
"""About 300 MB."""
RATE = 20.0
"""Megabytes a second that the backup may copy."""
CLIENTS = 4
PAIRS = 4
WARM_UP = 10
"""Seconds."""
SETTINGS = {
    "shared_buffers": "256MB",
    "max_wal_size": "4GB",
    # A backup with a limited rate begins with a checkpoint that takes its time: half a minute, and not some minutes.
    "checkpoint_timeout": "30s",
    "checkpoint_completion_target": "0.5",
}
PRIORITY = ("nice", "-n5", "ionice", "-c2", "-n7")
"""That of the agent's jobs, which their units set."""
WORKING = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'"
CASE = "milliseconds of the 99th percentile"
MOST = 1.25
"""What it may cost at the most, times."""


def measure() -> Figures:
    """Percentiles of pgbench's transactions while a backup is taken, and in as long a time without, in turn."""
    title = f"transactions of pgbench, {CLIENTS} clients, with a backup of at most {RATE:g} MB/s and without"
    figures = Figures("latency", title)
    with hosting.hosted(MAJOR, SETTINGS, _fill) as (backed, _root):
        backed.configure(max_rate_mb=RATE)
        taking, waiting = functools.partial(_back_up, backed), functools.partial(time.sleep, WARM_UP)
        _transactions(backed.server, waiting)
        for pair in range(PAIRS):
            for who in ("ours", "peer") if pair % 2 == 0 else ("peer", "ours"):
                spent, seconds = _transactions(backed.server, taking if who == "ours" else waiting)
                waiting = functools.partial(time.sleep, seconds)
                figures.add(CASE, who, _percentile(spent, 0.99))
                figures.add("milliseconds of the median", who, _percentile(spent, 0.5))
                figures.add("transactions a second", "with" if who == "ours" else "without", len(spent) / seconds)
    figures.promise({CASE: 1 / MOST})
    return figures


def _fill(server: Server) -> None:
    server.run(server.client("pgbench"), "-i", "-q", "-I", "dtGvp", "-s", str(SCALE), server.dsn())


def _back_up(backed: Backed) -> None:
    pgops("--prefix", str(backed.host.prefix), "backup", "--type", "full", priority=PRIORITY)


def _transactions(server: Server, meanwhile: Callable[[], object]) -> tuple[list[float], float]:
    """Milliseconds of the transactions that ended while something was done, in order of their length; and the seconds
    of that."""
    server.value("CHECKPOINT")  # or the one that comes by itself would hit some of the runs only
    with tempfile.TemporaryDirectory(prefix="pgops-bench-", dir="/tmp") as place:
        command = [str(server.client("pgbench")), "-n", "-c", str(CLIENTS), "-T", "3600", "-l", server.dsn()]
        with subprocess.Popen(command, cwd=place, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as load:
            try:
                until(lambda: server.value(WORKING) == CLIENTS, "pgbench works")
                began = time.time()
                meanwhile()
                ended = time.time()
            finally:
                load.terminate()
        lines = [line.split() for path in Path(place).iterdir() for line in path.read_text().splitlines()[:-1]]
    # Of a line: client, transaction, microseconds, script, and when it ended, in seconds and microseconds.
    return sorted(int(one[2]) / 1000 for one in lines if began <= int(one[4]) < ended), ended - began


def _percentile(spent: Sequence[float], part: float) -> float:
    return spent[int(len(spent) * part)]
