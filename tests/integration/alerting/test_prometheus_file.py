# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rule file that is written for Prometheus fires in the same minutes as the rules in the ops database, for random
series: clear thresholds, aggregates, units and all operators included."""

from __future__ import annotations

import json
import random
import subprocess
from pathlib import Path
from typing import Any

import promtool
from deploying import target
from servers import Server

from pgops.alerting import prometheus, stored
from pgops.alerting.prometheus import Known
from pgops.metrics.collectors import Metric
from pgops.metrics.exposition import exported_value, number
from pgops.server.session import connect

SERIES = 100
MINUTES = 60
METRIC = Metric("used_percent", unit="%")
# A second longer than Prometheus looks back, whose windows include both of their ends before 3.0.
SHARED = {"metric_name": METRIC.name, "condition_operator": ">", "threshold_value": 55, "evaluation_window": "301 s"}
RULES: dict[str, dict[str, Any]] = {
    "cleared": {"clear_threshold": 35, "minimum_duration": "0"},
    "lasting": {"clear_threshold": 35, "minimum_duration": "3 minutes"},
    "kept": {"clear_threshold": 35, "minimum_duration": "1 minute", "keep_firing_for": "2 minutes"},
    "below": {"condition_operator": "<", "threshold_value": 35, "clear_threshold": 55, "minimum_duration": "0"},
    "least": {"condition_operator": ">=", "evaluation": "min", "minimum_duration": "0"},
    "most": {"evaluation": "max", "clear_threshold": 35, "minimum_duration": "2 minutes"},
    "mean": {"evaluation": "avg", "clear_threshold": 45, "minimum_duration": "0"},
    "equal": {"condition_operator": "=", "minimum_duration": "0"},
    "unequal": {"condition_operator": "!=", "minimum_duration": "1 minute"},
    "of_some": {"labels": '{"s": "7"}', "minimum_duration": "0"},
}
STATES = """
SELECT r.rule_name, s.other ->> 's', (t.progress).state FROM pgops.alert_state AS t
JOIN pgops.alert_rule AS r USING (rule_id) JOIN pgops.series AS s USING (series_id)
"""
SHOWN = {"pending": "pending", "firing": "firing", "recovering": "firing"}


def course(draw: random.Random) -> list[float]:
    """Values at, above and below the thresholds, which stay for a while."""
    values: list[float] = []
    while len(values) < MINUTES:
        values += [draw.choice((7.0, 35.0, 45.0, 55.0, 58.0, 99.0))] * draw.choice((1, 1, 2, 3, 5, 8))
    return values[:MINUTES]


def evaluated(server: Server, courses: list[list[float]]) -> list[list[tuple[str, str, str]]]:
    """By minute, what each rule is to each series: (rule, series, pending or firing)."""
    minutes = []
    with server.connect("pgops") as session:
        (start,) = session.execute("SELECT date_trunc('hour', now()) - interval '1 day'").fetchone() or ()
        places = [{"metric": METRIC.name, "other": {"s": str(place)}} for place in range(len(courses))]
        shape = "SELECT pgops.define_shape(pgops.primary_node_id(), '\\x01', %s, %s)"
        session.execute(shape.encode(), [json.dumps([METRIC.definition()]), json.dumps(places)])
        for name, columns in RULES.items():
            own = {"rule_name": name, "missing_data": "resolve", "flapping_after": 0, **SHARED, **columns}
            query = f"INSERT INTO pgops.alert_rules ({', '.join(own)}) VALUES ({', '.join(['%s'] * len(own))})"
            session.execute(query.encode(), list(own.values()))
        for minute in range(MINUTES):
            now = "%s::timestamptz + make_interval(mins => %s)"
            values = [values[minute] for values in courses]
            store = f"SELECT pgops.store_round(pgops.primary_node_id(), '\\x01', 'here', {now}, %s::float8[])"
            session.execute(store.encode(), [start, minute, values])
            session.execute(f"SELECT pgops.evaluate_alerts_at({now})".encode(), [start, minute])
            found = session.execute(STATES.encode()).fetchall()
            minutes.append([(rule, series, SHOWN[state]) for rule, series, state in found if state != "inactive"])
    return minutes


def test_random_series_fire_in_the_file_as_in_the_ops_database(deployed: Server, tmp_path: Path) -> None:
    draw = random.Random(18)
    courses = [course(draw) for _number in range(SERIES)]
    ours = evaluated(deployed, courses)
    fired = {(rule, state) for minute in ours for rule, _series, state in minute}
    assert {rule for rule, state in fired if state == "firing"} == set(RULES)
    with connect(target(deployed, database="pgops")) as session:
        rules = [rule for _source, rule in stored.rules(session, "alert_rules")]
    (tmp_path / "rules.yml").write_text(prometheus.rule_file(rules, Known("shop", {METRIC.name: METRIC})))
    shared = 'severity="warning",cluster="shop"'
    expected = [
        {
            "expr": "ALERTS",
            "eval_time": f"{minute}m",
            "exp_samples": [
                {"labels": f'ALERTS{{alertname="{rule}",alertstate="{state}",{shared},s="{series}"}}', "value": 1}
                for rule, series, state in states
            ],
        }
        for minute, states in enumerate(ours)
    ]
    series = [
        {
            "series": f'pgops_used_ratio{{cluster="shop",s="{place}"}}',
            "values": " ".join(number(exported_value(METRIC, value)) for value in values),
        }
        for place, values in enumerate(courses)
    ]
    tests = [{"interval": "1m", "input_series": series, "promql_expr_test": expected}]
    document = {"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}
    (tmp_path / "tests.yml").write_text(json.dumps(document))
    command = [str(promtool.program()), "test", "rules", str(tmp_path / "tests.yml")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, (said.stdout + said.stderr)[:5000]
