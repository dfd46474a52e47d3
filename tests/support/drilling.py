# Copyright: the pgops.fleet contributors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Recovery drills of the servers of tests."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from backed import LONG, Backed

from pgops.host.identity import as_user
from pgops.instance.configuration import Configuration
from pgops.recovery import drill, drill_place
from pgops.repository import drills
from pgops.repository.drills import Drill

USUAL = {"max_load": 0.0, "reserve_mb": 0.0, "amcheck": False}
ROWS = "SELECT to_jsonb(r) FROM pgops.restore_drills AS r ORDER BY r.completed_at"


@dataclass
class Drilling:
    """A server with backups, and its drills."""

    backed: Backed

    def configuration(self, **declared: Any) -> Configuration:
        """That of the agent, with options of drills."""
        known = self.backed.configuration()
        data = str(self.backed.server.data_dir)
        real = {data: os.path.realpath(data), f"{data}/pg_wal": os.path.realpath(f"{data}/pg_wal")}
        return replace(known, parts={**known.parts, "recovery": {**USUAL, **declared}}, real_paths=real)

    def drill(self, backup: str = "", scheduled: bool = False, **declared: Any) -> dict[str, Any]:
        """Make a drill; what the job returns."""
        configuration = self.configuration(**declared)
        layout = self.backed.layout
        done: dict[str, Any] = as_user(
            self.backed.user, lambda: drill.drill(configuration, layout, backup, scheduled), LONG
        )
        return done

    def forked(self, **declared: Any) -> int:
        """A process that makes a drill as the server's user; its number."""
        child = os.fork()
        if child:
            return child
        try:
            os.setgid(65534) if os.geteuid() == 0 else None
            os.setuid(self.backed.user)
            drill.drill(self.configuration(**declared), self.backed.layout)
        finally:
            os._exit(0)

    @property
    def place(self) -> Path:
        """Where they take place."""
        return Path(drill_place.place("", self.backed.layout))

    @property
    def left(self) -> list[str]:
        """What there is of drills: directories, and processes in them."""
        there = drill_place.left(str(self.place))
        return [*there, *(str(one) for path in there for one in drill_place.processes(path))]

    @property
    def noted(self) -> tuple[Drill, ...]:
        """The drills that the instance remembers."""
        return drills.read(self.backed.layout.keeping).over

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The drills that the ops database knows."""
        with self.backed.server.connect("pgops") as session:
            return [row[0] for row in session.execute(ROWS.encode())]
