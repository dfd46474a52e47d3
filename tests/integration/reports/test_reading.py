# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a report knows of a host, read from real servers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sized
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from deploying import collect, configured, target
from servers import Server
from waiting import until

from pgops.errors import InvalidInput
from pgops.instance.layout import Layout
from pgops.reports import charts, panels, reading
from pgops.server.target import Target

PARAMS: dict[str, Any] = {
    "instances": [],
    "hours": 1.0,
    "ends_at": "",
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


@pytest.mark.every_major
def test_a_setting_that_was_written_and_not_loaded_is_told(
    deployed: Server, described: Callable[..., dict[str, Any]]
) -> None:
    assert described()["panels"]["settings"]["rows"] == []
    deployed.value("ALTER SYSTEM SET work_mem = '17MB'")
    try:
        (row,) = described()["panels"]["settings"]["rows"]
        assert (row["setting"], row["file"], row["running"]) == ("work_mem", "17MB", "4MB")
        assert row["why"] == "it waits for a reload"
        deployed.value("ALTER SYSTEM SET max_connections = 77")
        deployed.value("SELECT pg_reload_conf()")
        until(
            lambda: [one["why"] for one in described()["panels"]["settings"]["rows"]],
            "told of the reload",
            ["it waits for a restart"],
        )
    finally:
        deployed.value("ALTER SYSTEM RESET ALL")
        deployed.value("SELECT pg_reload_conf()")


@pytest.mark.parametrize("value", ["NaN", "Infinity"])
def test_what_is_no_number_is_not_drawn(
    deployed: Server, tmp_path: Path, described: Callable[..., dict[str, Any]], value: str
) -> None:
    assert collect(deployed, tmp_path)["errors"] == []
    odd = f"('connections_used_percent', '{value}')"
    deployed.value(f"INSERT INTO pgops.system_metrics (metric_name, metric_value) VALUES {odd}", "pgops")
    found = described()
    assert found["error"] is None
    json.dumps(found, allow_nan=False)


def test_of_the_past_only_what_is_stored_is_told(
    deployed: Server, tmp_path: Path, described: Callable[..., dict[str, Any]]
) -> None:
    assert collect(deployed, tmp_path)["errors"] == []
    found = described(ends_at="2020-01-01 03:12+01", hours=8)
    assert found["error"] is None
    assert found["history"]["charts"] == {}
    assert found["history"]["window"] == {"starts": 1577815920, "ends": 1577844720, "points": 30}
    assert not set(panels.OF_NOW) & set(found["panels"])


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"ends_at": "yesterday or so"}, "is not a time"),
        ({"hours": 0}, "hours must be above 0"),
        ({"hours": 1e9}, "at most"),
        ({"points": 0}, "points must be"),
        ({"instances": ["none"]}, "no instance none"),
    ],
)
def test_a_time_that_cannot_be_is_refused(
    described: Callable[..., dict[str, Any]], params: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInput, match=words):
        described(**params)


def test_who_blocks_whom_is_shown_without_secrets(deployed: Server, described: Callable[..., dict[str, Any]]) -> None:
    with deployed.connect("pgops") as holder, deployed.connect("pgops") as waiter:
        holder.execute("SELECT pg_advisory_lock(7)")
        asked = waiter.pgconn
        asked.send_query(b"SELECT pg_advisory_lock(7), 'x' AS password -- ALTER ROLE ann PASSWORD 'hunter2'")
        rows = until(
            lambda: described()["panels"]["blocking"]["rows"], "blocked", lambda found: len(cast(Sized, found)) == 2
        )
        assert [row["depth"] for row in rows] == [0, 1]
        assert "hunter2" not in str(rows)
        holder.execute("SELECT pg_advisory_unlock(7)")
        while asked.get_result():
            pass
