# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random series give the same pending and firing minutes as in Prometheus, which promtool decides.

By intent it is different that a window does not include its beginning (Prometheus has it so from 3.0 on); that data
which is missing can be kept or fire; clear thresholds; and flapping. Here no rule uses these.
"""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import promtool
from servers import Server

SERIES = 1000
MINUTES = 60
RULES: dict[str, dict[str, Any]] = {
    "plain": {"minimum_duration": "0 minutes"},
    "lasting": {"minimum_duration": "5 minutes"},
    "kept": {"minimum_duration": "0 minutes", "keep_firing_for": "3 minutes"},
    "both": {"minimum_duration": "2 minutes", "keep_firing_for": "7 minutes"},
}
STATES = """
SELECT r.rule_name, s.other ->> 's', (t.progress).state FROM pgops.alert_state AS t
JOIN pgops.alert_rule AS r USING (rule_id) JOIN pgops.series AS s USING (series_id)
"""
SHOWN = {"pending": "pending", "firing": "firing", "recovering": "firing"}


def course(draw: random.Random) -> list[float | None]:
    """The values of a series by minutes: they stay for a while, as real ones do, and some are missing for a while."""
    values: list[float | None] = []
    while len(values) < MINUTES:
        values += [draw.choice((9.0, 9.0, 1.0, 1.0, 1.0, None))] * draw.choice((1, 1, 2, 3, 4, 6, 9))
    return values[:MINUTES]


def written(values: list[float | None]) -> str:
    """The same in promtool's notation."""
    return " ".join("_" if value is None else str(value) for value in values)


def evaluated(server: Server, courses: list[list[float | None]]) -> list[list[tuple[str, str, str]]]:
    """By minute, what each rule is to each series: (rule, series, pending or firing)."""
    minutes = []
    with server.connect("pgops") as session:
        (start,) = session.execute("SELECT date_trunc('hour', now()) - interval '1 day'").fetchone() or ()
        metric = json.dumps([{"metric_name": "load", "category": "performance", "unit": "count", "kind": "gauge"}])
        places = json.dumps([{"metric": "load", "other": {"s": str(number)}} for number in range(len(courses))])
        session.execute("SELECT pgops.define_shape(pgops.primary_node_id(), '\\x01', %s, %s)", [metric, places])
        for name, columns in RULES.items():
            shared = {"rule_name": name, "metric_name": "load", "condition_operator": ">", "threshold_value": 5}
            # A second longer than Prometheus looks back, whose window includes both of its ends before 3.0.
            own = {"evaluation_window": "301 seconds", "missing_data": "resolve", "flapping_after": 0}
            all_of_it = {**shared, **own, **columns}
            places = ", ".join(["%s"] * len(all_of_it))
            query = f"INSERT INTO pgops.alert_rules ({', '.join(all_of_it)}) VALUES ({places})"
            session.execute(query.encode(), list(all_of_it.values()))
        for minute in range(MINUTES):
            now = "%s::timestamptz + make_interval(mins => %s)"
            values = [values[minute] for values in courses]
            store = f"SELECT pgops.store_round(pgops.primary_node_id(), '\\x01', 'here', {now}, %s::float8[])"
            session.execute(store.encode(), [start, minute, values])
            session.execute(f"SELECT pgops.evaluate_alerts_at({now})".encode(), [start, minute])
            found = session.execute(STATES.encode()).fetchall()
            minutes.append([(rule, series, SHOWN[state]) for rule, series, state in found if state != "inactive"])
    return minutes


def test_random_series_are_pending_and_firing_as_in_prometheus(deployed: Server, tmp_path: Path) -> None:
    draw = random.Random(19)
    courses = [course(draw) for _number in range(SERIES)]
    ours = evaluated(deployed, courses)
    assert {state for minute in ours for _rule, _series, state in minute} == {"pending", "firing"}
    short = {"minimum_duration": "for", "keep_firing_for": "keep_firing_for"}
    rules = [
        {"alert": name, "expr": "load > 5", **{short[key]: value.split()[0] + "m" for key, value in columns.items()}}
        for name, columns in RULES.items()
    ]
    expected = [
        {
            "expr": "ALERTS",
            "eval_time": f"{minute}m",
            "exp_samples": [
                {"labels": f'ALERTS{{alertname="{rule}", alertstate="{state}", s="{series}"}}', "value": 1}
                for rule, series, state in states
            ],
        }
        for minute, states in enumerate(ours)
    ]
    series = [{"series": f'load{{s="{number}"}}', "values": written(values)} for number, values in enumerate(courses)]
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": expected}]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "all", "rules": rules}]}))
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(json.dumps(document))
    command = [str(promtool.program()), "test", "rules", str(tmp_path / "tests.yml")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, (said.stdout + said.stderr)[:5000]
