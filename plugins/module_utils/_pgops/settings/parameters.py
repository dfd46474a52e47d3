# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The meaning of a configuration parameter's value, apart from its spelling. Pure.

Values are compared by meaning, so that 1GB is 1024MB, and yes is on.
Sources: PostgreSQL, "Parameter Names and Values" and "System Views: pg_settings"; src/backend/utils/misc/guc.c.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Optional, Union

from .. import secrecy
from ..errors import InvalidInput

Meaning = Union[bool, int, float, str, tuple[str, ...]]
Value = Optional[Union[str, tuple[str, ...]]]
"""A parameter as declared: text, the elements of a list, or None for the server's value without the declaration."""

LISTS = {
    "createrole_self_grant": False,
    "datestyle": False,
    "debug_io_direct": False,
    "listen_addresses": False,
    "local_preload_libraries": True,
    "log_connections": False,
    "log_destination": False,
    "log_min_messages": False,
    "oauth_validator_libraries": True,
    "restrict_nonsystem_relation_kind": False,
    "search_path": True,
    "session_preload_libraries": True,
    "shared_preload_libraries": True,
    "synchronized_standby_slots": False,
    "temp_tablespaces": True,
    "unix_socket_directories": True,
    "wal_consistency_checking": False,
}
"""Parameters that are lists (GUC_LIST_INPUT), and whether the server quotes each element (GUC_LIST_QUOTE).
log_min_messages is one since PostgreSQL 19, and was an enum. synchronous_standby_names has a grammar of its own."""

LIBRARIES = (
    "local_preload_libraries",
    "oauth_validator_libraries",
    "session_preload_libraries",
    "shared_preload_libraries",
)
"""Lists to which several tools add their entries: one of them must not remove those of the others."""

EMPTY_ELEMENT = ("search_path", "temp_tablespaces")
"""Lists of names in which an empty one is none: ALTER SYSTEM writes an empty list as a list of that."""

LEVELS = {"debug": "debug2", "info": "info"}
HIDDEN = {
    "client_min_messages": LEVELS,
    "log_min_error_statement": LEVELS,
    "log_min_messages": LEVELS,
    "trace_recovery_messages": LEVELS,
    "wal_level": {"archive": "replica", "hot_standby": "replica"},
}
"""Values of enums that the server accepts and shows as another one (guc_tables.c, the options that are hidden). What
wal_compression = on is depends on the version, and on what the server was built with: it is asked."""

SINGLE_LIBRARIES = ("archive_library", "jit_provider")
"""Parameters that name one library. A server without it goes on, and only logs that it does not archive."""

