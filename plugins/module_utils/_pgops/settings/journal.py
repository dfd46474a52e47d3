# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a change of settings that is under way has to be able to put back, on the host's disk until it is over.

A run that was killed in the middle leaves it behind, and the next one finds it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from ..host import documents
from ..server.service import Service
from .originals import Former, Formers

FORMAT = 1
HINT = "A killed run left it: see whether postgresql.auto.conf is as it should be, and remove the file."


@dataclass(frozen=True)
class Journal:
    """``values`` are those of postgresql.auto.conf before the change, None for parameters that were not in it.

    ``formers`` is what was known before the change, of the settings that ``capability`` has changed. ``restarting``
    is set when the server is about to be stopped: only then is it for the next run to start it.
    """

    values: Mapping[str, str | None]
    capability: str
    formers: Formers = field(default_factory=dict)
    service: Service | None = None
    restarting: bool = False


def read(path: str) -> Journal | None:
    """What a killed run left, or None.

    Raises HostFailed.
    """
    data = documents.read(path, FORMAT, HINT)
    if data is None:
        return None
    return Journal(
        values=dict(data["values"]),
        capability=data["capability"],
        formers={name: Former(**one) for name, one in data["formers"].items()},
        service=Service(**data["service"]) if data["service"] else None,
        restarting=bool(data["restarting"]),
    )


def write(path: str, journal: Journal) -> None:
    """Raises HostFailed."""
    documents.write(path, FORMAT, asdict(journal))
