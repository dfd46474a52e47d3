# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What was there before pgops.fleet changed a setting, kept on the host, so that it can be put back.

Each capability keeps its own: what one adds to a list stays when another is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..host import documents, files

FORMAT = 1


@dataclass(frozen=True)
class Former:
    """A parameter's value in postgresql.auto.conf ``before`` it was changed, and ``ours`` after; None for none."""

    before: str | None
    ours: str | None


Formers = Mapping[str, Former]


def read(path: str, capability: str) -> dict[str, Former]:
    """What a capability changed on the host, by parameter.

    Raises HostFailed.
    """
    return {name: Former(**one) for name, one in _all(path).get(capability, {}).items()}


def names(path: str) -> list[str]:
    """The parameters that are known of all capabilities, in alphabetical order.

    Raises HostFailed.
    """
    return sorted({name for found in _all(path).values() for name in found})


def _all(path: str) -> dict[str, dict[str, Any]]:
    hint = "It holds what settings were before pgops.fleet changed them: restore it from a backup, or remove it."
    return dict((documents.read(path, FORMAT, hint) or {}).get("settings", {}))


def remembered(formers: Formers, present: Mapping[str, str | None], wanted: Mapping[str, str | None]) -> Formers:
    """What to keep after a change of ``present`` values to ``wanted`` ones.

    Of a parameter that we changed before, the first value is the one to go back to, unless it was changed by
    somebody else since.
    """
    made = dict(formers)
    for name, value in wanted.items():
        known = made.get(name)
        first = known.before if known and known.ours == present.get(name) else present.get(name)
        made[name] = Former(first, value)
    return made


def write(path: str, capability: str, formers: Formers) -> None:
    """Keep what a capability changed; with nothing left to keep, there is no file.

    Raises HostFailed.
    """
    kept = {**_all(path), capability: {name: asdict(former) for name, former in sorted(formers.items())}}
    settings = {name: found for name, found in kept.items() if found}
    if settings:
        documents.write(path, FORMAT, {"settings": settings})
    else:
        files.discard(path)
