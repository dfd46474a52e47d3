# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The values of settings before pgops.fleet changed them, recorded on the host, so that they can be restored.

Each capability records its own: what one adds to a list stays when another is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..host import documents, files

FORMAT = 1
HINT = "It records the original settings. Restore it from a backup, or delete it."


@dataclass(frozen=True)
class Original:
    """A parameter's value in postgresql.auto.conf ``before`` we changed it, and ``ours`` after; None for no value."""

    before: str | None
    ours: str | None


Originals = Mapping[str, Original]


@dataclass(frozen=True)
class Started:
    """The ``text`` of postgresql.auto.conf with which the server has started ``at`` a time, in s."""

    text: str = field(repr=False)
    at: float


def after_start(recorded: Started | None, began: float, text: str, changed: float) -> Started | None:
    """What to record of a server that runs since ``began``, with the present text of the file, which was ``changed``
    then: if that was before the start, the server has started with it. Pure."""
    if recorded and recorded.at >= began:
        return recorded
    return Started(text, began) if changed < began else recorded


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
    return dict((documents.read(path, FORMAT, HINT) or {}).get("settings", {}))


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


def write(path: str, capability: str, recorded: Originals, started: Started | None = None) -> None:
    """Record what a capability changed, and with what the server has last started, if that is another record; the
    file is removed when no setting is left to record.

    Raises HostFailed.
    """
    found = documents.read(path, FORMAT, HINT) or {}
    records = {
        **found.get("settings", {}),
        capability: {name: asdict(original) for name, original in sorted(recorded.items())},
    }
    settings = {name: one for name, one in records.items() if one}
    if not settings:
        files.discard(path)
        return
    last = asdict(started) if started else found.get("started")
    documents.write(path, FORMAT, {"settings": settings, **({"started": last} if last else {})})


def before_all(path: str) -> dict[str, str | None]:
    """The values from before any capability changed them.

    Raises HostFailed.
    """
    return {name: one["before"] for found in _all(path).values() for name, one in found.items()}


def ours(path: str) -> dict[str, str | None]:
    """The values that capabilities have set; None for what one has removed.

    Raises HostFailed.
    """
    return {name: one["ours"] for found in _all(path).values() for name, one in found.items()}


def last_start(path: str) -> Started | None:
    """With what the server has last started, as far as that is recorded.

    Raises HostFailed.
    """
    found = (documents.read(path, FORMAT, HINT) or {}).get("started")
    return Started(**found) if found else None
