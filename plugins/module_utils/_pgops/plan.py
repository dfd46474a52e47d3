# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Change and Plan, the only source of ``changed``, ``diff``, ``prediction`` and check mode's result.

A plan is computed from the present and the wanted state, without I/O. Check mode reports it; a run applies it and
reports the same. So a prediction and its outcome cannot differ.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Generic, TypeVar


@dataclass(frozen=True)
class Change:
    """A change of one thing.

    ``subject`` names it ("role pgops", "file /etc/..."). ``before`` and ``after`` are text, a mapping, or None if the
    thing does not exist; they are shown to people, so they never contain secrets.

    Each kind of change is a class of its own, with the fields that are needed to carry it out; they are neither shown
    nor compared.
    """

    subject: str
    before: Any
    after: Any

    verb: ClassVar[str] = ""
    """The action of a kind of change that is not create, update or remove."""

    @property
    def action(self) -> str:
        """One of create, update, remove, or the kind's own verb."""
        if self.verb:
            return self.verb
        if self.before is None:
            return "create"
        return "remove" if self.after is None else "update"

    @property
    def line(self) -> str:
        """The change in one line."""
        return f"{self.action} {self.subject}"

    def data(self) -> dict[str, Any]:
        """The change as data, of JSON's types only."""
        found = {"action": self.action, "subject": self.subject, "before": self.before, "after": self.after}
        return dict(json.loads(json.dumps(found, default=str)))

    def diff(self) -> dict[str, str]:
        """The change in the form that Ansible prints."""
        return _entry(self.subject, as_text(self.before), as_text(self.after))


@dataclass(frozen=True)
class HostChange(Change, ABC):
    """A change of the host on which this runs."""

    @abstractmethod
    def apply(self) -> None:
        """Carry it out. Raises HostFailed."""


C = TypeVar("C", bound=Change)
C_co = TypeVar("C_co", bound=Change, covariant=True)
Other = TypeVar("Other", bound=Change)


@dataclass(frozen=True)
class Plan(Generic[C_co]):
    """Changes of some kind, in the order in which they are carried out, and warnings."""

    changes: tuple[C_co, ...] = ()
    warnings: tuple[str, ...] = ()
    skipped_reason: str = ""

    def __bool__(self) -> bool:
        return bool(self.changes)

    def __iter__(self) -> Iterator[C_co]:
        return iter(self.changes)

    def __add__(self, other: Plan[Other]) -> Plan[C_co | Other]:
        return Plan(
            (*self.changes, *other.changes),
            self.warnings + other.warnings,
            self.skipped_reason or other.skipped_reason,
        )

    @property
    def plan(self) -> Plan[C_co]:
        """Itself; what is planned in parts has the same property."""
        return self

    def warned(self, warnings: Iterable[str]) -> Plan[C_co]:
        """The same with more warnings."""
        return replace(self, warnings=(*self.warnings, *warnings))

    def diff(self) -> list[dict[str, str]]:
        """The plan as Ansible prints it: a line for each thing that is created or removed, and for each change the
        state before and after."""
        created, removed = (
            "".join(f"{change.line}\n" for change in self if change.action == action)
            for action in ("create", "remove")
        )
        entries = [_entry("created", "", created)] if created else []
        entries += [_entry("removed", removed, "")] if removed else []
        return entries + [change.diff() for change in self if change.action not in ("create", "remove")]

    def result(self, **more: Any) -> dict[str, Any]:
        """What a module returns: changed, diff, changes, prediction, predictable, if there are any warnings and
        skipped_reason, and ``more`` keys of the module."""
        result: dict[str, Any] = {
            "changed": bool(self.changes),
            "diff": self.diff(),
            "changes": [change.line for change in self],
            "prediction": [change.data() for change in self],
            "predictable": True,
        }
        if self.warnings:
            result["warnings"] = list(self.warnings)
        if self.skipped_reason:
            result["skipped_reason"] = self.skipped_reason
        return {**result, **more}


def unpredictable(reason: str) -> dict[str, Any]:
    """The result of a module in check mode if it cannot know what a run would change."""
    return {**Plan[Change](warnings=(reason,)).result(), "predictable": False}


def changes(*parts: Iterable[C], warnings: Iterable[str] = (), skipped_reason: str = "") -> Plan[C]:
    """A plan of all changes in ``parts``, in their order."""
    return Plan(tuple(change for part in parts for change in part), tuple(warnings), skipped_reason)


def difference(change: C) -> tuple[C, ...]:
    """The change, or none if before and after are equal.

    Of two mappings only the keys that differ are shown.
    """
    before, after = change.before, change.after
    if before == after:
        return ()
    if isinstance(before, dict) and isinstance(after, dict):
        differing = [key for key in {**before, **after} if before.get(key) != after.get(key)]
        before = {key: before[key] for key in differing if key in before}
        after = {key: after[key] for key in differing if key in after}
    return (replace(change, before=before, after=after),)


def _entry(header: str, before: str, after: str) -> dict[str, str]:
    return {"before_header": header, "after_header": header, "before": before, "after": after}


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
