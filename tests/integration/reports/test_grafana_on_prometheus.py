# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A real Prometheus answers what the Grafana dashboards ask, over the export of a server that was collected."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import panels
import prometheus_server
import pytest
from deploying import SHIPPED, collect, configured, inspect
from panels import Asked
from prometheus_server import Prometheus
from servers import Server

from pgops.metrics import collectors, exposition, latest

STARTS = 1_767_225_600
"""Of the samples: any time, in Unix seconds."""
MINUTES = 90
NOW = STARTS + 60 * MINUTES
PUT_IN = {"$__rate_interval": "5m", "$clusters": "shop|crm", "$cluster": "shop", "$node": "db1/main"}
SELECTED = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{")
GROUPED = re.compile(r" by \(([^)]*)\)")
ALERT = 'ALERTS{alertname="full",alertstate="firing",cluster="shop",node="db1/main",severity="%s"}'
CRITICAL = ALERT % "critical"


def exported(server: Server, folder: Path) -> list[str]:
    """The lines of a server's export, without descriptions."""
    assert collect(server, folder)["errors"] == []
    assert inspect(server, folder)["errors"] == []
    _settings, layout = configured(server, folder)
    own = latest.present([layout.latest], time.time())
    inspected = latest.received(
        layout.inspected, {one.name: [metric.name for metric in one.metrics] for one in SHIPPED}
    )
    text = exposition.exposition(collectors.metrics(SHIPPED).values(), [*own, *inspected], "shop", "db1/main")
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.fixture(name="asked_of")
def _asked_of(deployed: Server, tmp_path: Path) -> Iterator[tuple[Prometheus, set[str]]]:
    """A Prometheus with an hour of the same samples, and the names of the metrics that it has."""
    lines = [*exported(deployed, tmp_path), f"{CRITICAL} 1"]
    folder = tmp_path / "prometheus"
    folder.mkdir()
    found = Prometheus(folder)
    try:
        found.fill(lines, range(STARTS, NOW + 60, 60))
    except prometheus_server.UnavailableError as error:
        pytest.skip(str(error))
    try:
        yield found.start(), {line.partition("{")[0] for line in lines}
    finally:
        found.stop()


def expressions() -> list[Asked]:
    return [one for one in panels.asked("prometheus") if one.form == "expression"]


def test_what_is_exported_is_drawn_by_the_labels_that_it_has(asked_of: tuple[Prometheus, set[str]]) -> None:
    prometheus, there = asked_of
    drawn: set[str] = set()
    for one in expressions():
        text = one.filled(PUT_IN)
        answer = prometheus.value(text, NOW)
        names = set(SELECTED.findall(text))
        if not names <= there:
            continue
        drawn |= names
        assert answer, one.place
        wanted = {label.strip() for labels in GROUPED.findall(text) for label in labels.split(",") if label.strip()}
        assert [series for series in answer if not wanted <= set(series["metric"])] == [], one.place
    assert {"pgops_connections", "pgops_wal_bytes_total", "pgops_database_size_bytes", "ALERTS"} <= drawn


def test_a_critical_alert_is_drawn_as_one(asked_of: tuple[Prometheus, set[str]]) -> None:
    prometheus, _there = asked_of
    (line,) = [one for one in expressions() if one.place == "alerts: When they fired, A"]
    (found,) = prometheus.value(line.filled(PUT_IN), NOW)
    assert found["value"][1] == "2"
    assert found["metric"] == {"alertname": "full", "cluster": "shop", "node": "db1/main"}
