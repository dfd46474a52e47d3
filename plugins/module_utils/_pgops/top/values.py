# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Values as people read them on a terminal: short, with their units. Pure."""

from __future__ import annotations

import unicodedata
from datetime import datetime, timezone

from ..terminal import shown

UNKNOWN = "-"


def span(seconds: float | None) -> str:
    """How long, in at most six characters.

    >>> [span(one) for one in (0.25, 42, 723, 11520, 450000, 9e7)]
    ['0.2s', '42s', '12m03s', '3h12m', '5d05h', '1041d']
    """
    if seconds is None:
        return UNKNOWN
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f}s"
    whole = int(seconds)
    for size, unit, rest, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            first, more = divmod(whole, size)
            return f"{first}{unit}{more // rest:02d}{name}" if first < 100 else f"{first}{unit}"
    return f"{whole}s"


def size(number: float | None) -> str:
    """Bytes, as PostgreSQL's pg_size_pretty has them but for a digit more.

    >>> [size(one) for one in (0, 1023, 1536, 3.4e6, 5e12)]
    ['0 B', '1023 B', '1.5 kB', '3.2 MB', '4.5 TB']
    """
    if number is None:
        return UNKNOWN
    for unit in ("B", "kB", "MB", "GB"):
        if abs(number) < 1023.95:
            return f"{number:.0f} B" if unit == "B" else f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:.1f} TB"


def count(number: float | None) -> str:
    """A number, the small ones with a digit behind the point where they have one.

    >>> [count(one) for one in (0, 3, 0.25, 12.6, 1240.2)]
    ['0', '3', '0.2', '13', '1,240']
    """
    if number is None:
        return UNKNOWN
    return f"{number:.1f}" if abs(number) < 9.95 and number != int(number) else f"{number:,.0f}"


def percent(number: float | None) -> str:
    """A share, which is 100 only if it is all.

    >>> [percent(one) for one in (0, 99.96, 100)]
    ['0 %', '99.9 %', '100 %']
    """
    if number is None:
        return UNKNOWN
    return f"{min(number, 99.9):.1f} %" if 0 < number < 100 else f"{number:.0f} %"


def clock(at: datetime) -> str:
    """A time in UTC.

    >>> clock(datetime(2026, 11, 30, 3, 12, tzinfo=timezone.utc))
    '2026-11-30 03:12:00Z'
    """
    return at.astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%SZ")


def line(text: object) -> str:
    """A text of others on one line, in which a terminal obeys nothing; white space is one blank."""
    return shown(" ".join(str(text).split()))


def cells(text: str) -> int:
    """How many columns of a terminal a text takes that line() has made.

    >>> cells("漢a"), cells("e\u0301")
    (3, 1)
    """
    return len(text) if text.isascii() else sum(map(_cells, text))


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, width: int) -> str:
    """A text in at most so many columns; where something is left out, it ends with a mark.

    >>> cut("SELECT 1", 6), cut("SELECT 1", 8), cut("漢字", 3)
    ('SELEC…', 'SELECT 1', '漢…')
    """
    if cells(text) <= width:
        return text
    kept, left = "", width - 1
    for character in text:
        left -= _cells(character)
        if left < 0:
            break
        kept += character
    return f"{kept}…" if width > 0 else ""


def wrapped(text: str, width: int, most: int) -> list[str]:
    """A text in lines of so many columns; ``most`` of them, of which the last is cut.

    >>> wrapped("SELECT 1", 4, 2), wrapped("SELECT 1", 3, 2)
    (['SELE', 'CT 1'], ['SEL', 'EC…'])
    """
    found: list[str] = []
    while text and width > 1:
        if len(found) == most - 1:
            return [*found, cut(text, width)]
        fits = len(text)
        while cells(text[:fits]) > width:
            fits = min(fits - 1, width)
        found.append(text[:fits])
        text = text[fits:]
    return found


def padded(text: str, width: int, right: bool = False) -> str:
    """A text in exactly so many columns."""
    fitted = cut(text, width)
    blanks = " " * (width - cells(fitted))
    return blanks + fitted if right else fitted + blanks
