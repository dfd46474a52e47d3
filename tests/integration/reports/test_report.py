# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The report of a fleet: what the playbook writes, and what a browser makes of it."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import binaries
import pytest
from copies import Copies
from deploying import collect, configured
from servers import Server

pytest.importorskip("playwright", reason="the oldest host and the oldest controller have no browser")

from browsing import Visit, opened

from pgops.instance.layout import Layout
from pgops.reports import page
from pgops.reports.charts import CHARTS
from playbooks import Run, play

HOSTILE = "<script>alert(1)</script>\u202e"
PLAYBOOK = "pgops.fleet.report"


@dataclass(frozen=True)
class Fleet:
    """A host with a server that is monitored, and one that cannot be reached."""

    inventory: Path
    folder: Path
    server: Server

    @property
    def page(self) -> Path:
        return self.folder / "report.html"

    def report(self, *arguments: str, **variables: Any) -> Run:
        given = {"pgops_report_path": str(self.page), "pgops_become": False, "pgops_report_hours": 1, **variables}
        return play(self.inventory, self.folder, PLAYBOOK, "-e", json.dumps(given), *arguments)


@pytest.fixture(name="fleet", scope="module")
def _fleet(copies: Copies, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    folder = tmp_path_factory.mktemp("fleet")
    with copies.one() as server:
        server.value(f'CREATE DATABASE "{HOSTILE}"')
        if server.os_user != server.superuser:  # who runs a server is its superuser, as Debian has it
            server.value(f'CREATE ROLE "{server.os_user}" SUPERUSER LOGIN')
        settings, _layout = configured(server, folder)
        layout = Layout("shop1", str(folder))
        Path(layout.agent_file).parent.mkdir(parents=True, exist_ok=True)
        Path(layout.agent_file).write_text(replace(settings, instance="shop1").text())
        assert collect(server, folder)["errors"] == []
        hosts = {
            "db1": {
                "ansible_connection": "local",
                "ansible_python_interpreter": sys.executable,
                "pgops_prefix": str(folder),
            },
            "gone": {"ansible_host": "127.0.0.1", "ansible_port": 1, "ansible_ssh_common_args": "-F /dev/null"},
        }
        inventory = folder / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        yield Fleet(inventory, folder, server)


@pytest.fixture(name="written", scope="module")
def _written(fleet: Fleet) -> tuple[Fleet, dict[str, Any]]:
    """The fleet with its page, and the document of it."""
    run = fleet.report("-e", f"pgops_report_json={fleet.folder / 'report.json'}")
    assert run.code == 0, run.text
    assert fleet.page.stat().st_mode & 0o777 == 0o600
    document: dict[str, Any] = json.loads((fleet.folder / "report.json").read_text())
    return fleet, document


@pytest.fixture(name="visit")
def _visit(written: tuple[Fleet, dict[str, Any]]) -> Iterator[Visit]:
    fleet, _document = written
    try:
        binaries.chromium()
    except binaries.UnavailableError as error:
        pytest.skip(str(error))
    with opened(fleet.page) as visit:
        yield visit
        assert visit.said == []
        assert visit.asked == []


def test_a_host_that_is_gone_is_a_part_of_the_report(written: tuple[Fleet, dict[str, Any]]) -> None:
    _fleet, document = written
    gone = next(host for host in document["hosts"] if host["name"] == "gone")
    assert gone["status"] == "critical"
    assert gone["text"].startswith("Unreachable: ")
    found = next(one for one in document["instances"] if one["name"] == "shop1")
    assert (found["cluster"], found["node"], found["facts"]["role"]) == ("shop", "db1/main", "primary")
    assert HOSTILE in [line["name"] for line in found["history"]["charts"]["sizes"]["lines"]]


def test_a_query_and_an_exit_code_are_for_programs(fleet: Fleet) -> None:
    asked = fleet.report("-e", json.dumps({"query": "hosts[?status=='critical'].name"}))
    assert asked.code == 0
    assert '"gone"' in asked.text
    failed = fleet.report("-e", "pgops_report_fail_on=critical")
    assert failed.code != 0
    assert "The worst status of the fleet is critical" in failed.text
    wrong = fleet.report("-e", json.dumps({"query": "hosts[?"}))
    assert wrong.code != 0
    assert "not valid JMESPath" in wrong.text


def test_the_fleet_is_shown_as_the_document_has_it(written: tuple[Fleet, dict[str, Any]], visit: Visit) -> None:
    _fleet, document = written
    silent = [host["name"] for host in document["hosts"] if not host["instances"]]
    names = visit.texts("tbody td:nth-child(2)")
    assert names == silent + [one["id"] for one in document["instances"]]
    found = next(one for one in document["instances"] if one["name"] == "shop1")
    row = visit.page.locator("tbody tr", has_text="shop1").inner_text()
    assert found["facts"]["version"] in row
    assert found["status"] in row
    assert visit.violations() == []


def test_rows_are_filtered_and_sorted(visit: Visit) -> None:
    shown = visit.page
    everything = visit.texts("tbody td:nth-child(2)")
    shown.keyboard.press("/")
    shown.keyboard.type("shop1")
    assert visit.texts("tbody td:nth-child(2)") == ["db1/shop1"]
    address = shown.url
    shown.locator("#find").fill("")
    assert visit.texts("tbody td:nth-child(2)") == everything
    head = shown.get_by_role("button", name="Instance")
    head.click()
    assert visit.texts("tbody td:nth-child(2)") == sorted(everything)
    assert shown.locator("th[aria-sort=ascending]").inner_text().startswith("Instance")
    shown.keyboard.press("Enter")  # it still has the focus
    assert visit.texts("tbody td:nth-child(2)") == sorted(everything, reverse=True)
    shown.get_by_role("button", name="critical").click()
    assert "gone" in visit.texts("tbody td:nth-child(2)")
    assert set(visit.texts("tbody td:nth-child(1)")) == {"✖ critical"}
    shown.goto(address)
    shown.reload()
    shown.wait_for_selector("html[data-ready]", state="attached")
    assert visit.texts("tbody td:nth-child(2)") == ["db1/shop1"], "the address keeps the view"


def test_an_instance_has_its_charts_and_its_facts(written: tuple[Fleet, dict[str, Any]], visit: Visit) -> None:
    _fleet, document = written
    found = next(one for one in document["instances"] if one["name"] == "shop1")
    visit.page.get_by_role("link", name="db1/shop1").click()
    titles = {chart["key"]: chart["title"] for chart in document["charts"]}
    assert visit.page.locator(".grid canvas").count() == len(found["history"]["charts"])
    shown = visit.texts(".grid h3")
    assert [title for key in found["history"]["charts"] for title in shown if title.startswith(titles[key])] == shown
    tiles = dict(zip(visit.texts(".fact dt"), visit.texts(".fact dd")))
    connections = found["facts"]["connections"]
    assert tiles["Version"] == found["facts"]["version"]
    assert tiles["Connections"] == f"{connections['total']} of {connections['max']}"
    assert tiles["Databases"] == str(found["facts"]["databases"]["total"])
    assert visit.violations() == []
    visit.page.locator("#theme").click()
    assert visit.violations() == []
    visit.sit(390)
    assert visit.violations() == []
    visit.page.keyboard.press("Escape")
    assert visit.page.get_by_role("link", name="db1/shop1").is_visible()


def test_names_of_others_are_text(visit: Visit) -> None:
    visit.page.get_by_role("link", name="db1/shop1").click()
    assert "<script>alert(1)</script>\\u202e" in visit.texts(".legend bdi")
    assert visit.page.locator("main script").count() == 0
    assert "\u202e" not in visit.page.inner_text("body")


def test_a_time_that_is_chosen_holds_for_all_charts(visit: Visit) -> None:
    visit.page.get_by_role("link", name="db1/shop1").click()
    plot = visit.page.locator(".u-over").first
    place = plot.bounding_box()
    assert place
    visit.page.mouse.move(place["x"] + 20, place["y"] + 20)
    visit.page.mouse.down()
    visit.page.mouse.move(place["x"] + place["width"] / 2, place["y"] + 20, steps=3)
    visit.page.mouse.up()
    visit.page.wait_for_url("**from=**")
    spans = visit.page.evaluate(
        "[...new Set(drawn.map((one) => one.plot.scales.x.min + ' ' + one.plot.scales.x.max))]"
    )
    assert len(spans) == 1
    visit.page.go_back()
    visit.page.wait_for_function("!location.hash.includes('from')")


def test_it_is_readable_in_the_dark(written: tuple[Fleet, dict[str, Any]]) -> None:
    fleet, _document = written
    with opened(fleet.page, dark=True) as visit:
        assert visit.page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(13, 17, 23)"
        assert visit.violations() == []


def test_a_page_of_500_instances_is_small_and_works(written: tuple[Fleet, dict[str, Any]], tmp_path: Path) -> None:
    _fleet, document = written
    drawn = random.Random(1)
    one = next(one for one in document["instances"] if one["name"] == "shop1")
    many = [{**one, "id": f"db{number}/main", "history": _varied(one["history"], drawn)} for number in range(500)]
    path = tmp_path / "many.html"
    path.write_text(page.page({**document, "hosts": [], "instances": many}))
    assert path.stat().st_size < 5_000_000
    with opened(path) as visit:
        assert visit.page.locator("tbody tr").count() == 500
        visit.page.locator("#find").fill("db499/")
        assert visit.texts("tbody td:nth-child(2)") == ["db499/main"]
        visit.page.get_by_role("link", name="db499/main").click()
        visit.page.wait_for_selector(".grid canvas")
        assert (visit.said, visit.asked) == ([], [])


def _varied(history: dict[str, Any], drawn: random.Random) -> dict[str, Any]:
    """All the charts of a busy instance, in the steps that a report of many hosts has."""

    def values() -> list[float]:
        return [float(f"{drawn.uniform(0, 10000):.4g}") for _step in range(48)]

    made = {
        chart.key: {
            "lines": [
                {"name": f"{line.name} {number}", "values": values()}
                for line in chart.lines
                for number in range(3 if line.by else 1)
            ],
            "newest": history["window"]["ends"],
            "thresholds": None,
        }
        for chart in CHARTS
    }
    return {"window": {**history["window"], "points": 48}, "charts": made}
