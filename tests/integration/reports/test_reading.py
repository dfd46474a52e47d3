# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a report knows of a host, read from real servers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from deploying import collect, configured, target
from servers import Server

from pgops.instance.layout import Layout
from pgops.reports import charts, reading
from pgops.server.target import Target

PARAMS: dict[str, Any] = {
    "instances": [],
    "hours": 1.0,
    "until": "",
    "points": 30,
    "database": "pgops",
    "max_bytes": 65536,
    "packed": False,
    "statement_timeout": 30.0,
    "connect_timeout": 10,
}


@pytest.fixture(name="described")
def _described(deployed: Server, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """The instance of a server that an agent is configured for, as a report knows it."""
    name = f"port-{deployed.port}"
    settings, _layout = configured(deployed, tmp_path)
    layout = Layout(name, str(tmp_path))
    Path(layout.agent_file).parent.mkdir(parents=True, exist_ok=True)
    Path(layout.agent_file).write_text(replace(settings, instance=name).text())

    def read(**params: Any) -> dict[str, Any]:
        at: Target = target(deployed)
        report = reading.gather(at, {**PARAMS, "prefix": str(tmp_path), **params})["report"]
        found: dict[str, Any] = report["stored"][name]
        return found

    return read


@pytest.mark.every_major
def test_every_line_of_a_chart_is_of_a_metric_that_has_its_label(deployed: Server, tmp_path: Path) -> None:
    assert collect(deployed, tmp_path)["errors"] == []
    with deployed.connect("pgops") as session:
        known = dict(session.execute("SELECT metric_name, kind FROM pgops.metrics").fetchall())
        found = session.execute(
            "SELECT DISTINCT metric_name, k FROM pgops.system_metrics, jsonb_object_keys(additional_info) AS k"
        ).fetchall()
    lines = [line for _chart, line in charts.lines()]
    assert [line.metric for line in lines if line.metric not in known and not line.metric.startswith("job_")] == []
    sampled = {metric for metric, _label in found}
    labels = {(line.metric, line.by) for line in lines if line.by not in ("", "database") and line.metric in sampled}
    assert labels <= set(found)
    assert {chart.thresholds for chart in charts.CHARTS if chart.thresholds} <= set(known)


@pytest.mark.every_major
def test_what_was_collected_is_drawn(
    deployed: Server, tmp_path: Path, described: Callable[..., dict[str, Any]]
) -> None:
    assert collect(deployed, tmp_path)["errors"] == []
    found = described()
    assert found["error"] is None
    assert (found["cluster"], found["node"]) == ("shop", "db1/main")
    assert [(name, one["error"]) for name, one in found["panels"].items() if one["error"]] == []
    drawn = found["history"]["charts"]
    assert {"sessions", "connections", "sizes", "wraparound"} <= set(drawn)
    sizes = {line["name"]: line["values"] for line in drawn["sizes"]["lines"]}
    assert set(sizes) >= {"pgops", "postgres"}
    (size,) = [value for value in sizes["pgops"] if value is not None]
    assert size == pytest.approx(float(str(deployed.value("SELECT pg_database_size('pgops') / 1048576.0"))), rel=0.2)
    assert all(len(line["values"]) == 30 for chart in drawn.values() for line in chart["lines"])
