# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The demo's page: samples and facts in one file of HTML, without any script or network. Pure."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

WIDTH, HEIGHT = 260, 40
STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --dim: #656d76; --good: #1a7f37; --warn: #9a6700; --bad: #cf222e;
  --ink: #1f2328; --paper: #fff; --trace: #0969da; }
@media (prefers-color-scheme: dark) { :root { --line: #30363d; --dim: #8b949e; --good: #3fb950; --warn: #d29922;
  --bad: #f85149; --ink: #e6edf3; --paper: #0d1117; --trace: #58a6ff; } }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem;
  color: var(--ink); background: var(--paper); }
h1 { font-size: 1.5rem; margin: 0 } h2 { font-size: 1.05rem; margin: 2rem 0 .4rem }
p { color: var(--dim); margin: .3rem 0 1rem }
table { border-collapse: collapse; width: 100% }
td, th { border-bottom: 1px solid var(--line); padding: .3rem .6rem; text-align: left; vertical-align: middle }
th { color: var(--dim); font-weight: 500 } td.number { text-align: right; font-variant-numeric: tabular-nums }
.good { color: var(--good) } .warning { color: var(--warn) } .critical { color: var(--bad) }
svg { display: block } path { fill: none; stroke: var(--trace); stroke-width: 1.5 }
"""


def page(samples: Sequence[Mapping[str, Any]], facts: Mapping[str, Any], stored: int) -> str:
    """The whole page. ``samples`` are rows of metric_name, series, part, unit, thresholds, at and value in the order
    of series and time; ``facts`` what pg_ops_facts returned; ``stored`` how many samples were stored in all."""
    (instance,) = facts["instances"]
    title = f"PostgreSQL {instance['version']} on {facts['host']['hostname']}"
    tables = "".join(
        f"<h2>{html.escape(metric)}</h2>{_metric(list(rows))}"
        for metric, rows in groupby(samples, key=lambda row: str(row["metric_name"]))
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>pgops.fleet: {html.escape(title)}</title><style>{STYLE}</style><body>"
        f"<h1>{html.escape(title)}</h1><p>{stored} samples, collected by pgops.fleet as an unprivileged role. "
        "Every value is from a query of this run. Green is good, yellow is a warning, red is critical.</p>"
        f"{_facts(instance)}{tables}</body></html>\n"
    )


def _facts(instance: Mapping[str, Any]) -> str:
    server, schema, databases = (instance.get(name) or {} for name in ("server", "schema", "databases"))
    entries = {
        "Role": instance.get("role"),
        "System identifier": instance.get("system_identifier"),
        "Uptime": f"{server['uptime_s']} s" if server.get("uptime_s") is not None else None,
        "Encoding": server.get("encoding"),
        "Databases": databases.get("total"),
        "Schema pgops": schema.get("migration"),
    }
    cells = "".join(
        f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>"
        for name, value in entries.items()
        if value is not None
    )
    return f"<table>{cells}</table>"


def _metric(rows: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for (series, part), found in groupby(rows, key=lambda row: (str(row["series"]), str(row["part"]))):
        points = list(found)
        last = points[-1]
        name = f"{series} ({part})" if part else series
        lines.append(
            f"<tr><td>{html.escape(name)}</td><td>{sparkline([(row['at'], row['value']) for row in points])}</td>"
            f'<td class="number {state(last)}">{number(last["value"])} {html.escape(str(last["unit"]))}</td></tr>'
        )
    return f"<table>{''.join(lines)}</table>"


def state(row: Mapping[str, Any]) -> str:
    """good, warning or critical, by the metric's thresholds."""
    sign = -1 if row["direction"] == "below" else 1
    for name in ("critical", "warning"):
        if row[name] is not None and sign * row["value"] > sign * row[name]:
            return name
    return "good"


def number(value: float) -> str:
    """A value with as many digits as a person reads."""
    return f"{value:,.0f}" if value == int(value) else f"{value:,.2f}"


def sparkline(points: Sequence[tuple[float, float]]) -> str:
    """A line over time as SVG, from the least to the greatest value; a flat one lies in the middle."""
    times, values = [at for at, _value in points], [value for _at, value in points]
    span, swing = (max(times) - min(times)) or 1.0, max(values) - min(values)
    spots = [
        (
            2 + (at - min(times)) / span * (WIDTH - 4),
            HEIGHT / 2 if not swing else HEIGHT - 3 - (value - min(values)) / swing * (HEIGHT - 6),
        )
        for at, value in points
    ]
    path = "M" + " L".join(f"{x:.1f},{y:.1f}" for x, y in spots)
    return f'<svg width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="over time"><path d="{path}"/></svg>'
