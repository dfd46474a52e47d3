# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What `pgops top` shows: a picture of one instance, of now or of a moment in the past. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

SERVER, STORE = "server", "store"
"""Where a picture comes from."""

ALERTS, BLOCKING, SESSIONS, PROGRESS, EVENTS, STATEMENTS = (
    *("alerts", "blocking", "sessions", "progress", "events", "statements"),
)


@dataclass(frozen=True)
class Section:
    """The rows of a section, and how many more there are; ``missing`` says why nothing is known ('' where it is), and
    ``note`` what a reader has to know of the rows."""

    rows: Sequence[Mapping[str, Any]] = ()
    left_out: int = 0
    missing: str = ""
    note: str = ""


@dataclass(frozen=True)
class Picture:
    """An instance at a moment. ``head`` are values by name, None where they are not known (docs/top.md lists them);
    ``sections`` are in the order in which they are shown."""

    instance: str
    cluster: str
    node: str
    source: str
    at: datetime
    head: Mapping[str, Any]
    sections: Mapping[str, Section] = field(default_factory=dict)

    def data(self) -> dict[str, Any]:
        """For programs: a section of which nothing is known is null, and ``missing`` says why."""
        found = self.sections.items()
        return {
            "instance": self.instance,
            "cluster": self.cluster,
            "node": self.node,
            "source": self.source,
            "at": self.at.isoformat(),
            "head": dict(self.head),
            **{name: None if one.missing else [dict(row) for row in one.rows] for name, one in found},
            "left_out": {name: one.left_out for name, one in found if one.left_out},
            "missing": {name: one.missing for name, one in found if one.missing},
            "notes": {name: one.note for name, one in found if one.note},
        }
