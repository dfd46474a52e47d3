# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Unknown names in the input, with suggestions. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Sequence

from .errors import InvalidInput

MOST = 3
"""The most names that are suggested."""


def unknown(names: Iterable[str], known: Collection[str]) -> str:
    """The names that are not known, each with known ones of a similar spelling; '' if all are known."""
    return "; ".join(_suggested(name, known) for name in sorted(set(names) - set(known)))


def refuse_repeated(what: str, names: Sequence[str]) -> None:
    """Raise InvalidInput where a name is there more than once."""
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise InvalidInput(f"{what} {', '.join(repeated)} is declared more than once.", "Names must be unique.")


def _suggested(name: str, known: Collection[str]) -> str:
    near = difflib.get_close_matches(name.lower(), sorted(known), MOST)
    return f"{name} (did you mean {' or '.join(near)}?)" if near else name
