# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The document of a fleet: what was read of each host, and what follows from all of it together. Pure.

Its page, its table and its JSON are made of it; docs/reports.md describes its keys.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from ..version import VERSION
from . import judging
from .charts import CHARTS
from .judging import LEVELS, Reason
from .reading import FORMAT


@dataclass(frozen=True)
class Host:
    """A host of the inventory: what pg_ops_report returned of it, or why there is none."""

    name: str
    report: Mapping[str, Any] | None
    error: str = ""


def document(hosts: Sequence[Host], made_at: str) -> dict[str, Any]:
    """The document of these hosts; ``made_at`` is a time in ISO 8601."""
    found = [
        _instance(host, host.report, one)
        for host in hosts
        if host.report
        for one in host.report["facts"]["instances"]
    ]
    _compare(found)
    for one in found:
        one["status"] = judging.level(one["reasons"])
        one["reasons"] = [reason.data() for reason in one["reasons"]]
    return {
        "format": FORMAT,
        "version": VERSION,
        "made_at": made_at,
        "charts": [{"key": chart.key, "title": chart.title, "unit": chart.unit} for chart in CHARTS],
        "hosts": [_host(host) for host in hosts],
        "instances": sorted(found, key=lambda one: (LEVELS.index(one["status"]), one["id"])),
    }


def _host(host: Host) -> dict[str, Any]:
    facts = host.report["facts"] if host.report else {"host": None, "instances": [], "gathered_at": None}
    known = facts["host"] or {}
    if not host.report:
        status, text = "critical", host.error or "Nothing was returned"
    else:
        status, text = ("ok", "") if facts["instances"] else ("unknown", "No instance of PostgreSQL was found")
    return {
        "name": host.name,
        "status": status,
        "text": text,
        "gathered_at": facts["gathered_at"],
        "instances": len(facts["instances"]),
        "os": known.get("os"),
        "hostname": known.get("hostname"),
    }


def _instance(host: Host, report: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    stored = report["stored"].get(facts["name"], {})
    return {
        "id": f"{host.name}/{facts['name']}",
        "host": host.name,
        "name": facts["name"],
        "cluster": stored.get("cluster"),
        "node": stored.get("node"),
        "gathered_at": report["facts"]["gathered_at"],
        "reasons": judging.reasons(facts, stored),
        "facts": dict(facts),
        "history": stored.get("history"),
        "panels": stored.get("panels") or {},
        "differs": [],
    }


def _compare(instances: Sequence[dict[str, Any]]) -> None:
    """Add what only the nodes of a cluster together show: settings that differ, and since when one is not seen."""
    clusters: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for one in instances:
        if one["cluster"]:
            clusters[one["cluster"]].append(one)
    for members in clusters.values():
        for one in members:
            others = [other for other in members if other is not one]
            one["differs"] = differing(one, others)
            if one["facts"]["error"]:
                one["reasons"] = [_since(reason, last_seen(one["node"], others)) for reason in one["reasons"]]


def _since(reason: Reason, seen: str | None) -> Reason:
    return replace(reason, since=seen) if seen else reason


def last_seen(node: str | None, others: Iterable[Mapping[str, Any]]) -> str | None:
    """When a node's agent last reported, as the other nodes of its cluster know; None where they do not."""
    times = []
    for other in others:
        for known in (other["facts"].get("monitoring") or {}).get("nodes", ()):
            if known["node"] == node:
                at = datetime.fromisoformat(other["gathered_at"].replace("Z", "+00:00"))
                times.append(at - timedelta(seconds=known["seen_age_s"]))
    return max(times).strftime("%Y-%m-%dT%H:%M:%SZ") if times else None


def differing(one: Mapping[str, Any], others: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings whose values are not the same on the other nodes of the cluster."""
    mine = _parameters(one)
    found = []
    for name in sorted(mine):
        elsewhere = {
            other["node"] or other["id"]: value
            for other in others
            for value in [_parameters(other).get(name)]
            if value is not None and value != mine[name]
        }
        if elsewhere:
            found.append({"setting": name, "value": mine[name], "elsewhere": elsewhere})
    return found


def _parameters(instance: Mapping[str, Any]) -> dict[str, str]:
    parameters = (instance["facts"].get("settings") or {}).get("parameters") or {}
    return {name: f"{one['value']}{one['unit'] or ''}" for name, one in parameters.items() if one}


def worst(made: Mapping[str, Any]) -> str:
    """The status of the whole fleet."""
    levels = [one["status"] for one in (*made["hosts"], *made["instances"])]
    return min(levels, key=LEVELS.index, default="unknown")
