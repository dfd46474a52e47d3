"""docs/facts.md as data: the facts' contract, and where facts differ from it."""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "facts.md"


class Key(NamedTuple):
    type: str
    null: str


def _is_time(value: Any) -> bool:
    whole = re.sub(r"\.\d{1,6}(?=\D|$)", "", value)  # of a second, which Python 3.9 takes with 3 or 6 digits only
    return datetime.datetime.fromisoformat(whole.replace("Z", "+00:00")).tzinfo is not None


def _is_list(kind: type) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


TYPES: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda value: isinstance(value, bool),
    "integer": lambda value: isinstance(value, int) and not isinstance(value, bool),
    "number": lambda value: isinstance(value, (int, float)) and not isinstance(value, bool),
    "string": lambda value: isinstance(value, str),
    "strings": _is_list(str),
    "object": lambda value: isinstance(value, dict),
    "objects": _is_list(dict),
    "time": _is_time,
    "day": lambda value: bool(re.fullmatch(r"\d{4}-\d\d-\d\d", value)),
    "error": lambda value: set(value) == {"code", "message"},
    "reasons": lambda value: all(isinstance(part, str) for pair in value.items() for part in pair),
}


def read() -> dict[str, dict[str, Key]]:
    """The keys of every object, by the object's path such as `instances[].server`; `pg_ops` is the whole."""
    contract: dict[str, dict[str, Key]] = {}
    for part in DOCUMENT.read_text().split("\n## ")[1:]:
        heading = re.match(r".*: `([^`]+)`\n", part)
        if heading:
            rows = re.findall(r"^\| (\w+) \| (\w+) \| ([^|]+) \|", part, re.MULTILINE)
            contract[heading[1]] = {key: Key(kind, null.strip()) for key, kind, null in rows if key != "key"}
    return contract


def differences(facts: dict[str, Any]) -> list[str]:
    """Where facts are not as the contract says; empty when all is well."""
    return list(_Comparison(read(), facts["sections"]).of_object("pg_ops", facts))


class _Comparison:
    def __init__(self, contract: dict[str, dict[str, Key]], sections: list[str]) -> None:
        self.contract = contract
        self.sections = sections

    def wanted(self, path: str, found: dict[str, Any]) -> dict[str, Key]:
        """The keys that must be there: all, but for sections not asked for, and those of a section that failed."""
        keys = self.contract[path]
        if path == "instances[]":
            unwanted = {name for name in keys if f"instances[].{name}" in self.contract} - set(self.sections)
            return {name: key for name, key in keys.items() if name not in unwanted}
        return {"error": keys["error"]} if "hidden" in keys and found.get("error") else keys

    def of_object(self, path: str, found: dict[str, Any]) -> Iterator[str]:
        if f"{path}.*" in self.contract:
            for value in found.values():
                yield from self.of_object(f"{path}.*", value) if value is not None else ()
            return
        wanted = self.wanted(path, found)
        if set(found) != set(wanted):
            yield f"{path}: {sorted(set(found) ^ set(wanted))} is only in one of facts and contract"
        for name in sorted(set(found) & set(wanted)):
            inner = name if path == "pg_ops" else f"{path}.{name}"
            if found[name] is None:
                yield from self.of_null(inner, wanted[name], found, name)
            else:
                yield from self.of_value(inner, wanted[name], found[name])

    def of_null(self, path: str, key: Key, found: dict[str, Any], name: str) -> Iterator[str]:
        if key.null == "never":
            yield f"{path}: null"
        if key.null == "hidden" and name not in found.get("hidden", {name: ""}):
            yield f"{path}: null without a reason in hidden"

    def of_value(self, path: str, key: Key, value: Any) -> Iterator[str]:
        if not TYPES[key.type](value):
            yield f"{path}: {value!r} is no {key.type}"
        elif key.type == "object":
            yield from self.of_object(path, value)
        elif key.type == "objects":
            for item in value:
                yield from self.of_object(f"{path}[]", item)
