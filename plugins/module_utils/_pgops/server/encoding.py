# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
r"""Names whose bytes are not UTF-8, as those of databases and roles that were created in another encoding. Pure.

In here, such a byte is a lone surrogate, as Python has it for file names. Where a name is stored, exported or shown,
it is readable text, and no two names have the same: a byte is ``\xe4``, and in a name that has such a byte, or looks
as if it had, each backslash is two. pgops.readable() does the same in SQL.
"""

from __future__ import annotations

import re
from typing import Any

BYTES = "replace({}::text, '\\', '\\\\')::bytea"
"""SQL: the bytes of a name, which the server neither checks nor converts."""

AMBIGUOUS = re.compile(r"\\x[89a-f][0-9a-f]")
"""What looks like a byte that is not UTF-8."""

ESCAPED = re.compile(r"\\(?:\\|x([89a-f][0-9a-f]))")


def text(name: bytes) -> str:
    """The text of a name; bytes that are not UTF-8 are lone surrogates."""
    return name.decode("utf-8", "surrogateescape")


def raw(name: str) -> bytes:
    """The bytes of such a text."""
    return name.encode("utf-8", "surrogateescape")


def is_text(name: str) -> bool:
    """Whether all of a name is UTF-8."""
    return not any("\ud800" <= character <= "\udfff" for character in name)


def readable(name: str) -> str:
    r"""The name as it is stored and shown.

    >>> readable("caf\udce9"), readable(r"C:\data"), readable(r"\xe9")
    ('caf\\xe9', 'C:\\data', '\\\\xe9')
    """
    if is_text(name) and not AMBIGUOUS.search(name):
        return name
    return "".join(map(_readable, name))


def _readable(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.replace("\\", "\\\\")


def meant(shown: str) -> str:
    r"""The name that is shown so.

    >>> meant(r"caf\xe9") == "caf\udce9", meant(r"C:\data"), meant(r"\\xe9")
    (True, 'C:\\data', '\\xe9')
    """
    if not AMBIGUOUS.search(shown):
        return shown
    return ESCAPED.sub(lambda found: chr(0xDC00 + int(found.group(1), 16)) if found.group(1) else "\\", shown)


def all_readable(value: Any) -> Any:
    """A value from JSON with all its texts readable, keys included."""
    if isinstance(value, str):
        return readable(value)
    if isinstance(value, list):
        return [all_readable(one) for one in value]
    if isinstance(value, dict):
        return {readable(key): all_readable(one) for key, one in value.items()}
    return value
