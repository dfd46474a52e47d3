# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the collectors cost the server at their intervals, with few tables and with many."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from pathlib import Path

from deploying import SHIPPED, collect, deploy, target
from figures import Figures
from servers import Server

from pgops.metrics.collectors import SHARE, wrapped
from pgops.server.session import Session, connect

REPEATS = 5
LEAST = 0.2
"""Seconds of processor time that a measurement takes at the least: the kernel counts in hundredths."""
FEW_TABLES, MANY_TABLES = 1_000, 10_000
MOST = 0.5
"""% of a core for all collectors, with few tables."""
MOST_RATIO = 3.0
"""What it may be with many tables, by what it is with few."""
MANY = """
DO $$BEGIN FOR n IN {} LOOP
    EXECUTE format(
        'CREATE TABLE public.t%s (a bigserial PRIMARY KEY, b text, c integer, d timestamptz DEFAULT now())', n
    );
    EXECUTE format('CREATE INDEX ON public.t%s (b)', n);
    IF n % 10 = 0 THEN
        EXECUTE format('INSERT INTO public.t%s (b, c) SELECT repeat(md5(i::text), 3), i / 7 '
                       'FROM generate_series(1, 12000) AS i', n);
    END IF;
END LOOP; END$$
"""
"""Each tenth has rows: 2 MB and two indexes, so that there is something whose bloat can be estimated."""


def measure() -> Figures:
    """Processor time of the server for all collectors, in % of a core, and milliseconds of a whole collection."""
    figures = Figures("collect", "% of a core for all collectors at their intervals, and milliseconds of the largest")
    for major in (15, 18):
        with Server.create(major, settings={"max_locks_per_transaction": "1024"}) as server:
            deploy(server)
            made = 0
            taken: dict[int, list[float]] = {}
            for tables in (FEW_TABLES, MANY_TABLES):
                for start in range(made + 1, tables + 1, 500):
                    server.value(MANY.format(f"{start}..{min(start + 499, tables)}"))
                made = tables
                server.value("VACUUM ANALYZE")
                taken[tables] = _rounds(server, f"PostgreSQL {major}, {tables} tables", figures)
            _judge(f"PostgreSQL {major}", taken, figures)
    return figures


def _judge(case: str, taken: dict[int, list[float]], figures: Figures) -> None:
    """What the collectors have to hold, by their % of a core with so many tables."""
    few, many = statistics.median(taken[FEW_TABLES]), statistics.median(taken[MANY_TABLES])
    figures.add(f"{case}, {MANY_TABLES} tables by {FEW_TABLES}, times", "ours", many / few)
    if few >= MOST:
        figures.missed.append(f"{case}: {few:.3g} % of a core with {FEW_TABLES} tables, instead of less than {MOST}.")
    if many / few > MOST_RATIO:
        figures.missed.append(f"{case}: {many / few:.3g} times as much with {MANY_TABLES} tables, not {MOST_RATIO}.")


def _rounds(server: Server, case: str, figures: Figures) -> list[float]:
    """Measure one number of tables; % of a core for all collectors, each time."""
    found = [one for one in SHIPPED if one.applies(server.major, in_recovery=False)]
    agents = connect(target(server, user="pgops"))
    sessions = {
        "monitor": agents,
        "host": agents,
        "all_data": connect(target(server, role="pg_read_all_data")),
    }
    try:
        spent = [
            {one.name: _processor(sessions[one.rights], wrapped(one.query)) for one in found}
            for _repeat in range(REPEATS)
        ]
    finally:
        for session in sessions.values():
            session.close()
    totals = [sum(100 * each[one.name] / one.interval for one in found) for each in spent]
    middle = {one.name: statistics.median(each[one.name] for each in spent) for one in found}
    shares = {one.name: middle[one.name] / one.interval for one in found}
    for total in totals:
        figures.add(f"{case}, % of a core", "ours", total)
    for name in sorted(shares, key=lambda name: -shares[name])[:3]:
        for each in spent:
            figures.add(f"{case}, {name}, ms", "ours", each[name] * 1000)
    # 20 ms where it runs every ten seconds.
    figures.add(f"{case}, the most that one takes of its interval, %", "ours", 100 * max(shares.values()))
    slow = sorted(name for name in shares if shares[name] > SHARE)
    if slow:
        figures.missed.append(f"{case}: too slow for their intervals: {', '.join(slow)}.")
    figures.add(
        f"{case}, collectors that could run every 10 s", "ours", sum(t <= 10 * SHARE for t in middle.values())
    )
    figures.add(f"{case}, collectors that could not", "ours", sum(t > 10 * SHARE for t in middle.values()))
    _collections(server, case, figures)
    return totals


def _collections(server: Server, case: str, figures: Figures) -> None:
    """Whole collections, of what is not left to the server's own user."""
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
