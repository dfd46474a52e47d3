# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The samples of a node as the lines of its charts."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..facts.answer import ask
from ..server.session import Session
from .charts import CHARTS, MAXIMUM, MOST_LINES, Chart, Line, lines
from .window import Window

DIGITS = 4
"""Of each value: more cannot be seen in a chart."""
OTHERS = "all others"

# A metric that no collector of this installation has is left out; so is one whose kind has changed.
POINTS = """
WITH line AS (
    SELECT l.metric, l.label FROM json_to_recordset(%(lines)s::json) AS l (metric text, label text)
),

bounds AS (
    SELECT
        to_timestamp(%(starts)s) AS starts,
        to_timestamp(%(ends)s) AS ends,
        make_interval(secs => %(step)s) AS step
),

point AS (
    SELECT
        l.metric, l.label, v.database_name, v.additional_info, v.ended_at, v.average AS middle, v.maximum AS high
    FROM line AS l
    INNER JOIN pgops.metrics AS m ON l.metric = m.metric_name AND m.kind = 'gauge'
    CROSS JOIN bounds AS b
    CROSS JOIN LATERAL pgops.metric_values(l.metric, b.starts, b.ends, b.step) AS v
    WHERE v.node = %(node)s
    UNION ALL
    SELECT
        l.metric, l.label, r.database_name, r.additional_info, r.ended_at, r.rate, r.rate
    FROM line AS l
    INNER JOIN pgops.metrics AS m ON l.metric = m.metric_name AND m.kind = 'counter'
    CROSS JOIN bounds AS b
    CROSS JOIN LATERAL pgops.metric_rates(l.metric, b.starts, b.ends, b.step) AS r
    WHERE r.node = %(node)s
),

drawn AS (
    SELECT
        p.metric,
        p.label,
        CASE p.label
            WHEN '' THEN ''
            WHEN 'database' THEN p.database_name
            ELSE p.additional_info ->> p.label
        END AS value,
        floor(extract(EPOCH FROM p.ended_at - interval '1 microsecond' - b.starts) / %(step)s)::integer AS place,
        sum(p.middle) AS added,
        max(p.high) AS highest,
        sum(p.high) AS highest_added,
        extract(EPOCH FROM max(p.ended_at))::bigint AS newest
    FROM point AS p
    CROSS JOIN bounds AS b
    -- NaN, which a collector of one's own may have measured, is above infinity.
    WHERE p.middle > '-Infinity' AND p.middle < 'Infinity'
    GROUP BY 1, 2, 3, 4
)

SELECT coalesce(json_agg(json_build_array(
    d.metric, d.label, d.value, d.place, d.added, d.highest, d.highest_added, d.newest
)), '[]') AS points
FROM drawn AS d
WHERE d.value IS NOT NULL
"""

THRESHOLDS = """
SELECT coalesce(json_object_agg(m.metric_name, json_build_object(
    'direction', m.direction, 'warning', m.warning, 'critical', m.critical
)), '{}') AS thresholds
FROM pgops.metrics AS m
WHERE m.metric_name = ANY (%(metrics)s::text[]) AND m.direction IS NOT NULL
"""

Point = Sequence[Any]
Values = list[Any]
"""Of each step of the window; None where nothing was measured."""


def read(session: Session, node: str, window: Window) -> dict[str, Any]:
    """The charts of a node: ``window``, and by the key of each chart that has a sample its ``lines`` (name and
    values), ``newest`` (seconds since 1970) and ``thresholds``.

    Raises QueryFailed.
    """
    wanted = {(line.metric, line.by) for _chart, line in lines()}
    params = {
        **window.bounds(),
        "node": node,
        "lines": json.dumps([{"metric": metric, "label": label} for metric, label in sorted(wanted)]),
    }
    points = ask(session, POINTS, params)["points"]
    metrics = sorted({chart.thresholds for chart in CHARTS if chart.thresholds})
    thresholds = ask(session, THRESHOLDS, {"metrics": metrics})["thresholds"]
    return {"window": window.described(), "charts": drawn(points, thresholds, window.points)}


def drawn(points: Iterable[Point], thresholds: Mapping[str, Any], steps: int) -> dict[str, Any]:
    """The charts that ``points`` (rows of POINTS) are samples of. Pure."""
    found: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for point in points:
        found[point[0], point[1]].append(point)
    charts = {chart.key: _chart(chart, found, thresholds, steps) for chart in CHARTS}
    return {key: one for key, one in charts.items() if one["lines"]}


def _chart(
    chart: Chart, found: Mapping[tuple[str, str], Sequence[Point]], thresholds: Mapping[str, Any], steps: int
) -> dict[str, Any]:
    known = [(line, found.get((line.metric, line.by), ())) for line in chart.lines]
    return {
        "lines": [made for line, points in known for made in _lines(line, points, steps)],
        "newest": max((point[7] for _line, points in known for point in points), default=None),
        "thresholds": thresholds.get(chart.thresholds),
    }


def _lines(line: Line, points: Sequence[Point], steps: int) -> list[dict[str, Any]]:
    """The lines of a metric: one, or one for each value of its label, those with the highest last value first."""
    values: dict[str, Values] = defaultdict(lambda: [None] * steps)
    for _metric, _label, value, place, added, highest, highest_added, _newest in points:
        if 0 <= place < steps:
            most = highest_added if line.summed else highest
            values[value][place] = most if line.take == MAXIMUM else added
    ordered = sorted(values, key=lambda name: (-_last(values[name]), name))
    kept = ordered if len(ordered) <= MOST_LINES else ordered[: MOST_LINES - 1]
    made = [{"name": name or line.name, "values": list(map(_short, values[name]))} for name in kept]
    left = [values[name] for name in ordered[len(kept) :]]
    if left:
        made.append({"name": OTHERS, "values": list(map(_short, _together(left, sum if line.summed else max)))})
    return made


def _together(many: Sequence[Values], fold: Callable[[Iterable[float]], float]) -> Values:
    there = ([one for one in step if one is not None] for step in zip(*many))
    return [fold(step) if step else None for step in there]


def _last(values: Values) -> float:
    return next((float(one) for one in reversed(values) if one is not None), float("-inf"))


def _short(value: float | None) -> float | None:
    """A value with a few digits, and as an integer where it is one: the page has thousands of them."""
    if value is None:
        return None
    short = float(f"{value:.{DIGITS}g}")
    return int(short) if short.is_integer() else short
