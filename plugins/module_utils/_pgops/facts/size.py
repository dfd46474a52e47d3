# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Limits the size of the facts: the longest lists are cut, and it is recorded which and by how much. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def size(value: Any) -> int:
    """Bytes of a value as Ansible sends it."""
    return len(json.dumps(value))


def limit(facts: dict[str, Any], largest: int) -> dict[str, Any]:
    """The facts in at most ``largest`` bytes of JSON; 0 is no limit. A list loses its end.

    Lists within an instance are cut before the list of instances. The list ``truncated`` gets ``{path, kept,
    left_out}`` for each list that was cut.
    """
    found = dict(_lists(facts, ""))
    facts = {**facts, "truncated": []}
    full = {path: len(listed) for path, listed in found.items()}
    while largest and size(facts) > largest:
        leaves = {
            path: size(listed) for path, listed in found.items() if listed and path not in ("instances", "sections")
        }
        path = max(leaves, key=lambda name: leaves[name], default="instances" if facts["instances"] else "")
        if not path:
            break
        _cut(found[path], size(facts) - largest)
        facts["truncated"] = _notes(found, full)
    return facts


def _cut(listed: list[Any], excess: int) -> None:
    """Remove the end of a list: ``excess`` bytes, but at most half of it, so that the next longest is cut, too."""
    half = len(listed) // 2
    while excess > 0 and len(listed) > half:
        excess -= size(listed.pop()) + 2


def _notes(found: dict[str, list[Any]], full: dict[str, int]) -> list[dict[str, Any]]:
    gone = {f"instances[{place}]" for place in range(len(found["instances"]), full["instances"])}
    return [
        {"path": path, "kept": len(listed), "left_out": full[path] - len(listed)}
        for path, listed in found.items()
        if len(listed) < full[path] and path.partition(".")[0] not in gone
    ]


def _lists(value: Any, path: str) -> Iterator[tuple[str, list[Any]]]:
    """Every list of objects or words below a value, by its path such as ``instances[0].databases.list``."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _lists(inner, f"{path}.{key}" if path else key)
    elif isinstance(value, list):
        yield path, value
        for place, inner in enumerate(value):
            yield from _lists(inner, f"{path}[{place}]")
