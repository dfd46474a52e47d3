# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The values of settings before pgops.fleet changed them, recorded on the host, so that they can be restored.

Each capability records its own: what one adds to a list stays when another is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..host import documents, files

FORMAT = 1


@dataclass(frozen=True)
class Original:
    """A parameter's value in postgresql.auto.conf ``before`` we changed it, and ``ours`` after; None for no value."""

    before: str | None
    ours: str | None


Originals = Mapping[str, Original]


def read(path: str, capability: str) -> dict[str, Original]:
    """The parameters that a capability changed on the host, by name.

    Raises HostFailed.
    """
    return {name: Original(**one) for name, one in _all(path).get(capability, {}).items()}


def names(path: str) -> list[str]:
    """The parameters that any capability changed, in alphabetical order.

    Raises HostFailed.
    """
    return sorted({name for found in _all(path).values() for name in found})


def _all(path: str) -> dict[str, dict[str, Any]]:
    hint = "It records the original settings. Restore it from a backup, or delete it."
    return dict((documents.read(path, FORMAT, hint) or {}).get("settings", {}))


def after(recorded: Originals, present: Mapping[str, str | None], wanted: Mapping[str, str | None]) -> Originals:
    """What to record after a change of ``present`` values to ``wanted`` ones.

    For a parameter that we changed before, the first value stays the one to restore, unless somebody else has changed
    it since.
    """
    updated = dict(recorded)
    for name, value in wanted.items():
        known = updated.get(name)
        first = known.before if known and known.ours == present.get(name) else present.get(name)
        updated[name] = Original(first, value)
    return updated


def write(path: str, capability: str, recorded: Originals) -> None:
    """Record what a capability changed; the file is removed when nothing is left to record.

    Raises HostFailed.
    """
    records = {**_all(path), capability: {name: asdict(original) for name, original in sorted(recorded.items())}}
    settings = {name: found for name, found in records.items() if found}
    if settings:
        documents.write(path, FORMAT, {"settings": settings})
    else:
        files.discard(path)
