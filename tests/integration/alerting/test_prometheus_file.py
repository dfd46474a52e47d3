# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The rule file that is written for Prometheus fires in the same minutes as the rules in the ops database, for random
series: clear thresholds, aggregates, units and all operators included."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from deploying import target
from minutely import confirmed, evaluated
from servers import Server

from pgops.alerting import prometheus, stored
from pgops.alerting.prometheus import Known
from pgops.metrics.collectors import Metric
from pgops.metrics.exposition import exported_value, number
from pgops.server.session import connect

SERIES = 100
MINUTES = 60
METRIC = Metric("used_percent", unit="%")
ABOVE = {"condition_operator": ">", "threshold_value": 55}
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


def course(draw: random.Random) -> list[float]:
    """Values at, above and below the thresholds, which stay for a while."""
    values: list[float] = []
    while len(values) < MINUTES:
        values += [draw.choice((7.0, 35.0, 45.0, 55.0, 58.0, 99.0))] * draw.choice((1, 1, 2, 3, 5, 8))
    return values[:MINUTES]


def test_random_series_fire_in_the_file_as_in_the_ops_database(deployed: Server, tmp_path: Path) -> None:
    draw = random.Random(18)
    courses = [course(draw) for _number in range(SERIES)]
    ours = evaluated(deployed, METRIC, {name: {**ABOVE, **columns} for name, columns in RULES.items()}, courses)
    fired = {(rule, state) for minute in ours for rule, _series, state in minute}
    assert {rule for rule, state in fired if state == "firing"} == set(RULES)
    with connect(target(deployed, database="pgops")) as session:
        rules = [rule for _source, rule in stored.rules(session, "alert_rules")]
    series = {
        f'pgops_used_ratio{{cluster="shop",s="{place}"}}': " ".join(
            number(exported_value(METRIC, value)) for value in values
        )
        for place, values in enumerate(courses)
    }

    def labelled(rule: str, place: str, state: str) -> str:
        return f'alertname="{rule}",alertstate="{state}",severity="warning",cluster="shop",s="{place}"'

    confirmed(tmp_path, prometheus.rule_file(rules, Known("shop", {METRIC.name: METRIC})), series, ours, labelled)
