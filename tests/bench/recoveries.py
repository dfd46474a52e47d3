# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long a server of 2 GB takes to be recovered, by phase, and how much of its replay waits for WAL."""

from __future__ import annotations

import contextlib
import shutil
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import hosting
import psycopg
from backed import Backed
from backing import Bank
from figures import Figures
from restoring import Restorer
from servers import Server

MAJOR = 18
"""That of the programs of the tests."""
SCALE = 135
"""Of pgbench: 2 GB."""
TRANSACTIONS = 15_000
"""Of each of the clients, before each restore: some hundred MB of WAL."""
CLIENTS = 4
TURNS = 3
SETTINGS = {"shared_buffers": "256MB", "max_wal_size": "8GB", "summarize_wal": "on"}
FIRST = "SELECT abalance FROM pgbench_accounts WHERE aid = 4711"
MOST_WAITING = 5.0
"""% of a replay that it may wait for WAL."""


def measure() -> Figures:
    """Seconds of each phase, from a full backup and from an incremental one."""
    figures = Figures("recovery", "seconds to recover a server of 2 GB to its newest moment, by phase")
    with hosting.hosted(MAJOR, SETTINGS, _fill) as (backed, root):
        restorer = Restorer(Bank(backed.host), root)
        size = "SELECT sum(pg_database_size(oid)) / 1e9 FROM pg_database"
        for kind in ("full", "incremental"):
            backed.take(kind, unsafe_incremental=True)
            _load(backed)
            for _turn in range(TURNS):
                _recovered(restorer, kind, figures)
        figures.add("gigabytes of its databases", "ours", float(str(backed.server.value(size))))
    return figures


def _recovered(restorer: Restorer, kind: str, figures: Figures) -> None:
    directory = restorer.directory()
    with Waits(directory) as waits:
        began = time.perf_counter()
        found = restorer.restore(directory=directory, latest=True)
        spent = time.perf_counter() - began
    try:
        again = time.perf_counter()
        with psycopg.connect(f"host={found['socket_directory']} port={found['port']} user=postgres") as session:
            session.execute(FIRST)
        first = time.perf_counter() - again
    finally:
        restorer.end(directory)
        shutil.rmtree(directory)
    if kind not in found["backup"]["name"]:
        raise RuntimeError(f"{found['backup']['name']} was restored, and not the backup that is {kind}")
    for one in found["phases"]:
        figures.add(f"{kind}, {one['phase']}", "ours", float(one["seconds"]))
    figures.add(f"{kind}, first query", "ours", first)
    figures.add(f"{kind}, all of it", "ours", spent + first)
    figures.add(f"{kind}, % of its replay that waits for WAL", "ours", waits.share)
    if waits.share > MOST_WAITING:
        figures.missed.append(f"{kind}: replay waits {waits.share:.1f} % of its time, not {MOST_WAITING:g}.")


@dataclass
class Waits:
    """Looks again and again whether the replaying process of a server waits for its restore_command."""

    data: Path
    pause: float = 0.002
    looks: int = 0
    waiting: int = 0
    _stop: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Waits:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()

    @property
    def share(self) -> float:
        """% of the looks."""
        return 100 * self.waiting / max(1, self.looks)

    def _work(self) -> None:
        while not self._stop.is_set():
            children = self._replaying()
            with contextlib.suppress(OSError):
                while children and not self._stop.wait(self.pause):
                    # It has no other children than the shell of that command.
                    self.waiting += bool(children.read_text())
                    self.looks += 1
            self._stop.wait(self.pause)

    def _replaying(self) -> Path | None:
        """The file that lists the children of that process, while there is one."""
        with contextlib.suppress(OSError, ValueError, IndexError):
            server = (self.data / "postmaster.pid").read_text().split()[0]
            for process in Path(f"/proc/{server}/task/{server}/children").read_text().split():
                if b"startup" in Path(f"/proc/{process}/cmdline").read_bytes():
                    return Path(f"/proc/{process}/task/{process}/children")
        return None


def _fill(server: Server) -> None:
    server.run(server.client("pgbench"), "-i", "-q", "-I", "dtGvp", "-s", str(SCALE), server.dsn())


def _load(backed: Backed) -> None:
    """Have all WAL of some transactions in the repository."""
    words = ["-n", "-c", str(CLIENTS), "-t", str(TRANSACTIONS), backed.server.dsn()]
    backed.server.run(backed.server.client("pgbench"), *words)
    Bank(backed.host).archive()
