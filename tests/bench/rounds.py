# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the collectors cost the server at their intervals, with few tables and with many."""

from __future__ import annotations

import os
import tempfile
import time
from pathlib import Path

from deploying import SHIPPED, collect, deploy, target
from figures import Figures
from servers import Server

from pgops.collectors import wrapped
from pgops.server import Session, connect

REPEATS = 5
LEAST = 0.2
"""Seconds of processor time that a measurement takes at the least: the kernel counts in hundredths."""
MANY = (
    "DO $$BEGIN FOR n IN {} LOOP "
    "EXECUTE format('CREATE TABLE public.t%s (a integer PRIMARY KEY, b text)', n); END LOOP; END$$"
)


def measure() -> Figures:
    """Processor time of the server for all collectors, in % of a core, and milliseconds of a whole collection."""
    figures = Figures("collect", "% of a core for all collectors at their intervals, and milliseconds of the largest")
    for major in (15, 18):
        with Server.create(major, settings={"max_locks_per_transaction": "1024"}) as server:
            deploy(server)
            made = 0
            for tables in (1_000, 10_000):
                for start in range(made + 1, tables + 1, 500):
                    server.value(MANY.format(f"{start}..{min(start + 499, tables)}"))
                made = tables
                server.value("VACUUM ANALYZE")
                _rounds(server, f"PostgreSQL {major}, {tables} tables", figures)
    return figures


def _rounds(server: Server, case: str, figures: Figures) -> None:
    agents = connect(target(server, user="pgops"))
    sessions = {
        "monitor": agents,
        "host": agents,
        "all_data": connect(target(server, role="pg_read_all_data")),
    }
    try:
        for _repeat in range(REPEATS):
            spent = {
                one.name: _processor(sessions[one.rights], wrapped(one.query))
                for one in SHIPPED
                if one.applies(server.major, in_recovery=False)
            }
            shares = {one.name: 100 * spent[one.name] / one.interval for one in SHIPPED if one.name in spent}
            figures.add(f"{case}, % of a core", "ours", sum(shares.values()))
            for name in sorted(spent, key=lambda name: -shares[name])[:3]:
                figures.add(f"{case}, {name}, ms", "ours", spent[name] * 1000)
    finally:
        for session in sessions.values():
            session.close()
    with tempfile.TemporaryDirectory() as state:
        for _repeat in range(REPEATS):
            began = time.perf_counter()
            outcome = collect(server, Path(state))
            figures.add(f"{case}, a collection of all, stored, ms", "ours", (time.perf_counter() - began) * 1000)
            if outcome["errors"]:
                raise RuntimeError(f"{case}: {outcome['errors']}")


def _processor(session: Session, query: str) -> float:
    """Seconds of processor time that the server takes for a query."""
    process = Path(f"/proc/{session.connection.info.backend_pid}/stat")
    session.documents(query)
    count, began, ended = 0, _ticks(process), 0
    while ended - began < LEAST * os.sysconf("SC_CLK_TCK") and count < 200:
        session.documents(query)
        count += 1
        ended = _ticks(process)
    return (ended - began) / os.sysconf("SC_CLK_TCK") / count


def _ticks(process: Path) -> int:
    """User and system time of a process, in ticks."""
    fields = process.read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])
