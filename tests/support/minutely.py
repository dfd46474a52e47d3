# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Rules that are evaluated minute by minute over series of a test's own, and the same by promtool."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import promtool
from servers import Server

from pgops.metrics.collectors import Metric

LOOKED_BACK = "301 seconds"
"""A second longer than Prometheus looks back, whose windows include both of their ends before 3.0."""
STATES = """
SELECT r.rule_name, s.other ->> 's', (t.progress).state FROM pgops.alert_state AS t
JOIN pgops.alert_rule AS r USING (rule_id) JOIN pgops.series AS s USING (series_id)
"""
SHOWN = {"pending": "pending", "firing": "firing", "recovering": "firing"}
States = list[list[tuple[str, str, str]]]
"""By minute, what each rule is to each series: (rule, series, pending or firing)."""


def evaluated(
    server: Server,
    metric: Metric,
    rules: Mapping[str, Mapping[str, Any]],
    courses: Sequence[Sequence[float | None]],
) -> States:
    """What becomes of rules, each with its columns, over series that have a value a minute; ``s`` is their number."""
    minutes: States = []
    with server.connect("pgops") as session:
        (start,) = session.execute("SELECT date_trunc('hour', now()) - interval '1 day'").fetchone() or ()
        places = [{"metric": metric.name, "other": {"s": str(place)}} for place in range(len(courses))]
        shape = "SELECT pgops.define_shape(pgops.primary_node_id(), '\\x01', %s, %s)"
        session.execute(shape.encode(), [json.dumps([metric.definition()]), json.dumps(places)])
        for name, columns in rules.items():
            shared = {"rule_name": name, "metric_name": metric.name, "evaluation_window": LOOKED_BACK}
            own = {**shared, "missing_data": "resolve", "flapping_after": 0, **columns}
            query = f"INSERT INTO pgops.alert_rules ({', '.join(own)}) VALUES ({', '.join(['%s'] * len(own))})"
            session.execute(query.encode(), list(own.values()))
        for minute, values in enumerate(zip(*courses)):
            now = "%s::timestamptz + make_interval(mins => %s)"
            store = f"SELECT pgops.store_round(pgops.primary_node_id(), '\\x01', 'here', {now}, %s::float8[])"
            session.execute(store.encode(), [start, minute, list(values)])
            session.execute(f"SELECT pgops.evaluate_alerts_at({now})".encode(), [start, minute])
            found = session.execute(STATES.encode()).fetchall()
            minutes.append([(rule, series, SHOWN[state]) for rule, series, state in found if state != "inactive"])
    return minutes


def confirmed(
    folder: Path, rules: str, series: Mapping[str, str], states: States, labelled: Callable[[str, str, str], str]
) -> None:
    """Have promtool say that a rule file has the same alerts in the same minutes. ``series`` are values in its
    notation by selectors; ``labelled`` makes the labels of ALERTS of a rule, a series and a state."""
    expected = [
        {
            "expr": "ALERTS",
            "eval_time": f"{minute}m",
            "exp_samples": [{"labels": f"ALERTS{{{labelled(*one)}}}", "value": 1} for one in found],
        }
        for minute, found in enumerate(states)
    ]
    values = [{"series": selector, "values": text} for selector, text in series.items()]
    tests = [{"interval": "1m", "input_series": values, "promql_expr_test": expected}]
    (folder / "rules.yml").write_text(rules)
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (folder / "tests.yml").write_text(json.dumps(document))
    command = [str(promtool.program()), "test", "rules", str(folder / "tests.yml")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, (said.stdout + said.stderr)[:5000]
