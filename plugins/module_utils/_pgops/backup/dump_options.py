# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What is declared of dumps: pgops_backup_dumps. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .. import spelling
from ..errors import InvalidInput
from .options import COMPRESSIONS

VARIABLE = "pgops_backup_dumps"
ALL = "all"
MOST = 1_000_000
WHOLE = {"jobs": (1, 128), "minimum": (0, 36500)}
"""The least and the most of whole numbers."""
NUMBERS = {"interval_hours": (0, MOST), "days": (0, 36500), "lock_seconds": (1, MOST), "yield_seconds": (0, MOST)}
"""Those of others."""


@dataclass(frozen=True)
class Dumps:
    """``databases`` are dumped, by name, ALL of them but templates, or none; those that are in ``exclude`` are not.
    One is due ``interval_hours`` after its last dump began. Each is dumped by ``jobs`` sessions, with a compression
    of options.COMPRESSIONS.

    Dumps are kept for ``days``, and the newest ``minimum`` of a database that is there, however old. One fails that
    waits longer than ``lock_seconds`` for a lock, or for which another session has waited ``yield_seconds``, 0 for
    ever. The hooks are programs of root's that run before and after each, '' for none.
    """

    databases: str | tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    interval_hours: float = 24.0
    jobs: int = 1
    compression: str = "gzip"
    days: float = 7.0
    minimum: int = 2
    lock_seconds: float = 60.0
    yield_seconds: float = 300.0
    hook_before: str = ""
    hook_after: str = ""

    def wants(self, name: str) -> bool:
        """Whether a database is declared, one that is no template."""
        return name not in self.exclude and (self.databases == ALL or name in self.databases)

    @property
    def named(self) -> tuple[str, ...]:
        """The databases that are declared by their names."""
        return () if self.databases == ALL else tuple(one for one in self.databases if one not in self.exclude)


def parse(given: Mapping[str, Any]) -> Dumps:
    """The dumps that the inventory declares.

    Raises InvalidInput.
    """
    unknown = spelling.unknown(given, [field.name for field in fields(Dumps)])
    if unknown:
        raise InvalidInput(f"{VARIABLE} has no key {unknown}.")
    values = dict(given)
    for name in ("databases", "exclude"):
        if name in values and not (name == "databases" and values[name] == ALL):
            values[name] = _names(name, values[name])
    for name, (least, most) in {**WHOLE, **NUMBERS}.items():
        if name in values:
            _check(name, values[name], least, most)
    _check_words(values)
    return Dumps(**values)


def _check_words(values: Mapping[str, Any]) -> None:
    for name in ("hook_before", "hook_after"):
        if not isinstance(values.get(name, ""), str):
            raise InvalidInput(f"{name} of {VARIABLE} is {values[name]!r}.", "It has to be the path of a program.")
    if values.get("compression", "gzip") not in COMPRESSIONS:
        raise InvalidInput(
            f"compression of {VARIABLE} is {values['compression']!r}.", f"It can be {', '.join(COMPRESSIONS)}."
        )


def _names(name: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(one, str) and one for one in value):
        words = f'"{ALL}" or ' if name == "databases" else ""
        raise InvalidInput(f"{name} of {VARIABLE} is {value!r}.", f"It has to be {words}a list of names.")
    return tuple(value)


def _check(name: str, value: Any, least: int, most: int) -> None:
    whole = name in WHOLE
    number = isinstance(value, int if whole else (int, float)) and not isinstance(value, bool)
    if not number or not least <= value <= most:
        raise InvalidInput(
            f"{name} of {VARIABLE} is {value!r}.",
            f"It has to be a {'whole ' if whole else ''}number from {least} to {most}.",
        )
