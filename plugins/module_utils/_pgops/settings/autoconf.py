# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The file that ALTER SYSTEM writes, changed without the server, if the server does not come up. Pure.

Source: PostgreSQL, src/backend/utils/misc/guc.c, write_auto_conf_file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

NAME = "postgresql.auto.conf"
VALUE = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.$]*) = '(.*)'\s*\Z")
ASSIGNMENT = re.compile(r"\s*([A-Za-z_][A-Za-z0-9_.$]*)\s*(?:=|\s)")


def replaced(text: str, values: Mapping[str, str | None]) -> str:
    """The file's text with other values of the parameters named, None for no line at all; other lines stay."""
    names = {name.lower() for name in values}
    kept = [line for line in text.splitlines(keepends=True) if _name(line) not in names]
    if kept and not kept[-1].endswith("\n"):
        kept[-1] += "\n"
    return "".join(
        [*kept, *(f"{name} = '{_quoted(value)}'\n" for name, value in values.items() if value is not None)]
    )


def values(text: str) -> dict[str, str]:
    """The values in a file that ALTER SYSTEM, or `replaced`, has written, by lower-case name."""
    found = {}
    for line in text.splitlines():
        match = VALUE.match(line)
        if match:
            found[match.group(1).lower()] = match.group(2).replace("''", "'").replace("\\\\", "\\")
    return found


def _name(line: str) -> str:
    found = ASSIGNMENT.match(line)
    return found.group(1).lower() if found else ""


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "''")
