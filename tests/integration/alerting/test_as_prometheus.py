# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Random series give the same pending and firing minutes as in Prometheus, which promtool decides.

By intent it is different that a window does not include its beginning (Prometheus has it so from 3.0 on); that data
which is missing can be kept or fire; clear thresholds; and flapping. Here no rule uses these.
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from minutely import confirmed, evaluated
from servers import Server

from pgops.metrics.collectors import Metric

SERIES = 1000
MINUTES = 60
LOAD = Metric("load")
ABOVE = {"condition_operator": ">", "threshold_value": 5}
RULES: dict[str, dict[str, Any]] = {
    "plain": {"minimum_duration": "0 minutes"},
    "lasting": {"minimum_duration": "5 minutes"},
    "kept": {"minimum_duration": "0 minutes", "keep_firing_for": "3 minutes"},
    "both": {"minimum_duration": "2 minutes", "keep_firing_for": "7 minutes"},
}
THEIRS = {"minimum_duration": "for", "keep_firing_for": "keep_firing_for"}


def course(draw: random.Random) -> list[float | None]:
    """The values of a series by minutes: they stay for a while, as real ones do, and some are missing for a while."""
    values: list[float | None] = []
    while len(values) < MINUTES:
        values += [draw.choice((9.0, 9.0, 1.0, 1.0, 1.0, None))] * draw.choice((1, 1, 2, 3, 4, 6, 9))
    return values[:MINUTES]


def written(values: list[float | None]) -> str:
    """The same in promtool's notation."""
    return " ".join("_" if value is None else str(value) for value in values)


def test_random_series_are_pending_and_firing_as_in_prometheus(deployed: Server, tmp_path: Path) -> None:
    draw = random.Random(19)
    courses = [course(draw) for _number in range(SERIES)]
    ours = evaluated(deployed, LOAD, {name: {**ABOVE, **columns} for name, columns in RULES.items()}, courses)
    assert {state for minute in ours for _rule, _series, state in minute} == {"pending", "firing"}
    rules = [
        {"alert": name, "expr": "load > 5", **{THEIRS[key]: f"{text.split()[0]}m" for key, text in columns.items()}}
        for name, columns in RULES.items()
    ]
    series = {f'load{{s="{number}"}}': written(values) for number, values in enumerate(courses)}

    def labelled(rule: str, number: str, state: str) -> str:
        return f'alertname="{rule}", alertstate="{state}", s="{number}"'

    confirmed(tmp_path, json.dumps({"groups": [{"name": "all", "rules": rules}]}), series, ours, labelled)
