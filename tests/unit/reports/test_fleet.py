# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What follows from all hosts together."""

from __future__ import annotations

import re
from typing import Any

import artifact

from pgops.reports import fleet, listing
from pgops.reports.charts import CHARTS
from pgops.reports.fleet import Host
from pgops.version import VERSION

MADE = "2026-01-31T03:12:00Z"
DOWN = {"code": "unreachable", "message": "no socket"}


def report(node: str, cluster: str = "shop", **facts: Any) -> dict[str, Any]:
    """Of a host with one instance."""
    instance = {"name": "17-main", "role": "primary", "version": "17.4", "major": 17, "running": True, "error": None}
    read = {"gathered_at": MADE, "host": {"os": "Debian", "hostname": node}, "instances": [{**instance, **facts}]}
    stored = {"cluster": cluster, "node": node, "history": None, "panels": {}, "error": None}
    return {"format": 1, "facts": read, "stored": {"17-main": stored}}


def settings(**values: str) -> dict[str, Any]:
    found = {name: {"value": value, "unit": None, "source": "default"} for name, value in values.items()}
    return {"error": None, "hidden": {}, "parameters": found, "pending_restart": []}


def test_a_host_that_cannot_be_asked_is_shown_as_that() -> None:
    made = fleet.document([Host("db1", None, "Unreachable: no route"), Host("db2", report("db2"))], MADE)
    assert [(host["name"], host["status"], host["text"]) for host in made["hosts"]] == [
        ("db1", "critical", "Unreachable: no route"),
        ("db2", "ok", ""),
    ]
    assert fleet.worst(made) == "critical"
    empty = report("db3")
    empty["facts"]["instances"] = []
    (host,) = fleet.document([Host("db3", empty)], MADE)["hosts"]
    assert (host["status"], host["instances"]) == ("unknown", 0)


def test_a_document_has_what_is_documented() -> None:
    made = fleet.document([Host("db1", report("db1", cluster="shop"))], "2026-01-31T04:00:00Z")
    (instance,) = made.pop("instances")
    (host,) = made.pop("hosts")
    assert [sorted(chart) for chart in made.pop("charts")] == [["key", "title", "unit"]] * len(CHARTS)
    assert made == {"format": 1, "version": VERSION, "made_at": "2026-01-31T04:00:00Z"}
    assert host == {
        "name": "db1",
        "status": "ok",
        "text": "",
        "gathered_at": MADE,
        "instances": 1,
        "os": "Debian",
        "hostname": "db1",
    }
    facts = instance.pop("facts")
    assert (facts["name"], facts["version"]) == ("17-main", "17.4")
    assert instance == {
        "id": "db1/17-main",
        "host": "db1",
        "name": "17-main",
        "cluster": "shop",
        "node": "db1",
        "gathered_at": MADE,
        "status": "ok",
        "reasons": [],
        "history": None,
        "panels": {},
        "differs": [],
    }
    page = (artifact.ROOT / "docs" / "reports.md").read_text()
    named = set(re.findall(r"`(?:instances\[\]\.)?([a-z_]+)(?:\[\])?`", page))
    assert {*made, *host, *instance, "facts", "hosts", "instances", "charts"} <= named


def test_a_host_without_a_reason_has_one() -> None:
    (host,) = fleet.document([Host("db1", None)], MADE)["hosts"]
    assert host["text"] == "Nothing was returned"
    assert (host["gathered_at"], host["os"], host["hostname"], host["instances"]) == (None, None, None, 0)


def test_the_worst_instances_come_first() -> None:
    made = fleet.document([Host("a", report("a")), Host("b", report("b", error=DOWN, running=False))], MADE)
    assert [(one["id"], one["status"]) for one in made["instances"]] == [
        ("b/17-main", "critical"),
        ("a/17-main", "ok"),
    ]
    assert fleet.worst(fleet.document([Host("a", report("a"))], MADE)) == "ok"
    assert fleet.worst(fleet.document([], MADE)) == "unknown"


def test_since_when_one_is_down_is_known_by_its_peers() -> None:
    nodes = {"error": None, "nodes": [{"node": "b", "seen_age_s": 3600, "newest_age_s": 3600}]}
    down = Host("b", report("b", error=DOWN, running=False))
    made = fleet.document([Host("a", report("a", monitoring=nodes)), down], MADE)
    assert made["instances"][0]["reasons"][0]["since"] == "2026-01-31T02:12:00Z"
    alone = fleet.document([down], MADE)
    assert alone["instances"][0]["reasons"][0]["since"] is None
    other = fleet.document([Host("a", report("a", cluster="crm", monitoring=nodes)), down], MADE)
    assert other["instances"][0]["reasons"][0]["since"] is None


def test_settings_that_differ_in_a_cluster_are_found() -> None:
    hosts = [
        Host("a", report("a", settings=settings(work_mem="4MB", fsync="on"))),
        Host("b", report("b", settings=settings(work_mem="8MB", fsync="on"))),
        Host("c", report("c", cluster="crm", settings=settings(work_mem="1MB"))),
        Host("d", report("d", settings={"error": DOWN})),
    ]
    made = {one["host"]: one["differs"] for one in fleet.document(hosts, MADE)["instances"]}
    assert made["a"] == [{"setting": "work_mem", "value": "4MB", "elsewhere": {"b": "8MB"}}]
    assert made["b"] == [{"setting": "work_mem", "value": "8MB", "elsewhere": {"a": "4MB"}}]
    assert (made["c"], made["d"]) == ([], [])


def test_the_table_has_a_line_for_each_and_obeys_nobody() -> None:
    hosts = [Host("db1", report("db1")), Host("db\x1b[2J", None, "Failed: \u202egnp\x07" + "x" * 200)]
    lines = listing.lines(fleet.document(hosts, MADE))
    assert [line.split()[:2] for line in lines] == [
        ["STATUS", "INSTANCE"],
        ["critical", "db\\x1b[2J"],
        ["ok", "db1/17-main"],
    ]
    assert all(line.isprintable() for line in lines)
    assert max(map(len, lines)) < 250


def test_durations_are_said_as_people_say_them() -> None:
    assert [listing.duration(one) for one in (5, 119, 120, 7199, 7200, 172800)] == [
        "5 s",
        "119 s",
        "2 min",
        "120 min",
        "2 h",
        "2 d",
    ]
