# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change and Plan: what ``changed``, ``diff`` and check mode are made of, and nothing else is.

A plan is computed from what is there and what is wanted, without I/O. Check mode reports it; a run
applies it and reports the same. So a prediction and its outcome cannot differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Change:
    """One thing that will be other than it is.

    ``subject`` names it ("role pgops", "file /etc/..."). ``before`` and ``after`` are text, a mapping,
    or None where the thing is absent; they are shown to people, so secrets never stand in them.
    ``step`` is what the owner of the plan needs to carry it out; it is neither shown nor compared. ``verb`` names an
    action that is none of create, update and remove.
    """

    subject: str
    before: Any = None
    after: Any = None
    step: Any = field(default=None, repr=False, compare=False)
    verb: str = ""

    @property
    def action(self) -> str:
        """One of create, update, remove, or the change's own verb."""
        if self.verb:
            return self.verb
        if self.before is None:
            return "create"
        return "remove" if self.after is None else "update"

    def diff(self) -> dict[str, str]:
        """The change in the form that Ansible prints."""
        return {
            "before_header": self.subject,
            "after_header": self.subject,
            "before": as_text(self.before),
            "after": as_text(self.after),
        }


@dataclass(frozen=True)
class Plan:
    """Changes in the order in which they are made, and what a person should know besides."""

    changes: tuple[Change, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped_reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __iter__(self) -> Iterator[Change]:
        return iter(self.changes)

    def __add__(self, other: Plan) -> Plan:
        return Plan(
            self.changes + other.changes,
            self.warnings + other.warnings,
            self.skipped_reason or other.skipped_reason,
        )

    def result(self) -> dict[str, Any]:
        """What a module returns: changed, diff, changes, predictable, and where there are any warnings
        and skipped_reason."""
        result: dict[str, Any] = {
            "changed": bool(self.changes),
            "diff": [change.diff() for change in self.changes],
            "changes": [f"{change.action} {change.subject}" for change in self.changes],
            "predictable": True,
        }
        if self.warnings:
            result["warnings"] = list(self.warnings)
        if self.skipped_reason:
            result["skipped_reason"] = self.skipped_reason
        return result


def unpredictable(reason: str) -> dict[str, Any]:
    """The result of a module in check mode where it cannot know what a run would change."""
    return {"changed": False, "diff": [], "changes": [], "predictable": False, "warnings": [reason]}


def changes(*parts: Iterable[Change], warnings: Iterable[str] = (), skipped_reason: str = "") -> Plan:
    """A plan of all changes in ``parts``, in their order."""
    return Plan(tuple(change for part in parts for change in part), tuple(warnings), skipped_reason)


def difference(subject: str, before: Any, after: Any, step: Any = None) -> tuple[Change, ...]:
    """One change, or none where ``before`` equals ``after``.

    Of two mappings only the keys that differ are shown.
    """
    if before == after:
        return ()
    if isinstance(before, dict) and isinstance(after, dict):
        differing = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        before = {key: before[key] for key in differing if key in before}
        after = {key: after[key] for key in differing if key in after}
    return (Change(subject, before, after, step),)


def as_text(value: Any) -> str:
    """A value as the lines of a diff: mappings a line per key, nothing for None."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value if value.endswith("\n") or not value else value + "\n"
    if isinstance(value, dict):
        return "".join(f"{key}: {_scalar(value[key])}\n" for key in sorted(value))
    return _scalar(value) + "\n"


def _scalar(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True, default=str)
