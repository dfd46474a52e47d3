# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How long one evaluation of alert rules takes, by how many pairs of a rule and a series there are."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from typing import Any

import psycopg
from deploying import deploy
from figures import Figures
from servers import Server

MAJOR = 18
PAIRS = (1_000, 10_000, 100_000)
MOST = {10_000: 1.0, 100_000: 8.0}
"""Seconds that so many pairs may take."""
GROWTH = 2.0
"""How much more a pair may cost among 100,000 than among 10,000, times."""
RULES = 10
MINUTES = 6
"""Of samples before the first evaluation: a window has five."""
EVALUATIONS = 5
FIRING = 50
"""One in so many series is above the threshold."""
TOGETHER = 500
"""Series of a shape: what is collected at once."""
START = "SELECT date_trunc('hour', now()) - interval '2 hours'"
DEFINE = "SELECT pgops.define_shape(%s, %s, %s, %s)"
STORE = "SELECT pgops.store_round(%s, %s, 'here 2020 -', %s::timestamptz + make_interval(mins => %s), %s::float8[])"
RULE = """
INSERT INTO pgops.alert_rules (rule_name, metric_name, condition_operator, threshold_value, minimum_duration)
VALUES (%s, %s, '>', 5, '1 minute')
"""
EVALUATE = "SELECT pgops.evaluate_alerts_at(%s::timestamptz + make_interval(mins => %s))"
STATES = "SELECT count(*) FROM pgops.alert_history WHERE alert_status = 'firing'"


def measure() -> Figures:
    """Seconds of an evaluation, with samples of each minute and some alerts that fire."""
    figures = Figures("alerts", f"seconds of an evaluation of {RULES} rules; one in {FIRING} series fires")
    for pairs in PAIRS:
        with Server.create(MAJOR) as server:
            deploy(server)
            with server.connect("pgops") as session:
                for seconds in _evaluations(session, pairs):
                    figures.add(f"{pairs} pairs", "ours", seconds)
        _judge(figures, pairs)
    costs = {pairs: statistics.median(figures.values[f"{pairs} pairs"]["ours"]) / pairs for pairs in PAIRS}
    if costs[100_000] > GROWTH * costs[10_000]:
        figures.missed.append(f"a pair of 100,000 costs {costs[100_000] / costs[10_000]:.1f} times one of 10,000")
    return figures


def _judge(figures: Figures, pairs: int) -> None:
    spent = statistics.median(figures.values[f"{pairs} pairs"]["ours"])
    if spent > MOST.get(pairs, spent):
        figures.missed.append(f"{pairs} pairs take {spent:.1f} s, not {MOST[pairs]:g}.")


def _evaluations(session: psycopg.Connection[Any], pairs: int) -> Iterator[float]:
    """Seconds of each evaluation. Raises RuntimeError if other alerts fire than should."""
    node, start = _one(session, "SELECT pgops.primary_node_id()"), _one(session, START)
    series = [{"metric": f"load{number % RULES}", "database": f"shop{number // RULES}"} for number in range(pairs)]
    shapes = [series[at : at + TOGETHER] for at in range(0, pairs, TOGETHER)]
    values = [9.0 if number % FIRING == 0 else 1.0 for number in range(TOGETHER)]
    known = {"category": "performance", "unit": "count", "kind": "gauge", "direction": "above"}
    metrics = json.dumps([{"metric_name": f"load{number}", **known} for number in range(RULES)])
    for key, shape in enumerate(shapes):
        session.execute(DEFINE, [node, b"%d" % key, metrics, json.dumps(shape)])
    for number in range(RULES):
        session.execute(RULE, [f"rule{number}", f"load{number}"])
    for minute in range(MINUTES + EVALUATIONS):
        for key in range(len(shapes)):
            session.execute(STORE, [node, b"%d" % key, start, minute, values])
        if minute >= MINUTES:
            began = time.perf_counter()
            session.execute(EVALUATE, [start, minute])
            yield time.perf_counter() - began
        elif minute == 0:
            session.execute("VACUUM ANALYZE")
    fired = _one(session, STATES)
    if fired != pairs // FIRING:
        raise RuntimeError(f"{fired} alerts fire, and not {pairs // FIRING}")


def _one(session: psycopg.Connection[Any], query: str) -> Any:
    (found,) = session.execute(query.encode()).fetchone() or (None,)
    return found
