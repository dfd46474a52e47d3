# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What the shipped Grafana dashboards ask their data sources: read from their files, as Grafana reads them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import artifact

FOLDER = artifact.ROOT / "grafana"
VARIABLE = re.compile(r"\$\{?\w+")


@dataclass(frozen=True)
class Asked:
    """A query, its place (dashboard, then title or name), and how Grafana reads the answer: ``time_series`` or
    ``table`` of PostgreSQL, ``variable``, or ``expression`` of Prometheus."""

    place: str
    form: str
    text: str

    def filled(self, values: Mapping[str, str]) -> str:
        """The query with what Grafana puts in. A variable that has no value here is an error of the query."""
        text = self.text
        for name in sorted(values, key=len, reverse=True):
            text = text.replace(name, values[name])
        left = VARIABLE.findall(text)
        assert not left, f"{self.place}: {left}"
        return text


def documents(source: str) -> dict[str, dict[str, Any]]:
    """The dashboards for a data source, ``postgresql`` or ``prometheus``, by the names of their files."""
    return {path.stem: _read(path) for path in sorted((FOLDER / source).glob("*.json"))}


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def asked(source: str) -> list[Asked]:
    """All queries of the dashboards for a data source."""
    return [one for name, board in documents(source).items() for one in _of(name, board)]


def _of(name: str, board: Mapping[str, Any]) -> Iterator[Asked]:
    for panel in board["panels"]:
        for target in panel.get("targets", []):
            place = f"{name}: {panel['title']}, {target['refId']}"
            if "rawSql" in target:
                yield Asked(place, target["format"], target["rawSql"])
            else:
                yield Asked(place, "expression", target["expr"])
    for variable in board["templating"]["list"]:
        if variable["type"] == "query":
            yield Asked(f"{name}: variable {variable['name']}", "variable", variable["query"])
    for annotation in board.get("annotations", {}).get("list", []):
        if "target" in annotation:
            yield Asked(f"{name}: {annotation['name']}", "annotation", annotation["target"]["rawSql"])
