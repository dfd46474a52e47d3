# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Unknown names in the input, with suggestions. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable

MOST = 3
"""The most names that are suggested."""


def unknown(names: Iterable[str], known: Collection[str]) -> str:
    """The names that are not known, each with known ones of a similar spelling; '' if all are known."""
    return "; ".join(_suggested(name, known) for name in sorted(set(names) - set(known)))


def _suggested(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name.lower(), sorted(known), MOST)
    return f"{name} (did you mean {' or '.join(near)}?)" if near else name
