# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The journal of a change of settings: what it may have to restore, on the host's disk until it is complete.

A run that is killed leaves it behind, and the next one finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..host import documents
from ..server.service import Service
from .originals import Original, Originals

FORMAT = 1
HINT = "It was left by a killed run. Check postgresql.auto.conf, then delete this file."


@dataclass(frozen=True)
class Journal:
    """``values`` are those of postgresql.auto.conf before the change, None for parameters that were not in it.

    ``originals`` are those recorded before the change, of the settings that ``capability`` has changed; in the file,
    ``formers``. ``restarting`` is set when the server is about to be stopped: only then the next run starts it.
    """

    values: Mapping[str, str | None]
    capability: str
    originals: Originals = field(default_factory=dict)
    service: Service | None = None
    restarting: bool = False


def read(path: str) -> Journal | None:
    """The journal of a killed run, or None.

    Raises HostFailed.
    """
    data = documents.read(path, FORMAT, HINT)
    if data is None:
        return None
    return Journal(
        values=dict(data["values"]),
        capability=data["capability"],
        originals={name: Original(**one) for name, one in data["formers"].items()},
        service=_service(data["service"]) if data["service"] else None,
        restarting=bool(data["restarting"]),
    )


def _service(data: Mapping[str, Any]) -> Service:
    return Service(**{**data, "arguments": tuple(data.get("arguments", ()))})


def write(path: str, journal: Journal) -> None:
    """Raises HostFailed."""
    data = asdict(journal)
    data["formers"] = data.pop("originals")
    documents.write(path, FORMAT, data)