MEMORY = {"B": 1, "kB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}
TIME = {"us": 1, "ms": 10**3, "s": 10**6, "min": 60 * 10**6, "h": 3600 * 10**6, "d": 86400 * 10**6}
UNIT = re.compile(r"(\d*)([A-Za-z]+)\Z")
NUMBER = re.compile(r"\s*([+-]?(?:0[xX][0-9A-Fa-f]+|(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?))\s*([A-Za-z]*)\s*\Z")
WORDS = {"on": ("on", "true", "yes", "1"), "off": ("off", "false", "no", "0")}
ELEMENT = re.compile(r'\s*(?:"((?:[^"]|"")*)"|([^,"]*?))\s*(?:,|\Z)')


@dataclass(frozen=True)
class Parameter:
    """A parameter as in pg_settings. ``choices`` are an enum's; ``minimum`` and ``maximum`` a number's."""

    name: str
    vartype: str
    unit: str | None = None
    minimum: str | None = None
    maximum: str | None = None
    choices: tuple[str, ...] = ()
    context: str = "user"

    @property
    def restarts(self) -> bool:
        """Whether a new value needs a restart."""
        return self.context == "postmaster"

    @property
    def is_list(self) -> bool:
        """Whether the value is a list of words."""
        return self.vartype == "string" and self.name.lower() in LISTS

    @property
    def merges(self) -> bool:
        """Whether declared elements are added to the present ones."""
        return self.name.lower() in LIBRARIES

    def meaning(self, text: str) -> Meaning:
        """The meaning of a value as it is written: two that mean the same are equal.

        Numbers are in the parameter's own unit. Raises InvalidInput with the values that the parameter accepts.
        """
        if self.is_list:
            return self._listed(text)
        if self.vartype == "bool":
            return self._truth(text)
        if self.vartype == "enum":
            return self._choice(text)
        if self.vartype in ("integer", "real"):
            return self._number(text)
        return text

    def human(self, setting: str) -> str:
        """A number as pg_settings shows it, in the largest unit in which it is an integer; other values unchanged."""
        own, table = UNIT.match(self.unit or ""), self._table()
        if self.vartype != "integer" or own is None or not table or not setting.isdigit() or setting == "0":
            return setting
        amount = int(setting) * int(own.group(1) or 1) * table[own.group(2)]
        unit, size = max(((unit, size) for unit, size in table.items() if amount % size == 0), key=lambda one: one[1])
        return f"{amount // size}{unit}"

    def _listed(self, text: str) -> Meaning:
        try:
            found = elements(text)
            if self.name.lower() == "log_min_messages":
                return _levels(found)
            return tuple(word for word in found if word) if self.name.lower() in EMPTY_ELEMENT else found
        except ValueError:
            raise self._wrong(text, "needs a list of words separated by commas") from None

    def _truth(self, text: str) -> bool:
        found = truth(text)
        if found is None:
            raise self._wrong(text, "must be on or off")
        return found

    def _choice(self, text: str) -> str:
        by_lower = {choice.lower(): choice for choice in self.choices}
        hidden, word = HIDDEN.get(self.name.lower(), {}), text.lower()
        # Enums that once were booleans still accept all spellings of them; pg_settings shows one.
        full = next((name for name, words in WORDS.items() if name in by_lower and word in words), word)
        if full in hidden and (full in by_lower or full not in WORDS):
            return hidden[full]
        if full in by_lower:
            return by_lower[full]
        raise self._wrong(text, f"must be one of {', '.join(self.choices)}")

    def _number(self, text: str) -> float:
        found = NUMBER.match(text)
        if found is None:
            raise self._wrong(text, f"must be a number{self._units()}")
        number = _plain(found.group(1), self.vartype)
        if found.group(2):
            number = self._converted(number, found.group(2), text)
        if self.vartype == "integer":
            number = round(number) if math.isfinite(number) else number
        self._within(number, text)
        return number

    def _converted(self, number: float, unit: str, text: str) -> float:
        """A number of ``unit`` in the parameter's own unit, rounded to a multiple of the next smaller unit like the
        server rounds it (convert_to_base_unit in guc.c)."""
        own = UNIT.match(self.unit or "")
        table = self._table()
        if own is None or unit not in table:
            raise self._wrong(text, f"must be a number{self._units()}")
        smaller = max((size for size in table.values() if size < table[unit]), default=0)
        amount = number * table[unit]
        if smaller and math.isfinite(amount):
            amount = round(amount / smaller) * smaller
        return amount / (table[own.group(2)] * int(own.group(1) or 1))

    def _table(self) -> dict[str, int]:
        own = UNIT.match(self.unit or "")
        return next((table for table in (MEMORY, TIME) if own and own.group(2) in table), {})

    def _units(self) -> str:
        table = self._table()
        return f", in {', '.join(table)}, or without a unit in {self.unit}" if table else " without a unit"

    def _within(self, number: float, text: str) -> None:
        lowest = float(self.minimum) if self.minimum else -math.inf
        highest = float(self.maximum) if self.maximum else math.inf
        if not lowest <= number <= highest:
            unit = f" {self.unit}" if self.unit else ""
            raise self._wrong(text, f"must be between {self.minimum} and {self.maximum}{unit}")

    def _wrong(self, text: str, rule: str) -> InvalidInput:
        shown = secrecy.setting(self.name, text)
        return InvalidInput(f"{self.name} = {shown!r} is not valid.", f"It {rule}.")


def truth(text: str) -> bool | None:
    """A boolean in any of its spellings, or an unambiguous beginning of one; None for other text."""
    word = text.strip().lower()
    fitting = {name for name, spellings in WORDS.items() for full in spellings if word and full.startswith(word)}
    return fitting == {"on"} if len(fitting) == 1 else None


def _levels(words: Sequence[str]) -> tuple[str, ...]:
    """Log levels as `level` for all, or `kind:level` for a kind of process, in which order does not matter."""
    pairs = ([part.strip() for part in word.lower().rpartition(":")] for word in words)
    return tuple(sorted(f"{kind}:{LEVELS.get(level, level)}" for kind, _colon, level in pairs))


def _plain(text: str, vartype: str) -> float:
    """A number as C reads it: integers may be hexadecimal or octal."""
    digits = text.lstrip("+-")
    sign = -1 if text.startswith("-") else 1
    if digits[:2].lower() == "0x":
        return sign * int(digits, 16)
    if vartype == "integer" and re.fullmatch(r"0[0-7]+", digits):
        return sign * int(digits, 8)
    return sign * (int(digits) if digits.isdigit() else float(digits))


def value_of(declared: Any) -> Value:
    """A value as it comes out of YAML: None stays, a list becomes its elements, all else text.

    Raises InvalidInput for what is neither.
    """
    if declared is None:
        return None
    if isinstance(declared, bool):
        return "on" if declared else "off"
    if isinstance(declared, (list, tuple)):
        return tuple(_scalar(element) for element in declared)
    return _scalar(declared)


def _scalar(declared: Any) -> str:
    if isinstance(declared, (dict, list, tuple)) or declared is None:
        # Its name is not known here, and it may be a secret.
        kind = "null" if declared is None else "a mapping" if isinstance(declared, dict) else "a list"
        raise InvalidInput(f"The value of a setting cannot contain {kind}.", "Use text, a number or a list.")
    text = ("on" if declared else "off") if isinstance(declared, bool) else str(declared)
    if any(character in text for character in "\n\r\0"):
        raise InvalidInput("A value has more than one line.", "The value of a setting must be a single line.")
    return text


def elements(text: str) -> tuple[str, ...]:
    """The elements of a list as it is written in a configuration file.

    Raises ValueError if quotes are not closed, or an element is missing.
    """
    if not text.strip():
        return ()
    found: list[str] = []
    position, ended = 0, False
    while not ended:
        match = ELEMENT.match(text, position)
        if match is None or (match.group(1) is None and not match.group(2)):
            raise ValueError(f"{text!r} is not a list")
        quoted, plain = match.groups()
        found.append(plain if quoted is None else quoted.replace('""', '"'))
        position, ended = match.end(), not match.group(0).endswith(",")
    return tuple(found)


def joined(words: Sequence[str]) -> str:
    """A list as one text, which `elements` splits again."""
    return ", ".join(word if re.fullmatch(r"[\w./$*:-]+", word) else _quoted(word) for word in words)


def _quoted(word: str) -> str:
    doubled = word.replace('"', '""')
    return f'"{doubled}"'


def merged(present: Sequence[str], wanted: Sequence[str]) -> tuple[str, ...]:
    """The present elements, in their order, and after them the wanted ones that are missing."""
    return tuple(dict.fromkeys([*present, *wanted]))
