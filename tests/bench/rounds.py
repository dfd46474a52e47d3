# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a round of the six metrics costs the server, with few tables and with many."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from deploying import SHIPPED, collect, deploy, target
from figures import Figures
from servers import Server

from pgops.collectors import wrapped
from pgops.server import connect

REPEATS = 9
MANY = (
    "DO $$BEGIN FOR n IN {} LOOP "
    "EXECUTE format('CREATE TABLE public.t%s (a integer PRIMARY KEY, b text)', n); END LOOP; END$$"
)


def measure() -> Figures:
    """Milliseconds of all collectors that run every minute, and of those that run more rarely."""
    figures = Figures("collect", "milliseconds of one round of all collectors, one database of so many tables")
    for major in (15, 18):
        with Server.create(major, settings={"max_locks_per_transaction": "1024"}) as server:
            deploy(server)
            made = 0
            for tables in (100, 10_000):
                for start in range(made + 1, tables + 1, 500):
                    server.value(MANY.format(f"{start}..{min(start + 499, tables)}"))
                made = tables
                server.value("VACUUM ANALYZE")
                _rounds(server, f"PostgreSQL {major}, {tables} tables", figures)
    return figures


def _rounds(server: Server, case: str, figures: Figures) -> None:
    with connect(target(server, user="pgops")) as session:
        for _repeat in range(REPEATS):
            spent = {"each minute": 0.0, "each five minutes": 0.0}
            for collector in SHIPPED:
                began = time.perf_counter()
                session.documents(wrapped(collector.query))
                kind = "each minute" if collector.interval <= 60 else "each five minutes"
                spent[kind] += (time.perf_counter() - began) * 1000
            for kind, milliseconds in spent.items():
                figures.add(f"{case}, queries of {kind}", "ours", milliseconds)
    with tempfile.TemporaryDirectory() as state:
        for _repeat in range(REPEATS):
            began = time.perf_counter()
            outcome = collect(server, Path(state))
            figures.add(f"{case}, a collection of all, stored", "ours", (time.perf_counter() - began) * 1000)
            if outcome["errors"]:
                raise RuntimeError(f"{case}: {outcome['errors']}")
