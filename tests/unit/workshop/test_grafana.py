# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The Grafana dashboards are those that the generator makes, and what they ask Prometheus is there to be asked."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import artifact
import panels
import promtool
import pytest
import yaml
from deploying import SHIPPED

from pgops.metrics import collectors, exposition

NAMES = {"fleet", "instance", "queries", "recovery", "alerts"}
PUT_IN = {
    "$__rate_interval": "5m",
    "$clusters": "shop|crm",
    "$cluster": "shop",
    "$node": "db1/main",
}
SELECTED = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\{")
SOURCES = pytest.mark.parametrize("source", ["postgresql", "prometheus"])


def every_board(source: str) -> list[dict[str, Any]]:
    found = panels.documents(source)
    assert set(found) == NAMES
    return list(found.values())


def test_the_files_are_what_the_generator_writes() -> None:
    pytest.importorskip("grafana_foundation_sdk", reason="the SDK needs Python 3.11, and is in requirements-dev.txt")
    import grafana

    fresh = dict(grafana.files())
    written = {path: path.read_text() for path in grafana.FOLDER.glob("*/*.json")}
    assert set(fresh) == set(written)
    wrong = [str(path) for path, text in fresh.items() if written[path] != text]
    assert wrong == [], "run: python tests/workshop/grafana.py"


@SOURCES
def test_addresses_of_dashboards_and_panels_are_their_own(source: str) -> None:
    boards = every_board(source)
    assert len({board["uid"] for board in boards}) == len(boards)
    for board in boards:
        numbers = [panel["id"] for panel in board["panels"]]
        assert len(set(numbers)) == len(numbers)
        titles = [panel["title"] for panel in board["panels"]]
        assert len(set(titles)) == len(titles)


@SOURCES
def test_panels_do_not_overlap(source: str) -> None:
    for board in every_board(source):
        places = [panel["gridPos"] for panel in board["panels"]]
        cells = [
            (x, y)
            for at in places
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        ]
        assert len(set(cells)) == len(cells), board["title"]
        assert max(x for x, _y in cells) < 24, board["title"]


@SOURCES
def test_all_follow_the_reader_and_the_data_source(source: str) -> None:
    for board in every_board(source):
        assert board["timezone"] == "browser"
        assert board["templating"]["list"][0]["name"] == "datasource"
        for panel in board["panels"]:
            if panel["type"] == "row":
                continue
            assert panel["datasource"]["uid"] == "${datasource}"
            assert panel["targets"]
            if panel["type"] == "timeseries":
                assert panel["fieldConfig"]["defaults"]["custom"]["spanNulls"] is False


@SOURCES
def test_links_lead_to_dashboards_and_to_pages_that_are_shipped(source: str) -> None:
    known = {board["uid"] for board in every_board(source)}
    for board in every_board(source):
        text = json.dumps(board)
        assert set(re.findall(r"/d/([\w-]+)", text)) <= known
        pages = re.findall(r"/tree/main/(docs/[\w.]+)", text)
        assert pages
        assert [page for page in pages if not (artifact.ROOT / page).is_file()] == []


def test_a_chart_has_the_same_lines_on_both_data_sources() -> None:
    ours, others = (panels.documents(source)["instance"]["panels"] for source in ("postgresql", "prometheus"))
    lines, other_lines = (
        {panel["title"]: len(panel["targets"]) for panel in boards if panel["type"] == "timeseries"}
        for boards in (ours, others)
    )
    assert lines == other_lines


def test_thresholds_are_those_that_the_metrics_are_shipped_with() -> None:
    used = collectors.metrics(SHIPPED)["connections_used_percent"]
    for source, factor in (("postgresql", 1.0), ("prometheus", 0.01)):
        (panel,) = [
            one for one in panels.documents(source)["instance"]["panels"] if one["title"] == "Connections used"
        ]
        steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
        assert used.warning is not None
        assert used.critical is not None
        expected = [None, pytest.approx(used.warning * factor), pytest.approx(used.critical * factor)]
        assert [step["value"] for step in steps] == expected


def test_prometheus_has_all_metrics_that_are_asked_for() -> None:
    exported = {name for name, _shared in exposition.names(collectors.metrics(SHIPPED).values()).values()}
    found = panels.asked("prometheus")
    assert len(found) > 50
    for one in found:
        names = set(SELECTED.findall(one.text))
        assert names, one.place
        assert names <= exported | {"ALERTS"}, one.place


def test_prometheus_takes_every_expression(tmp_path: Path) -> None:
    found = [one for one in panels.asked("prometheus") if one.form == "expression"]
    rules = [{"record": f"asked_{place}", "expr": one.filled(PUT_IN)} for place, one in enumerate(found)]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    command = [str(promtool.program()), "check", "rules", "--lint=none", str(tmp_path / "rules.yml")]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    assert said.returncode == 0, (said.stdout + said.stderr)[:5000]


def test_provisioning_files_are_read() -> None:
    read = {path.stem: yaml.safe_load(path.read_text()) for path in (panels.FOLDER / "provisioning").glob("*.yml")}
    assert {one["type"] for one in read["datasources"]["datasources"]} == {
        "grafana-postgresql-datasource",
        "prometheus",
    }
    folders = {Path(one["options"]["path"]).name for one in read["dashboards"]["providers"]}
    assert folders == {path.name for path in panels.FOLDER.iterdir()} - {"provisioning"}
